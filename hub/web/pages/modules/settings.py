"""A module's settings, for those who may write: who may see it, share links, repair, deleting it."""

import uuid
from collections import defaultdict
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from hub.http.addresses import root_url
from hub.http.identity import ServicesDep, SessionDep, ViewerDep
from hub.registry.access import permissions
from hub.registry.access.viewer import Viewer
from hub.registry.content import repo_visibility, repos, share_links
from hub.registry.content.repo_visibility import WouldReveal
from hub.registry.library import repair
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import Forbidden, HubError, InvalidInput, NotSignedIn, RevisionNotFound
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
    person = permissions.authorize_in(session, viewer, permissions.Write, namespace, name).viewer
    return tab(
        "settings",
        opened,
        person,
        status=refused.status if refused else 200,
        visibilities=VISIBILITIES,
        shares=share_links.listing(session, person, opened.repo.full_name),
        refs=repos.refs(session, opened.repo),
        problem={section: refused.message} if refused else {},
        reveals=refused.details["reveals"] if isinstance(refused, WouldReveal) else [],
        typed=defaultdict(str, typed or {}),
        secret=secret,
    )


def _signed_in(viewer: Viewer | None) -> Viewer:
    if viewer is None:
        raise NotSignedIn("Sign in to change a module.")
    return viewer


@router.post("/visibility")
def change_visibility(
    session: SessionDep,
    viewer: ViewerDep,
    namespace: str,
    name: str,
    visibility: Annotated[Visibility, Form()],
    reveal: Annotated[bool, Form()] = False,
) -> Response:
    person = _signed_in(viewer)
    try:
        repo_visibility.change_visibility(session, person, "model", f"{namespace}/{name}", visibility, reveal=reveal)
    except WouldReveal as error:
        typed = {"visibility": visibility}
        return _settings(session, viewer, namespace, name, refused=error, section="visibility", typed=typed)
    return RedirectResponse(f"/adapters/{namespace}/{name}/settings", status_code=303)


@router.post("/shares")
def share(
    request: Request,
    session: SessionDep,
    viewer: ViewerDep,
    namespace: str,
    name: str,
    days: Annotated[float, Form(gt=0, le=365)] = 7,
    revision: Annotated[str, Form(max_length=255)] = MAIN,
    reveal: Annotated[bool, Form()] = False,
) -> Response:
    """The page that answers is the only one that shows the address."""
    person = _signed_in(viewer)
    try:
        _, secret = share_links.create(session, person, f"{namespace}/{name}", revision.strip(), days, reveal=reveal)
    except (WouldReveal, RevisionNotFound) as error:
        typed = {"days": days, "revision": revision}
        return _settings(session, viewer, namespace, name, refused=error, section="share", typed=typed)
    return _settings(session, viewer, namespace, name, secret=f"{root_url(request)}/share/{secret}")


@router.post("/shares/{share_id}/revoke")
def revoke(session: SessionDep, viewer: ViewerDep, namespace: str, name: str, share_id: uuid.UUID) -> Response:
    share_links.revoke(session, _signed_in(viewer), f"{namespace}/{name}", share_id)
    return RedirectResponse(f"/adapters/{namespace}/{name}/settings#share", status_code=303)


@router.post("/repair")
def repair_adapter(
    services: ServicesDep,
    viewer: ViewerDep,
    namespace: str,
    name: str,
    folder: Text = "",
    base: Text = "",
    licence: Annotated[str, Form(max_length=60)] = "",
) -> Response:
    person, full_name = _signed_in(viewer), f"{namespace}/{name}"
    words = {"base": base.strip() or None, "licence": licence.strip() or None}
    try:
        repair.repair(services, person, full_name, folder=folder, **words)
    except Forbidden:
        raise
    except HubError as error:
        typed = {"folder": folder, "base": base, "licence": licence}
        with transaction(services.sessions) as session:
            return _settings(session, viewer, namespace, name, refused=error, section="repair", typed=typed)
    return RedirectResponse(f"/adapters/{full_name}", status_code=303)


@router.post("/delete")
def delete(session: SessionDep, viewer: ViewerDep, namespace: str, name: str, typed_name: Text = "") -> Response:
    person, full_name = _signed_in(viewer), f"{namespace}/{name}"
    if typed_name.strip() != full_name:
        error = InvalidInput(f"Type {full_name} to delete it; {typed_name.strip()[:100]!r} is something else.")
        return _settings(session, viewer, namespace, name, refused=error, section="delete")
    repos.delete(session, person, "model", full_name)
    return RedirectResponse("/", status_code=303)
