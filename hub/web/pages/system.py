"""How the instance is, for its administrators: queues, workers, storage, device-seconds, bases; new users and quotas."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from hub.http.identity import Admin, SessionDep
from hub.registry.access import audit, credentials, quota, users
from hub.registry.access.viewer import Viewer
from hub.registry.bases import base_models
from hub.registry.jobs import usage
from hub.registry.platform.errors import HubError, InvalidInput
from hub.web.render import page

router = APIRouter(include_in_schema=False)


@router.get("/system")
def system(session: SessionDep, viewer: Admin) -> Response:
    return _system(session, viewer)


def _system(
    session: Session,
    viewer: Viewer,
    *,
    status: int = 200,
    problem: HubError | None = None,
    about: str = "",
    **shown: Any,
) -> Response:
    """`about`: the form that the problem is of."""
    return page(
        "system.html",
        viewer,
        status=problem.status if problem else status,
        problem=problem.message if problem else "",
        about=about,
        now=usage.system(session, viewer),
        bases=base_models.listing(session),
        **{"secret": "", "typed": {}} | shown,
    )


@router.post("/system/users")
def create_user(
    session: SessionDep,
    viewer: Admin,
    name: Annotated[str, Form(max_length=96)],
    is_admin: Annotated[bool, Form()] = False,
) -> Response:
    """The page with the user's first token on it, this once."""
    try:
        with session.begin_nested():
            user = users.create_user(session, name.strip(), is_admin=is_admin)
            _, secret = credentials.create_token(session, user.id, "first")
            audit.record(session, viewer, "user.created", user.name, is_admin=is_admin)
    except HubError as error:
        return _system(session, viewer, problem=error, about="user", typed={"name": name})
    return _system(session, viewer, status=201, secret=secret, typed={"made": user.name})


@router.post("/system/quota")
def set_quota(
    session: SessionDep,
    viewer: Admin,
    namespace: Annotated[str, Form(max_length=96)],
    gigabytes: Annotated[str, Form(max_length=12)] = "",
    jobs: Annotated[str, Form(max_length=6)] = "",
) -> Response:
    try:
        with session.begin_nested():
            limit = _number(gigabytes, "gigabytes")
            most = _number(jobs, "jobs")
            quota.set_limits(
                session,
                viewer,
                namespace.strip(),
                None if limit is None else int(limit * 1e9),
                None if most is None else int(most),
            )
    except HubError as error:
        typed = {"namespace": namespace, "gigabytes": gigabytes, "jobs": jobs}
        return _system(session, viewer, problem=error, about="quota", typed=typed)
    return RedirectResponse("/system#storage", status_code=303)


def _number(text: str, what: str) -> float | None:
    """From a field that may be empty, which means no limit."""
    try:
        value = float(text) if text.strip() else None
    except ValueError:
        value = -1.0
    if value is not None and not 0 <= value < 1e9:
        raise InvalidInput(f"{text!r} is no number of {what}; leave it empty for no limit.")
    return value
