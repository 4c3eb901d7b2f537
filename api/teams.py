"""/v1: who you are, signing in, tokens; users for administrators."""

import uuid

from fastapi import APIRouter, Request, Response
from sqlalchemy import delete, select

from api import schemas
from hub.http import COOKIE, Admin, ServicesDep, SessionDep, SignedIn, set_session_cookie
from hub.registry import teams
from hub.registry.errors import NotFound
from hub.registry.models import Namespace, Token

router = APIRouter(prefix="/v1", tags=["teams"])


@router.get("/me")
def who_am_i(session: SessionDep, viewer: SignedIn) -> schemas.Me:
    own = session.scalars(select(Namespace.name).where(Namespace.owner_id == viewer.id).order_by(Namespace.name))
    return schemas.Me(name=viewer.name, is_admin=viewer.is_admin, namespaces=list(own))


@router.post("/session", status_code=204)
def sign_in(session: SessionDep, services: ServicesDep, body: schemas.SignIn, response: Response) -> None:
    """Exchange a token for a session cookie."""
    viewer = teams.identify_token(session, body.token.strip())
    set_session_cookie(response, services, teams.start_session(session, viewer, services.settings.session_days))


@router.delete("/session", status_code=204)
def sign_out(session: SessionDep, viewer: SignedIn, request: Request, response: Response) -> None:
    teams.end_session(session, request.cookies.get(COOKIE, ""))
    response.delete_cookie(COOKIE)


@router.get("/tokens")
def list_tokens(session: SessionDep, viewer: SignedIn) -> list[schemas.TokenInfo]:
    rows = session.scalars(select(Token).where(Token.user_id == viewer.id).order_by(Token.created_at))
    return [schemas.TokenInfo.model_validate(token, from_attributes=True) for token in rows]


@router.post("/tokens", status_code=201)
def create_token(session: SessionDep, viewer: SignedIn, body: schemas.NewToken) -> schemas.TokenSecret:
    """A new token of yours. Its secret is in this answer and nowhere else."""
    token, secret = teams.create_token(session, viewer.id, body.name, expires_at=body.expires_at)
    session.refresh(token)
    info = schemas.TokenInfo.model_validate(token, from_attributes=True)
    return schemas.TokenSecret(**info.model_dump(), secret=secret)


@router.delete("/tokens/{token_id}", status_code=204)
def delete_token(session: SessionDep, viewer: SignedIn, token_id: uuid.UUID) -> None:
    gone = session.execute(
        delete(Token).where(Token.id == token_id, Token.user_id == viewer.id).returning(Token.id)
    ).one_or_none()
    if gone is None:
        raise NotFound(f"You have no token {token_id}.")


@router.post("/users", status_code=201)
def create_user(session: SessionDep, viewer: Admin, body: schemas.NewUser) -> schemas.TokenSecret:
    """A new user (administrators), with a first token to hand over."""
    user = teams.create_user(session, body.name, is_admin=body.is_admin)
    token, secret = teams.create_token(session, user.id, "first")
    session.refresh(token)
    info = schemas.TokenInfo.model_validate(token, from_attributes=True)
    return schemas.TokenSecret(**info.model_dump(), secret=secret)
