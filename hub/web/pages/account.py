"""What is one's own: password, tokens, sessions; and the log of who did what."""

import uuid
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from hub.http.addresses import address_of
from hub.http.identity import COOKIE, ServicesDep, SessionDep, SignedIn
from hub.registry.access import audit, credentials, permissions, sign_in, users
from hub.registry.access.viewer import Viewer
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import HubError, InvalidInput
from hub.vocabulary import SCOPES, Scope
from hub.web.forms import expiry
from hub.web.render import page

router = APIRouter(include_in_schema=False)

EVENTS = 50


@router.get("/account")
def account(session: SessionDep, viewer: SignedIn, request: Request) -> Response:
    return _account(session, viewer, request)


def _account(
    session: Session,
    viewer: Viewer,
    request: Request,
    *,
    status: int = 200,
    problem: HubError | None = None,
    about: str = "",
    **shown: Any,
) -> Response:
    """`about`: the form that the problem is of."""
    permissions.require_account(viewer)
    return page(
        "account.html",
        viewer,
        status=problem.status if problem else status,
        problem=problem.message if problem else "",
        about=about,
        tokens=credentials.tokens(session, viewer.id),
        sessions=credentials.sessions(session, viewer.id),
        this_session=credentials.hash_secret(request.cookies.get(COOKIE, "")),
        has_password=credentials.has_password(session, viewer.id),
        namespaces=users.namespaces(session, viewer),
        all_scopes=SCOPES,
        now=datetime.now(UTC),
        **{"secret": "", "typed": {}, "done": ""} | shown,
    )


@router.post("/account/password")
def set_password(
    services: ServicesDep,
    viewer: SignedIn,
    request: Request,
    new: Annotated[str, Form(max_length=1_000)],
    current: Annotated[str, Form(max_length=1_000)] = "",
) -> Response:
    problem = None
    try:
        sign_in.change_password(
            services.sessions,
            request.app.state.limits,
            viewer,
            current,
            new,
            address=address_of(request),
            kept_session=request.cookies.get(COOKIE, ""),
        )
    except HubError as error:
        problem = error
    with transaction(services.sessions) as session:
        done = "" if problem else "The password is set. Your other sessions have ended."
        return _account(session, viewer, request, problem=problem, about="password", done=done)


@router.post("/account/tokens")
def create_token(
    session: SessionDep,
    viewer: SignedIn,
    request: Request,
    name: Annotated[str, Form(max_length=96)],
    scopes: Annotated[list[Scope], Form()] = [],  # noqa: B006 - FastAPI copies it
    repos: Annotated[str, Form(max_length=10_000)] = "",
    days: Annotated[str, Form(max_length=6)] = "",
) -> Response:
    """The page with the secret on it, this once."""
    limits = repos.split() or None
    try:
        if not name.strip():
            raise InvalidInput("Give the token a name, so that you will know later what it was for.")
        with session.begin_nested():
            token, secret = credentials.create_token(
                session, viewer.id, name.strip(), scopes=scopes, repos=limits, expires_at=expiry(days)
            )
            audit.record(session, viewer, "token.created", name, scopes=list(token.scopes), repos=token.repos)
    except HubError as error:
        typed = {"name": name, "scopes": scopes, "repos": repos, "days": days}
        return _account(session, viewer, request, problem=error, about="token", typed=typed)
    return _account(session, viewer, request, status=201, secret=secret)


@router.post("/account/tokens/{token_id}/revoke")
def revoke_token(session: SessionDep, viewer: SignedIn, token_id: uuid.UUID) -> Response:
    permissions.require_account(viewer)
    token = credentials.delete_token(session, viewer.id, token_id)
    audit.record(session, viewer, "token.revoked", token.name)
    return RedirectResponse("/account#tokens", status_code=303)


@router.post("/account/sessions/{session_id}/end")
def end_session(session: SessionDep, viewer: SignedIn, session_id: uuid.UUID) -> Response:
    permissions.require_account(viewer)
    credentials.end_session_of(session, viewer.id, session_id)
    audit.record(session, viewer, "session.ended", str(session_id))
    return RedirectResponse("/account#sessions", status_code=303)


@router.post("/account/sessions/end")
def end_other_sessions(session: SessionDep, viewer: SignedIn, request: Request) -> Response:
    permissions.require_account(viewer)
    count = credentials.end_sessions(session, viewer.id, but=request.cookies.get(COOKIE, ""))
    audit.record(session, viewer, "sessions.ended", viewer.name, count=count)
    return RedirectResponse("/account#sessions", status_code=303)


@router.get("/activity")
def activity(
    session: SessionDep,
    viewer: SignedIn,
    namespace: Annotated[str, Query(max_length=96)] = "",
    before: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    """The audit log of what one administers, newest first."""
    found = audit.latest(session, viewer, namespace=namespace or None, before=before, limit=EVENTS + 1)
    administered = [each.name for each, role in users.namespaces(session, viewer) if role == "admin"]
    return page(
        "activity.html",
        viewer,
        events=found[:EVENTS],
        older=found[EVENTS - 1].id if len(found) > EVENTS else None,
        namespace=namespace,
        administered=administered,
    )
