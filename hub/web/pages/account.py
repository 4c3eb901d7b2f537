"""Account settings: password, tokens, sessions; and the log of who did what."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from hub.http.addresses import address_of
from hub.http.identity import COOKIE, ServicesDep, SessionDep, SignedIn
from hub.http.permissions import CanManageAccount
from hub.registry.access import audit_queries, credentials, sign_in, users
from hub.registry.access.secret_hashes import hash_secret
from hub.registry.access.viewer import Viewer
from hub.registry.models.access import AuditEvent, BrowserSession, Token
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import InvalidInput
from hub.vocabulary import SCOPES, Scope
from hub.web.forms import NO_FORM, RefusedForm, expiry, run_form
from hub.web.render import Page, render

router = APIRouter(include_in_schema=False)

EVENTS = 50


@dataclass(frozen=True, kw_only=True)
class AccountPage(Page, template="account/account.html"):
    """The viewer's own tokens, password and sessions, with the forms "token" and "password"."""

    tokens: Sequence[Token]
    sessions: Sequence[BrowserSession]
    this_session: str  # hash of the session that this browser uses
    has_password: bool
    example_namespace: str  # in the placeholder of the repos that a token is limited to
    form: RefusedForm
    secret: str  # of a token just made, which is shown this once
    done: str  # what was just changed
    scopes: Sequence[Scope] = SCOPES
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, kw_only=True)
class ActivityPage(Page, template="account/activity.html"):
    """The audit log of the namespaces that the viewer administers."""

    events: Sequence[AuditEvent]  # newest first
    older: int | None  # id of the last event, where there are more
    chosen: str  # the one namespace shown, or ""
    administered: Sequence[str]


@router.get("/account")
def account(session: SessionDep, account: CanManageAccount, request: Request) -> Response:
    return _account(session, account.viewer, request)


def _account(
    session: Session,
    viewer: Viewer,
    request: Request,
    form: RefusedForm = NO_FORM,
    *,
    secret: str = "",
    done: str = "",
) -> Response:
    namespaces = users.namespaces(session, viewer)
    page = AccountPage(
        tokens=credentials.tokens(session, viewer.id),
        sessions=credentials.sessions(session, viewer.id),
        this_session=hash_secret(request.cookies.get(COOKIE, "")),
        has_password=credentials.has_password(session, viewer.id),
        example_namespace=namespaces[-1][0].name if namespaces else viewer.name,
        form=form,
        secret=secret,
        done=done,
    )
    return render(page, viewer, status=201 if secret else form.status)


@router.post("/account/password")
def set_password(
    services: ServicesDep,
    account: CanManageAccount,
    request: Request,
    new: Annotated[str, Form(max_length=1_000)],
    current: Annotated[str, Form(max_length=1_000)] = "",
) -> Response:
    def show(form: RefusedForm = NO_FORM, done: str = "") -> Response:
        with transaction(services.sessions) as session:
            return _account(session, account.viewer, request, form, done=done)

    def change() -> Response:
        sign_in.change_password(
            services.sessions,
            request.app.state.limits,
            account,
            current,
            new,
            address=address_of(request),
            own_session=request.cookies.get(COOKIE, ""),
        )
        return show(done="The password is set. Your other sessions have ended.")

    return run_form(change, show, name="password")


@router.post("/account/tokens")
def create_token(
    session: SessionDep,
    account: CanManageAccount,
    request: Request,
    name: Annotated[str, Form(max_length=96)],
    scopes: Annotated[list[Scope], Form()] = [],  # noqa: B006 - FastAPI copies it
    repos: Annotated[str, Form(max_length=10_000)] = "",
    days: Annotated[str, Form(max_length=6)] = "",
) -> Response:
    """The page with the secret on it, this once."""

    def create() -> Response:
        if not name.strip():
            raise InvalidInput("Give the token a name, so that you will know later what it was for.")
        limits = repos.split() or None
        _, secret = credentials.create_token(
            session, account, name.strip(), scopes=scopes, repos=limits, expires_at=expiry(days)
        )
        return _account(session, account.viewer, request, secret=secret)

    def show_again(form: RefusedForm) -> Response:
        return _account(session, account.viewer, request, form)

    typed = {"name": name, "scopes": scopes, "repos": repos, "days": days}
    return run_form(create, show_again, name="token", typed=typed, session=session)


@router.post("/account/tokens/{token_id}/revoke")
def revoke_token(session: SessionDep, account: CanManageAccount, token_id: uuid.UUID) -> Response:
    credentials.delete_token(session, account, token_id)
    return RedirectResponse("/account#tokens", status_code=303)


@router.post("/account/sessions/{session_id}/end")
def end_session(session: SessionDep, account: CanManageAccount, session_id: uuid.UUID) -> Response:
    credentials.end_session_of(session, account, session_id)
    return RedirectResponse("/account#sessions", status_code=303)


@router.post("/account/sessions/end")
def end_other_sessions(session: SessionDep, account: CanManageAccount, request: Request) -> Response:
    credentials.end_other_sessions(session, account, request.cookies.get(COOKIE, ""))
    return RedirectResponse("/account#sessions", status_code=303)


@router.get("/activity")
def activity(
    session: SessionDep,
    viewer: SignedIn,
    namespace: Annotated[str, Query(max_length=96)] = "",
    before: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    """The audit log of what one administers, newest first."""
    events = audit_queries.latest(session, viewer, namespace=namespace or None, before=before, limit=EVENTS + 1)
    page = ActivityPage(
        events=events[:EVENTS],
        older=events[EVENTS - 1].id if len(events) > EVENTS else None,
        chosen=namespace,
        administered=[own.name for own, role in users.namespaces(session, viewer) if role == "admin"],
    )
    return render(page, viewer)
