"""An adapter's tabs of files, versions, lineage and similar adapters. Each queries only what it shows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Response
from markupsafe import Markup
from sqlalchemy.orm import Session

from hub.http.identity import SessionDep, ViewerDep
from hub.registry.access.viewer import Viewer
from hub.registry.content import aliases, diff, repos, trees
from hub.registry.content.aliases import AliasInfo
from hub.registry.content.diff import Changes
from hub.registry.library import lineage, provenance, similar
from hub.registry.library.lineage import Family, Member
from hub.registry.library.provenance import Step
from hub.registry.library.similar import Alike
from hub.registry.models.content import Ref, TreeEntry
from hub.similarity import DUPLICATE
from hub.vocabulary import ENOUGH_EXAMPLES, MAIN, METRICS, TEMPLATES, Metric, Template
from hub.web.forms import NO_FORM, RefusedForm
from hub.web.graph import address, family_graph, title
from hub.web.pages.modules.frame import ModulePage, ModuleRevision, open_module
from hub.web.render import render

router = APIRouter(prefix="/adapters/{namespace}/{name}", include_in_schema=False)

FILES_A_PAGE = 500
ALIKE = 0.2  # cosine from which an adapter is listed as similar: well above what two unrelated ones have by chance


@dataclass(frozen=True, kw_only=True)
class FilesPage(ModulePage, template="modules/files.html"):
    """The files of a commit, with their hashes."""

    tab: str = "files"
    files: Sequence[TreeEntry]
    following: str | None  # the path after which the next page begins
    count: int  # of all files of the commit
    size: int  # of all files of the commit, in bytes


@dataclass(frozen=True, kw_only=True)
class VersionsPage(ModulePage, template="modules/versions.html"):
    """History, the changes between two revisions, and aliases, with the forms "move", "rollback", "gate", "ungate" and "remove"."""

    tab: str = "versions"
    history: Sequence[Step]  # newest first
    following: str | None  # the commit after which the next page begins
    refs: Sequence[Ref]
    aliases: Sequence[AliasInfo]
    compare: str  # the revision to compare with, or ""
    changes: Changes | None  # since that revision
    form: RefusedForm
    metrics: Sequence[Metric] = METRICS
    templates: Sequence[Template] = TEMPLATES
    enough_examples: int = ENOUGH_EXAMPLES


@dataclass(frozen=True, kw_only=True)
class LineagePage(ModulePage, template="modules/lineage.html"):
    """What a commit was made from and what was made from it, as a graph and as a list."""

    tab: str = "lineage"
    family: Family
    graph: Markup  # empty where the commit has no relatives
    missing_inputs: int  # of what it was made from, which are deleted
    address: Callable[[Member], str | None] = address
    title: Callable[[Member], str] = title


@dataclass(frozen=True, kw_only=True)
class SimilarPage(ModulePage, template="modules/similar.html"):
    """The adapters of the same base whose updates point the same way."""

    tab: str = "similar"
    alike: Mapping[str, Sequence[Alike]]  # by folder, most similar first
    alike_from: float = ALIKE  # least cosine listed
    duplicate_from: float = DUPLICATE  # cosine of near duplicates


@router.get("/files")
def files(
    session: SessionDep,
    viewer: ViewerDep,
    namespace: str,
    name: str,
    revision: str = MAIN,
    after: Annotated[str | None, Query(max_length=trees.MAX_PATH_BYTES)] = None,
) -> Response:
    module = open_module(session, viewer, namespace, name, revision)
    items, following = trees.recursive(session, module.commit, "", after=after, limit=FILES_A_PAGE)
    entries = [item.entry for item in items if item.entry]
    count, size = trees.totals(session, module.commit)
    return render(FilesPage(module=module, files=entries, following=following, count=count, size=size), viewer)


@router.get("/versions")
def versions(
    session: SessionDep,
    viewer: ViewerDep,
    namespace: str,
    name: str,
    revision: str = MAIN,
    compare: Annotated[str, Query(max_length=255)] = "",
    before: Annotated[str | None, Query(max_length=40)] = None,
) -> Response:
    module = open_module(session, viewer, namespace, name, revision)
    return show_versions(session, viewer, module, compare=compare, before=before)


def show_versions(
    session: Session,
    viewer: Viewer | None,
    module: ModuleRevision,
    form: RefusedForm = NO_FORM,
    *,
    compare: str = "",
    before: str | None = None,
) -> Response:
    history, following = provenance.history(session, module.repo, before=before)
    older = repos.resolve(session, module.repo, compare) if compare else None
    page = VersionsPage(
        module=module,
        history=history,
        following=following,
        refs=repos.refs(session, module.repo),
        aliases=aliases.listing(session, viewer, module.repo),
        compare=compare,
        changes=diff.between(session, older, module.commit) if older else None,
        form=form,
    )
    return render(page, viewer, status=form.status)


@router.get("/lineage")
def show_lineage(session: SessionDep, viewer: ViewerDep, namespace: str, name: str, revision: str = MAIN) -> Response:
    module = open_module(session, viewer, namespace, name, revision)
    family = lineage.family(session, viewer, module.repo, module.commit)
    missing = provenance.missing_inputs(session, module.commit)
    return render(LineagePage(module=module, family=family, graph=family_graph(family), missing_inputs=missing), viewer)


@router.get("/similar")
def show_similar(session: SessionDep, viewer: ViewerDep, namespace: str, name: str, revision: str = MAIN) -> Response:
    module = open_module(session, viewer, namespace, name, revision)
    alike = {
        facts.folder: similar.alike(session, viewer, module.repo, facts, least=ALIKE, limit=30)
        for facts in module.folders
    }
    return render(SimilarPage(module=module, alike=alike), viewer)
