"""What a share link opens in a browser: one version's facts, card, numbers and files, for whoever has the link."""

from fastapi import APIRouter, Response

from hub.http.identity import ServicesDep, SessionDep, ViewerDep
from hub.registry.content import repos, share_links, trees
from hub.registry.library import manifest
from hub.web.pages.modules.overview import FILES_A_PAGE, card_of
from hub.web.render import page
from hub.web.report import METRICS, summarize_report

router = APIRouter(include_in_schema=False)


@router.get("/share/{secret}")
def shared(services: ServicesDep, session: SessionDep, viewer: ViewerDep, secret: str) -> Response:
    repo, commit, share = share_links.opened(session, secret)
    items, _ = trees.recursive(session, commit, "", after=None, limit=FILES_A_PAGE)
    told = manifest.report(session, services.storage, commit)
    response = page(
        "modules/share.html",
        viewer,
        repo=repo,
        commit=commit,
        share=share,
        shared=f"/v1/shares/{secret}",
        version=repos.version_of(session, commit),
        folders=repos.facts(session, commit),
        files=[item.entry for item in items if item.entry],
        card=card_of(session, services.storage, commit),
        told=told,
        judged=summarize_report(told.report) if told else None,
        metrics=METRICS,
    )
    # The address is the secret: it goes into no other site's log and into no shared cache.
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "private, no-store"
    return response
