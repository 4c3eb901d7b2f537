"""The state of the instance, for its administrators: queues, workers, storage, device-seconds, bases; new users and quotas."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Form, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from hub.http.identity import SessionDep
from hub.http.permissions import CanAdministerHub
from hub.registry.access import quota, users
from hub.registry.access.viewer import Viewer
from hub.registry.bases import base_models
from hub.registry.jobs import usage
from hub.registry.models.bases import RegisteredBase
from hub.registry.platform.errors import InvalidInput
from hub.web.forms import NO_FORM, RefusedForm, run_form
from hub.web.render import Page, render

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, kw_only=True)
class SystemPage(Page, template="system/system.html"):
    """The state of the instance, with the forms "user" and "quota"."""

    system: usage.System
    running: int  # jobs, of all queues
    waiting: int
    bases: Sequence[RegisteredBase]
    form: RefusedForm
    new_user: str  # name of a user just made
    secret: str  # that user's first token, which is shown this once


@router.get("/system")
def system(session: SessionDep, hub: CanAdministerHub) -> Response:
    return _system(session, hub.viewer)


def _system(
    session: Session, viewer: Viewer, form: RefusedForm = NO_FORM, *, new_user: str = "", secret: str = ""
) -> Response:
    system = usage.system(session)
    page = SystemPage(
        system=system,
        running=sum(sum(queue.running.values()) for queue in system.queues),
        waiting=sum(sum(queue.waiting.values()) for queue in system.queues),
        bases=base_models.listing(session),
        form=form,
        new_user=new_user,
        secret=secret,
    )
    return render(page, viewer, status=201 if secret else form.status)


@router.post("/system/users")
def create_user(
    session: SessionDep,
    hub: CanAdministerHub,
    name: Annotated[str, Form(max_length=96)],
    is_admin: Annotated[bool, Form()] = False,
) -> Response:
    """The page with the user's first token on it, this once."""

    def change() -> Response:
        user, _, secret = users.register(session, hub, name.strip(), is_admin=is_admin)
        return _system(session, hub.viewer, new_user=user.name, secret=secret)

    def show_again(form: RefusedForm) -> Response:
        return _system(session, hub.viewer, form)

    return run_form(change, show_again, name="user", typed={"name": name}, session=session)


@router.post("/system/quota")
def set_quota(
    session: SessionDep,
    hub: CanAdministerHub,
    namespace: Annotated[str, Form(max_length=96)],
    gigabytes: Annotated[str, Form(max_length=12)] = "",
    jobs: Annotated[str, Form(max_length=6)] = "",
) -> Response:
    def change() -> Response:
        limit = _number(gigabytes, "gigabytes")
        most = _number(jobs, "jobs")
        quota.set_limits(
            session,
            hub,
            namespace.strip(),
            None if limit is None else int(limit * 1e9),
            None if most is None else int(most),
        )
        return RedirectResponse("/system#storage", status_code=303)

    def show_again(form: RefusedForm) -> Response:
        return _system(session, hub.viewer, form)

    typed = {"namespace": namespace, "gigabytes": gigabytes, "jobs": jobs}
    return run_form(change, show_again, name="quota", typed=typed, session=session)


def _number(text: str, what: str) -> float | None:
    """From a field that may be empty, which means no limit."""
    try:
        value = float(text) if text.strip() else None
    except ValueError:
        value = -1.0
    if value is not None and not 0 <= value < 1e9:
        raise InvalidInput(f"{text!r} is not a number of {what}; leave it empty for no limit.")
    return value
