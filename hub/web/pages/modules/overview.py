"""A module's pages: overview, files, versions, lineage, what is alike. Each tab has an address and asks only for what it shows."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from markupsafe import Markup
from sqlalchemy.orm import Session

from hub.http.addresses import root_url
from hub.http.identity import ServicesDep, SessionDep, ViewerDep
from hub.registry.access import permissions
from hub.registry.access.viewer import Viewer
from hub.registry.content import aliases, diff, refs, repos, trees
from hub.registry.inspection.folder import CARD
from hub.registry.inspection.model_card import MAX_CARD_BYTES, CardError, parse_card
from hub.registry.library import lineage, manifest, provenance, similar
from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.content import Commit, Repo
from hub.registry.platform.errors import InvalidInput, RepoNotFound
from hub.registry.platform.services import Services
from hub.registry.platform.storage import Storage
from hub.similarity import DUPLICATE
from hub.vocabulary import MAIN
from hub.web.graph import address, family_graph, title
from hub.web.pages.modules.snippets import Pinned, Snippet, snippets
from hub.web.render import markdown, page
from hub.web.report import METRICS, summarize_report

router = APIRouter(include_in_schema=False)

FILES_A_PAGE = 500
SHOWN_PARENTS = 5
ALIKE = 0.2  # cosine from which a module is told as alike: well above what two unrelated ones have by chance


@dataclass(frozen=True)
class Opened:
    """A module at a revision, as every tab needs it."""

    repo: Repo
    commit: Commit
    revision: str  # as it was asked for
    version: str | None
    newest: bool  # the commit is the head of main
    folders: list[AdapterFacts]
    writable: bool

    @property
    def address(self) -> str:
        return f"/adapters/{self.repo.full_name}"

    @property
    def asked(self) -> dict[str, str]:
        """What the other tabs' addresses carry on."""
        return {} if self.revision == MAIN else {"revision": self.revision}


def open_module(session: Session, viewer: Viewer | None, namespace: str, name: str, revision: str = MAIN) -> Opened:
    """`name` may be that of a version, as serving engines use it (plurals.v3)."""
    place = refs.find_revision(session, viewer, "model", f"{namespace}/{name}", revision)
    repo, commit = place.repo, place.commit
    version = repos.version_of(session, commit)
    return Opened(
        repo=repo,
        commit=commit,
        revision=(version or commit.id) if place.pinned else revision,
        version=version,
        newest=commit.id == repos.resolve(session, repo).id,
        folders=list(repos.facts(session, commit)),
        writable=viewer is not None and permissions.may_write(session, viewer, repo.namespace, repo.name),
    )


def tab(name: str, opened: Opened, viewer: Viewer | None, *, status: int = 200, **values: Any) -> Response:
    """`name` is the tab's own part of the address, after which its template is named; empty for the overview."""
    template = f"modules/{name or 'overview'}.html"
    return page(
        template, viewer, status=status, tab_name=name, module=opened, repo=opened.repo, commit=opened.commit, **values
    )


@router.get("/adapters/{namespace}/{name}")
def overview(
    request: Request,
    services: ServicesDep,
    session: SessionDep,
    viewer: ViewerDep,
    namespace: str,
    name: str,
    revision: str = MAIN,
) -> Response:
    opened = open_module(session, viewer, namespace, name, revision)
    commit = opened.commit
    files, size = trees.totals(session, commit)
    told = manifest.report(session, services.storage, commit)
    return tab(
        "",
        opened,
        viewer,
        files=files,
        size=size,
        card=card_of(session, services.storage, commit),
        told=told,
        judged=summarize_report(told.report) if told else None,
        metrics=METRICS,
        scores=provenance.scores_beside_base(session, viewer, commit),
        parents=provenance.parents(session, viewer, commit),
        children=provenance.children(session, viewer, commit),
        lost_inputs=provenance.missing_inputs(session, commit),
        shown_parents=SHOWN_PARENTS,
        snippets={
            facts.folder: _snippets(request, services, session, viewer, opened, facts) for facts in opened.folders
        },
    )


