"""Who is asking: users, their namespaces, tokens and browser sessions, and who may read or write what."""

import hashlib
import re
import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, bindparam, delete, func, or_, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from hub.registry.errors import Conflict, Forbidden, InvalidInput, NotFound, NotSignedIn
from hub.registry.models import BrowserSession, Namespace, Repo, Token, User

TOKEN_PREFIX = "ll_"  # noqa: S105 - tells our tokens apart in secret scanners and logs
NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")


# First parts of addresses, of ours and of the Hugging Face Hub's, that a namespace would shadow.
RESERVED_NAMES = frozenset(
    """adapters api auth blog collections datasets device docs healthz jobs join kernels login logout map metrics models new oauth
    organizations readyz scores search settings spaces static tasks teams users v1 whoami-v2""".split()
)


class NameTaken(Conflict):
    code = "name_taken"


class BadName(InvalidInput):
    code = "bad_name"


@dataclass(frozen=True)
class Viewer:
    """A signed-in user as far as access is concerned: plain values, so that no session needs to stay open."""

    id: uuid.UUID
    name: str
    is_admin: bool


def check_name(name: str, what: str) -> str:
    """Names that every Hugging Face client accepts as a part of a repo id."""
    if not NAME.fullmatch(name):
        raise BadName(
            f"{what} {name!r} is not a valid name: use 1 to 96 letters, digits, '_', '-' or '.', "
            "beginning with a letter or digit, not ending in '-' or '.', without '--' or '..'."
        )
    return name


def create_user(session: Session, name: str, *, is_admin: bool = False) -> User:
    """A user and the namespace of the same name. Raises NameTaken."""
    check_name(name, "The user name")
    if name.lower() in RESERVED_NAMES:
        raise BadName(f"The user name {name!r} is an address of this hub; choose another name.")
    taken = session.scalar(select(User.id).where(func.lower(User.name) == name.lower()))
    made = insert(User).values(name=name, is_admin=is_admin).on_conflict_do_nothing().returning(User)
    user = None if taken else session.scalar(made)  # none also where another request is making it at this moment
    if user is None:
        raise NameTaken(f"There is already a user {name!r}; choose another name.")
    session.add(Namespace(name=name, owner_id=user.id))
    session.flush()
    return user


def get_user(session: Session, name: str) -> User:
    user = session.scalar(select(User).where(User.name == name))
    if user is None:
        raise NotFound(f"There is no user {name!r}.")
    return user


def create_token(
    session: Session, user_id: uuid.UUID, name: str, *, expires_at: datetime | None = None
) -> tuple[Token, str]:
    """A new token and its secret, which is shown this once and not kept."""
    secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
    token = Token(user_id=user_id, name=name, hash=_hash(secret), expires_at=expires_at)
    session.add(token)
    session.flush()
    return token, secret


# Built once, as every request begins with it and to build a query costs as much as to run it.
_OWNER_OF_TOKEN = (
    select(User.id, User.name, User.is_admin)
    .join(Token, Token.user_id == User.id)
    .where(Token.hash == bindparam("hash"), or_(Token.expires_at.is_(None), Token.expires_at > func.now()))
)


def identify_token(session: Session, secret: str) -> Viewer:
    """Raises NotSignedIn if no live token has this secret."""
    user = session.execute(_OWNER_OF_TOKEN, {"hash": _hash(secret)}).one_or_none()
    if user is None:
        raise NotSignedIn("The token is not valid, or it has expired; make a new one or correct it.")
    return Viewer(user.id, user.name, user.is_admin)


def token_of(session: Session, secret: str) -> Token | None:
    return session.scalar(select(Token).where(Token.hash == _hash(secret)))


def start_session(session: Session, viewer: Viewer, days: float) -> str:
    """A browser session; returns the secret for its cookie."""
    secret = secrets.token_urlsafe(32)
    expires = func.now() + timedelta(days=days)
    session.add(BrowserSession(hash=_hash(secret), user_id=viewer.id, expires_at=expires))
    session.execute(delete(BrowserSession).where(BrowserSession.expires_at < func.now()))
    return secret


def identify_session(session: Session, secret: str) -> Viewer | None:
    user = session.scalar(
        select(User)
        .join(BrowserSession, BrowserSession.user_id == User.id)
        .where(BrowserSession.hash == _hash(secret), BrowserSession.expires_at > func.now())
    )
    return Viewer(user.id, user.name, user.is_admin) if user else None


def end_session(session: Session, secret: str) -> None:
    session.execute(delete(BrowserSession).where(BrowserSession.hash == _hash(secret)))


def readable(viewer: Viewer | None) -> ColumnElement[bool]:
    """The condition on Repo for what a viewer may see (deleted repos aside)."""
    if viewer is None:
        return Repo.visibility == "public"
    if viewer.is_admin:
        return true()
    own = select(Namespace.name).where(Namespace.owner_id == viewer.id)
    return or_(Repo.visibility.in_(("public", "internal")), Repo.namespace.in_(own))


def require_write(session: Session, viewer: Viewer | None, namespace: str) -> Viewer:
    """The viewer, if he may write in the namespace. Raises NotSignedIn or Forbidden, which also hides whether it exists."""
    if viewer is None:
        raise NotSignedIn("Sign in, or send a token, to write.")
    if not may_write(session, viewer, namespace):
        raise Forbidden(f"You may not write in the namespace {namespace!r}; your own is {viewer.name!r}.")
    return viewer


def may_write(session: Session, viewer: Viewer, namespace: str) -> bool:
    row = session.get(Namespace, namespace)
    return row is not None and (row.owner_id == viewer.id or viewer.is_admin)


def ensure_user(session: Session, name: str, *, is_admin: bool = False) -> User:
    """The user of that name, made if need be; two processes that start at once get the same one."""
    session.execute(insert(User).values(name=name, is_admin=is_admin).on_conflict_do_nothing())
    user = get_user(session, name)
    session.execute(insert(Namespace).values(name=name, owner_id=user.id).on_conflict_do_nothing())
    return user


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
