"""The frame of an adapter's pages: the adapter at a revision, and the context that every tab shares."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from hub.registry.access import permissions
from hub.registry.access.viewer import Viewer
from hub.registry.content import refs, repos
from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.content import Commit, Repo
from hub.vocabulary import MAIN
from hub.web.render import Page, query_string


@dataclass(frozen=True)
class ModuleRevision:
    """An adapter at the revision that a page shows."""

    repo: Repo
    commit: Commit
    revision: str  # as the address names it
    version: str | None
    newest: bool  # the commit is the head of main
    folders: list[AdapterFacts]
    writable: bool

    @property
    def address(self) -> str:
        return f"/adapters/{self.repo.full_name}"

    @property
    def pinned(self) -> bool:
        """The address names another revision than main, which the links to other tabs must keep."""
        return self.revision != MAIN

    def link(self, tab: str = "", **fields: object) -> str:
        """The address of a tab at the same revision."""
        pinned = {"revision": self.revision} if self.pinned else {}
        query = query_string({**pinned, **fields})
        return self.address + (f"/{tab}" if tab else "") + (f"?{query}" if query else "")


@dataclass(frozen=True, kw_only=True)
class ModulePage(Page, template="modules/frame.html"):
    """A tab of an adapter's pages."""

    module: ModuleRevision
    tab: str  # the tab's own part of the address


def open_module(
    session: Session, viewer: Viewer | None, namespace: str, name: str, revision: str = MAIN
) -> ModuleRevision:
    """`name` may be that of a version, as serving engines use it (plurals.v3). Raises RepoNotFound, RevisionNotFound."""
    place = refs.find_revision(session, viewer, "model", f"{namespace}/{name}", revision)
    repo, commit = place.repo, place.commit
    version = repos.version_of(session, commit)
    return ModuleRevision(
        repo=repo,
        commit=commit,
        revision=(version or commit.id) if place.pinned else revision,
        version=version,
        newest=commit.id == repos.resolve(session, repo).id,
        folders=list(repos.facts(session, commit)),
        writable=viewer is not None and permissions.may_write(session, viewer, repo.namespace, repo.name),
    )