def _snippets(
    request: Request, services: Services, session: Session, viewer: Viewer | None, opened: Opened, facts: AdapterFacts
) -> list[Snippet]:
    pinned = Pinned(root_url(request), opened.repo, opened.commit, opened.version, facts)
    read_through = pinned.base.partition("/")[0] in services.upstream.namespaces
    return snippets(pinned, base_here=read_through or _is_here(session, viewer, pinned.base))


def _is_here(session: Session, viewer: Viewer | None, base: str) -> bool:
    try:
        repos.find(session, viewer, "model", base)
    except (RepoNotFound, InvalidInput):
        return False
    return True


@router.get("/adapters/{namespace}/{name}/files")
def files(
    session: SessionDep,
    viewer: ViewerDep,
    namespace: str,
    name: str,
    revision: str = MAIN,
    after: Annotated[str | None, Query(max_length=trees.MAX_PATH_BYTES)] = None,
) -> Response:
    opened = open_module(session, viewer, namespace, name, revision)
    items, following = trees.recursive(session, opened.commit, "", after=after, limit=FILES_A_PAGE)
    entries = [item.entry for item in items if item.entry]
    count, size = trees.totals(session, opened.commit)
    return tab("files", opened, viewer, files=entries, following=following, count=count, size=size)


@router.get("/adapters/{namespace}/{name}/versions")
def versions(
    session: SessionDep,
    viewer: ViewerDep,
    namespace: str,
    name: str,
    revision: str = MAIN,
    compare: Annotated[str, Query(max_length=255)] = "",
    before: Annotated[str | None, Query(max_length=40)] = None,
) -> Response:
    opened = open_module(session, viewer, namespace, name, revision)
    return versions_tab(session, viewer, opened, compare=compare, before=before)


def versions_tab(
    session: Session,
    viewer: Viewer | None,
    opened: Opened,
    *,
    compare: str = "",
    before: str | None = None,
    problem: str = "",
    typed: dict[str, str] | None = None,
    status: int = 200,
) -> Response:
    """`problem` is why the form that was sent, with what was `typed`, did not do what it should."""
    history, following = provenance.history(session, opened.repo, before=before)
    older = repos.resolve(session, opened.repo, compare) if compare else None
    return tab(
        "versions",
        opened,
        viewer,
        status=status,
        history=history,
        following=following,
        refs=repos.refs(session, opened.repo),
        aliases=aliases.listing(session, viewer, opened.repo),
        compare=compare,
        changes=diff.between(session, older, opened.commit) if older else None,
        problem=problem,
        typed=defaultdict(str, typed or {}),
    )


@router.get("/adapters/{namespace}/{name}/lineage")
def lineage_tab(session: SessionDep, viewer: ViewerDep, namespace: str, name: str, revision: str = MAIN) -> Response:
    opened = open_module(session, viewer, namespace, name, revision)
    family = lineage.family(session, viewer, opened.repo, opened.commit)
    return tab(
        "lineage",
        opened,
        viewer,
        family=family,
        graph=family_graph(family),
        lost_inputs=provenance.missing_inputs(session, opened.commit),
        address=address,
        title=title,
    )


@router.get("/adapters/{namespace}/{name}/similar")
def similar_tab(session: SessionDep, viewer: ViewerDep, namespace: str, name: str, revision: str = MAIN) -> Response:
    opened = open_module(session, viewer, namespace, name, revision)
    found = {
        facts.folder: similar.alike(session, viewer, opened.repo, facts, least=ALIKE, limit=30)
        for facts in opened.folders
    }
    return tab("similar", opened, viewer, found=found, duplicate=DUPLICATE, least=ALIKE)


def card_of(session: Session, storage: Storage, commit: Commit) -> Markup:
    """The model card as safe HTML; empty where there is none, or none that can be read."""
    for entry in trees.find(session, commit, [CARD]):
        if entry.size <= MAX_CARD_BYTES:
            try:
                return markdown(parse_card(storage.read(entry.sha256, 0, entry.size)).text)
            except CardError:
                return Markup()
    return Markup()
