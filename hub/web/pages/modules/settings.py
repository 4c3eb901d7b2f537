"""A module's settings, for those who may write: who may see it, share links, repair, deleting it."""

import uuid
from collections import defaultdict
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from hub.http.addresses import root_url
from hub.http.identity import ServicesDep, SessionDep, ViewerDep
from hub.http.permissions import CanWriteAdapter, CanWriteSomewhere
from hub.registry.access.viewer import Viewer
from hub.registry.content import repo_visibility, repos, share_links
from hub.registry.content.repo_visibility import WouldReveal
from hub.registry.library import repair
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import Forbidden, HubError, InvalidInput, RevisionNotFound
from hub.vocabulary import MAIN, VISIBILITIES, Visibility
from hub.web.pages.modules.overview import open_module, tab

router = APIRouter(prefix="/adapters/{namespace}/{name}", include_in_schema=False)

Text = Annotated[str, Form(max_length=500)]


@router.get("/settings")
def settings(session: SessionDep, viewer: ViewerDep, namespace: str, name: str) -> Response:
    return _settings(session, viewer, namespace, name)


def _settings(
    session: Session,
    viewer: Viewer | None,
    namespace: str,
    name: str,
    *,
    refused: HubError | None = None,
    section: str = "",
    typed: dict[str, Any] | None = None,
    secret: str = "",
) -> Response:
    """`refused` is why the form of a `section`, with what was `typed`, did not do what it should."""
    opened = open_module(session, viewer, namespace, name)
    writer = repos.writable(session, viewer, "model", f"{namespace}/{name}")
    return tab(
        "settings",
        opened,
        writer.viewer,
        status=refused.status if refused else 200,
        visibilities=VISIBILITIES,
        shares=share_links.listing(session, writer),
        refs=repos.refs(session, opened.repo),
        problem={section: refused.message} if refused else {},
        reveals=refused.details["reveals"] if isinstance(refused, WouldReveal) else [],
        typed=defaultdict(str, typed or {}),
        secret=secret,
    )


@router.post("/visibility")
def change_visibility(
    session: SessionDep,
    writer: CanWriteAdapter,
    namespace: str,
    name: str,
    visibility: Annotated[Visibility, Form()],
    reveal: Annotated[bool, Form()] = False,
) -> Response:
    try:
        repo_visibility.change_visibility(session, writer, visibility, reveal=reveal)
    except WouldReveal as error:
        typed = {"visibility": visibility}
        return _settings(session, writer.viewer, namespace, name, refused=error, section="visibility", typed=typed)
    return RedirectResponse(f"/adapters/{namespace}/{name}/settings", status_code=303)


@router.post("/shares")
def share(
    request: Request,
    session: SessionDep,
    writer: CanWriteAdapter,
    namespace: str,
    name: str,
    days: Annotated[float, Form(gt=0, le=365)] = 7,
    revision: Annotated[str, Form(max_length=255)] = MAIN,
    reveal: Annotated[bool, Form()] = False,
) -> Response:
    """The page that answers is the only one that shows the address."""
    try:
        _, secret = share_links.create(session, writer, revision.strip(), days, reveal=reveal)
    except (WouldReveal, RevisionNotFound) as error:
        typed = {"days": days, "revision": revision}
        return _settings(session, writer.viewer, namespace, name, refused=error, section="share", typed=typed)
    return _settings(session, writer.viewer, namespace, name, secret=f"{root_url(request)}/share/{secret}")


@router.post("/shares/{share_id}/revoke")
def revoke(session: SessionDep, writer: CanWriteAdapter, namespace: str, name: str, share_id: uuid.UUID) -> Response:
    share_links.revoke(session, writer, share_id)
    return RedirectResponse(f"/adapters/{namespace}/{name}/settings#share", status_code=303)


@router.post("/repair")
def repair_adapter(
    services: ServicesDep,
    writer: CanWriteSomewhere,
    namespace: str,
    name: str,
    folder: Text = "",
    base: Text = "",
    licence: Annotated[str, Form(max_length=60)] = "",
) -> Response:
    full_name = f"{namespace}/{name}"
    words = {"base": base.strip() or None, "licence": licence.strip() or None}
    try:
        repair.repair(services, writer.viewer, full_name, folder=folder, **words)
    except Forbidden:
        raise
    except HubError as error:
        typed = {"folder": folder, "base": base, "licence": licence}
        with transaction(services.sessions) as session:
            return _settings(session, writer.viewer, namespace, name, refused=error, section="repair", typed=typed)
    return RedirectResponse(f"/adapters/{full_name}", status_code=303)


@router.post("/delete")
def delete(session: SessionDep, writer: CanWriteAdapter, namespace: str, name: str, typed_name: Text = "") -> Response:
    full_name = f"{namespace}/{name}"
    if typed_name.strip() != full_name:
        error = InvalidInput(f"Type {full_name} to delete it; {typed_name.strip()[:100]!r} is something else.")
        return _settings(session, writer.viewer, namespace, name, refused=error, section="delete")
    repos.delete(session, writer)
    return RedirectResponse("/", status_code=303)
