"""An adapter's first tab: how to use it, its report, scores, card and facts, and where it comes from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from markupsafe import Markup
from sqlalchemy.orm import Session

from hub.http.addresses import root_url
from hub.http.identity import ServicesDep, SessionDep, ViewerDep
from hub.registry.access.viewer import Viewer
from hub.registry.content import repos, trees
from hub.registry.inspection.findings import REMEDIED_BY_CONVERT
from hub.registry.inspection.folder import CARD
from hub.registry.inspection.model_card import MAX_CARD_BYTES, CardError, parse_card
from hub.registry.library import manifest, provenance
from hub.registry.library.manifest import StatedReport
from hub.registry.library.provenance import Measured, Relative
from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.content import Commit
from hub.registry.platform.errors import InvalidInput, RepoNotFound
from hub.registry.platform.services import Services
from hub.registry.platform.storage import Storage
from hub.vocabulary import MAIN, Metric
from hub.web.pages.modules.frame import ModulePage, ModuleRevision, open_module
from hub.web.pages.modules.snippets import Pinned, Snippet, snippets
from hub.web.render import markdown, render
from hub.web.report import METRICS, ReportSummary, summarize_report

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, kw_only=True)
class OverviewPage(ModulePage, template="modules/overview.html"):
    """What an adapter is, how to use it, and how good it is."""

    tab: str = ""
    files: int
    size: int  # of all files, in bytes
    card: Markup  # empty where there is none
    own_report: StatedReport | None  # of loraloom.json
    summary: ReportSummary | None  # of the same report
    metrics: Mapping[Metric, str]  # what each one counts
    scores: Sequence[tuple[Measured, Measured | None]]  # each with that of the base alone
    parents: Sequence[Relative]
    children: Sequence[Relative]
    listed_relatives: int = 5  # parents, and children, that the page lists
    missing_inputs: int  # of what it was made from, which are deleted
    convertible: bool  # its findings say that a conversion would help
    snippets: Mapping[str, Sequence[Snippet]]  # by folder


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
    module = open_module(session, viewer, namespace, name, revision)
    commit = module.commit
    files, size = trees.totals(session, commit)
    own_report = manifest.report(session, services.storage, commit)
    page = OverviewPage(
        module=module,
        files=files,
        size=size,
        card=card_of(session, services.storage, commit),
        own_report=own_report,
        summary=summarize_report(own_report.report) if own_report else None,
        metrics=METRICS,
        scores=provenance.scores_beside_base(session, viewer, commit),
        parents=provenance.parents(session, viewer, commit),
        children=provenance.children(session, viewer, commit),
        missing_inputs=provenance.missing_inputs(session, commit),
        convertible=any(
            finding["code"] in REMEDIED_BY_CONVERT for folder in module.folders for finding in folder.findings
        ),
        snippets={
            facts.folder: _snippets(request, services, session, viewer, module, facts) for facts in module.folders
        },
    )
    return render(page, viewer)


def _snippets(
    request: Request,
    services: Services,
    session: Session,
    viewer: Viewer | None,
    module: ModuleRevision,
    facts: AdapterFacts,
) -> list[Snippet]:
    pinned = Pinned(root_url(request), module.repo, module.commit, module.version, facts)
    read_through = pinned.base.partition("/")[0] in services.upstream.namespaces
    return snippets(pinned, base_here=read_through or _is_here(session, viewer, pinned.base))


def _is_here(session: Session, viewer: Viewer | None, base: str) -> bool:
    try:
        repos.find(session, viewer, "model", base)
    except (RepoNotFound, InvalidInput):
        return False
    return True


def card_of(session: Session, storage: Storage, commit: Commit) -> Markup:
    """The model card as safe HTML; empty where there is none, or none that can be read."""
    for entry in trees.find(session, commit, [CARD]):
        if entry.size <= MAX_CARD_BYTES:
            try:
                return markdown(parse_card(storage.read(entry.sha256, 0, entry.size)).text)
            except CardError:
                return Markup()
    return Markup()
