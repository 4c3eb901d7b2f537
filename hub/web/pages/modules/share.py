"""What a share link opens in a browser: one version's facts, card, numbers and files, for whoever has the link."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from fastapi import APIRouter, Response
from markupsafe import Markup

from hub.http.identity import ServicesDep, SessionDep, ViewerDep
from hub.registry.content import repos, share_links, trees
from hub.registry.library import manifest
from hub.registry.library.manifest import StatedReport
from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.content import Commit, Repo, TreeEntry
from hub.vocabulary import Metric
from hub.web.pages.modules.overview import card_of
from hub.web.pages.modules.tabs import FILES_A_PAGE
from hub.web.render import Page, render
from hub.web.report import METRICS, ReportSummary, summarize_report

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, kw_only=True)
class SharePage(Page, template="modules/share.html"):
    """One version, as its share link shows it."""

    repo: Repo
    commit: Commit
    version: str | None
    expires_at: datetime  # when the link does
    address: str  # of the API, under which the files are
    folders: Sequence[AdapterFacts]
    files: Sequence[TreeEntry]
    card: Markup  # empty where there is none
    own_report: StatedReport | None  # of loraloom.json
    summary: ReportSummary | None  # of the same report
    metrics: Mapping[Metric, str]  # what each one counts


@router.get("/share/{secret}")
def shared(services: ServicesDep, session: SessionDep, viewer: ViewerDep, secret: str) -> Response:
    repo, commit, share = share_links.open_share_link(session, secret)
    items, _ = trees.recursive(session, commit, "", after=None, limit=FILES_A_PAGE)
    own_report = manifest.report(session, services.storage, commit)
    page = SharePage(
        repo=repo,
        commit=commit,
        version=repos.version_of(session, commit),
        expires_at=share.expires_at,
        address=f"/v1/shares/{secret}",
        folders=repos.facts(session, commit),
        files=[item.entry for item in items if item.entry],
        card=card_of(session, services.storage, commit),
        own_report=own_report,
        summary=summarize_report(own_report.report) if own_report else None,
        metrics=METRICS,
    )
    response = render(page, viewer)
    # The address is the secret: it goes into no other site's log and into no shared cache.
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "private, no-store"
    return response
