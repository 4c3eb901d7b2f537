"""An adapter's settings, for those who may write: who may see it, share links, repair, deleting it."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from hub.http.addresses import root_url
from hub.http.identity import ServicesDep, SessionDep, ViewerDep
from hub.http.permissions import CanWriteAdapter, CanWriteSomewhere
from hub.registry.content import repo_visibility, repos, share_links
from hub.registry.content.repo_visibility import WouldReveal
from hub.registry.content.repos import WriteRepo
from hub.registry.library import repair
from hub.registry.models.content import Ref, ShareLink
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import InvalidInput
from hub.vocabulary import MAIN, VISIBILITIES, Visibility
from hub.web.forms import NO_FORM, RefusedForm, run_form
from hub.web.pages.modules.frame import ModulePage, open_module
from hub.web.render import render

router = APIRouter(prefix="/adapters/{namespace}/{name}", include_in_schema=False)

Text = Annotated[str, Form(max_length=500)]


@dataclass(frozen=True, kw_only=True)
class SettingsPage(ModulePage, template="modules/settings.html"):
    """An adapter's settings, with the forms "visibility", "share", "repair" and "delete"."""

    tab: str = "settings"
    visibilities: Sequence[Visibility] = VISIBILITIES
    shares: Sequence[ShareLink]
    refs: Sequence[Ref]
    form: RefusedForm
    reveals: bool  # the form was refused because it shows names; the page offers to do it all the same
    share_address: str  # of a link just made, which is shown this once


@router.get("/settings")
def settings(session: SessionDep, viewer: ViewerDep, namespace: str, name: str) -> Response:
    return _settings(session, repos.writable(session, viewer, "model", f"{namespace}/{name}"))


def _settings(session: Session, writer: WriteRepo, form: RefusedForm = NO_FORM, *, share_address: str = "") -> Response:
    module = open_module(session, writer.viewer, writer.repo.namespace, writer.repo.name)
    page = SettingsPage(
        module=module,
        shares=share_links.listing(session, writer),
        refs=repos.refs(session, module.repo),
        form=form,
        reveals=isinstance(form.error, WouldReveal) and bool(form.error.details["reveals"]),
        share_address=share_address,
    )
    return render(page, writer.viewer, status=form.status)


@router.post("/visibility")
def change_visibility(
    session: SessionDep,
    writer: CanWriteAdapter,
    visibility: Annotated[Visibility, Form()],
    reveal: Annotated[bool, Form()] = False,
) -> Response:
    def change() -> Response:
        repo_visibility.change_visibility(session, writer, visibility, reveal=reveal)
        return RedirectResponse(f"/adapters/{writer.repo.full_name}/settings", status_code=303)

    def show_again(form: RefusedForm) -> Response:
        return _settings(session, writer, form)

    return run_form(change, show_again, name="visibility", typed={"visibility": visibility}, session=session)


@router.post("/shares")
def share(
    request: Request,
    session: SessionDep,
    writer: CanWriteAdapter,
    days: Annotated[float, Form(gt=0, le=365)] = 7,
    revision: Annotated[str, Form(max_length=255)] = MAIN,
    reveal: Annotated[bool, Form()] = False,
) -> Response:
    """The page that answers is the only one that shows the address."""

    def change() -> Response:
        _, secret = share_links.create(session, writer, revision.strip(), days, reveal=reveal)
        return _settings(session, writer, share_address=f"{root_url(request)}/share/{secret}")

    def show_again(form: RefusedForm) -> Response:
        return _settings(session, writer, form)

    typed = {"days": f"{days:g}", "revision": revision}
    return run_form(change, show_again, name="share", typed=typed, session=session)


@router.post("/shares/{share_id}/revoke")
def revoke(session: SessionDep, writer: CanWriteAdapter, share_id: uuid.UUID) -> Response:
    share_links.revoke(session, writer, share_id)
    return RedirectResponse(f"/adapters/{writer.repo.full_name}/settings#share", status_code=303)


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

    def change() -> Response:
        facts = {"base": base.strip() or None, "licence": licence.strip() or None}
        repair.repair(services, writer.viewer, full_name, folder=folder, **facts)
        return RedirectResponse(f"/adapters/{full_name}", status_code=303)

    def show_again(form: RefusedForm) -> Response:
        with transaction(services.sessions) as session:
            return _settings(session, repos.writable(session, writer.viewer, "model", full_name), form)

    return run_form(change, show_again, name="repair", typed={"folder": folder, "base": base, "licence": licence})


@router.post("/delete")
def delete(session: SessionDep, writer: CanWriteAdapter, typed_name: Text = "") -> Response:
    def change() -> Response:
        full_name = writer.repo.full_name
        if typed_name.strip() != full_name:
            raise InvalidInput(f"Type {full_name} to delete it; {typed_name.strip()[:100]!r} is something else.")
        repos.delete(session, writer)
        return RedirectResponse("/", status_code=303)

    def show_again(form: RefusedForm) -> Response:
        return _settings(session, writer, form)

    return run_form(change, show_again, name="delete", session=session)
