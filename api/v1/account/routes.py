"""/v1: who you are, signing in, passwords, sessions, tokens; users for administrators."""

import uuid

from fastapi import APIRouter, Request, Response

from api.v1.account import schemas
from hub.http.addresses import address_of
from hub.http.identity import COOKIE, ServicesDep, SessionDep, SignedIn, set_session_cookie
from hub.http.permissions import CanAdministerHub, CanManageAccount, public
from hub.registry.access import credentials, sign_in, users
from hub.registry.models.access import Token
from hub.registry.platform.db import transaction

router = APIRouter(prefix="/v1", tags=["account"])


@router.get("/me")
def who_am_i(session: SessionDep, viewer: SignedIn) -> schemas.Me:
    own = [namespace.name for namespace, _ in users.namespaces(session, viewer)]
    return schemas.Me(name=viewer.name, is_admin=viewer.is_admin, namespaces=own)


@router.post("/session", status_code=204, dependencies=[public("signs in")])
def start_session(services: ServicesDep, request: Request, body: schemas.SignIn, response: Response) -> None:
    """Start a session with a name and password, or with an unrestricted token. The answer sets the cookie."""
    limits, address = request.app.state.limits, address_of(request)
    if body.token:
        viewer = sign_in.by_token(services.sessions, limits, body.token, address)
    else:
        viewer = sign_in.by_password(services.sessions, limits, body.name, body.password, address)
    with transaction(services.sessions) as session:
        agent = request.headers.get("User-Agent", "")
        secret = credentials.start_session(session, viewer, services.settings.session_days, agent)
    set_session_cookie(response, services, secret)


@router.delete("/session", status_code=204, dependencies=[public("ends the session that it comes with")])
def end_session(session: SessionDep, viewer: SignedIn, request: Request, response: Response) -> None:
    credentials.end_session(session, request.cookies.get(COOKIE, ""))
    response.delete_cookie(COOKIE)


@router.get("/sessions")
def list_sessions(session: SessionDep, account: CanManageAccount) -> list[schemas.SessionInfo]:
    """Your browser sessions, newest first."""
    sessions = credentials.sessions(session, account.viewer.id)
    return [schemas.SessionInfo.model_validate(item, from_attributes=True) for item in sessions]


@router.delete("/sessions", status_code=204)
def end_other_sessions(session: SessionDep, account: CanManageAccount, request: Request) -> None:
    """End all your sessions except the one that sends this."""
    credentials.end_other_sessions(session, account, request.cookies.get(COOKIE, ""))


@router.delete("/sessions/{session_id}", status_code=204)
def end_one_session(session: SessionDep, account: CanManageAccount, session_id: uuid.UUID) -> None:
    credentials.end_session_of(session, account, session_id)


@router.put("/me/password", status_code=204)
def set_password(services: ServicesDep, account: CanManageAccount, request: Request, body: schemas.NewPassword) -> None:
    """Change your password; your other sessions end."""
    sign_in.change_password(
        services.sessions,
        request.app.state.limits,
        account,
        body.current,
        body.new,
        address=address_of(request),
        own_session=request.cookies.get(COOKIE, ""),
    )


@router.get("/tokens")
def list_tokens(session: SessionDep, account: CanManageAccount) -> list[schemas.TokenInfo]:
    return [_token(token) for token in credentials.tokens(session, account.viewer.id)]


@router.post("/tokens", status_code=201)
def create_token(session: SessionDep, account: CanManageAccount, body: schemas.NewToken) -> schemas.TokenSecret:
    """Create a token. Its secret appears in this answer alone."""
    token, secret = credentials.create_token(
        session, account, body.name, scopes=body.scopes, repos=body.repos, expires_at=body.expires_at
    )
    session.refresh(token)
    return schemas.TokenSecret(**_token(token).model_dump(), secret=secret)


@router.delete("/tokens/{token_id}", status_code=204)
def delete_token(session: SessionDep, account: CanManageAccount, token_id: uuid.UUID) -> None:
    credentials.delete_token(session, account, token_id)


@router.post("/users", status_code=201)
def create_user(services: ServicesDep, hub: CanAdministerHub, body: schemas.NewUser) -> schemas.TokenSecret:
    """Create a user (administrators), with a first token to hand over."""
    hashed = credentials.hash_password(body.password) if body.password is not None else None
    with transaction(services.sessions) as session:
        _, token, secret = users.register(session, hub, body.name, is_admin=body.is_admin, password_hash=hashed)
        session.refresh(token)
        return schemas.TokenSecret(**_token(token).model_dump(), secret=secret)


def _token(token: Token) -> schemas.TokenInfo:
    return schemas.TokenInfo.model_validate(token, from_attributes=True)
