"""Tokens, passwords and browser sessions: what identifies the sender of a request. Only their hashes are stored."""

import secrets
import uuid
from collections.abc import Sequence
from datetime import datetime

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import bindparam, delete, select
from sqlalchemy.orm import Session

from hub.registry.access import audit
from hub.registry.access.permissions import AdministerHub, ManageAccount
from hub.registry.access.secret_hashes import expires_after, hash_secret, is_live, new_secret, opens
from hub.registry.access.viewer import Viewer, viewer_of
from hub.registry.models.access import BrowserSession, Token, User
from hub.registry.platform.errors import InvalidInput, NotFound, NotSignedIn
from hub.vocabulary import NAME, SCOPES, Scope

TOKEN_PREFIX = "ll_"  # noqa: S105 - tells our tokens apart in secret scanners and logs
SHORTEST_PASSWORD = 10

# RFC 9106's second recommendation: 64 MiB, 3 passes, 4 lanes; argon2-cffi's own default.
_hasher = PasswordHasher()
# Verified where there is no such user, or no password, so that the time an answer takes does not tell.
_NOBODY = _hasher.hash(secrets.token_urlsafe(16))


class BadPassword(InvalidInput):
    code = "bad_password"


class BadScope(InvalidInput):
    code = "bad_scope"


# --- tokens -----------------------------------------------------------------------------------------------------------


def create_token(
    session: Session,
    account: ManageAccount,
    name: str,
    *,
    scopes: Sequence[Scope] = SCOPES,
    repos: Sequence[str] | None = None,
    expires_at: datetime | None = None,
) -> tuple[Token, str]:
    """A new token of the account and its secret; see `issue_token`."""
    token, secret = issue_token(session, account.viewer.id, name, scopes=scopes, repos=repos, expires_at=expires_at)
    account.record(session, "token.created", name, scopes=list(token.scopes), repos=token.repos)
    return token, secret


def create_token_for(session: Session, hub: AdministerHub, user: User, name: str) -> str:
    """The secret of a new token for everything that its user may do."""
    token, secret = issue_token(session, user.id, name)
    hub.record(session, "token.created", name, scopes=list(token.scopes), repos=None, user=user.name)
    return secret


def issue_token(
    session: Session,
    user_id: uuid.UUID,
    name: str,
    *,
    scopes: Sequence[Scope] = SCOPES,
    repos: Sequence[str] | None = None,
    expires_at: datetime | None = None,
) -> tuple[Token, str]:
    """A new token and its secret, which is shown this once and not stored. `repos`: "namespace/name" or "namespace/*".

    A part of creating a user, a service account or a token, each of which writes its line of the audit log.
    """
    for pattern in repos or ():
        namespace, slash, repo = pattern.partition("/")
        if not slash or not NAME.fullmatch(namespace) or not (repo == "*" or NAME.fullmatch(repo)):
            raise BadScope(f"{pattern!r} names no repos; write namespace/name, or namespace/* for all of a namespace.")
    secret, hashed = new_secret(TOKEN_PREFIX)
    granted = [scope for scope in SCOPES if scope in {"read", *scopes}]  # a token that may not read has no use
    limits = sorted(set(repos)) if repos is not None else None
    token = Token(user_id=user_id, name=name, hash=hashed, scopes=granted, repos=limits, expires_at=expires_at)
    session.add(token)
    session.flush()
    return token, secret


# Built once, as every request begins with it and to build a query costs as much as to run it.
_OWNER_OF_TOKEN = (
    select(User.id, User.name, User.is_admin, User.service_of, Token.scopes, Token.repos)
    .join(Token, Token.user_id == User.id)
    .where(Token.hash == bindparam("hash"), is_live(Token))
)


def identify_token(session: Session, secret: str) -> Viewer:
    """Raises NotSignedIn if no live token has this secret."""
    user = session.execute(_OWNER_OF_TOKEN, {"hash": hash_secret(secret)}).one_or_none()
    if user is None:
        raise NotSignedIn("The token is not valid, or it has expired; make a new one or correct it.")
    limits = tuple(user.repos) if user.repos is not None else None
    is_admin = user.is_admin and "admin" in user.scopes
    return Viewer(user.id, user.name, is_admin, frozenset(user.scopes), limits, user.service_of)


def token_of(session: Session, secret: str) -> Token | None:
    return session.scalar(select(Token).where(Token.hash == hash_secret(secret)))


def tokens(session: Session, user_id: uuid.UUID) -> Sequence[Token]:
    return session.scalars(select(Token).where(Token.user_id == user_id).order_by(Token.created_at)).all()


def delete_token(session: Session, account: ManageAccount, token_id: uuid.UUID) -> None:
    token = session.scalar(select(Token).where(Token.id == token_id, Token.user_id == account.viewer.id))
    if token is None:
        raise NotFound(f"There is no token {token_id} here.")
    session.delete(token)
    account.record(session, "token.revoked", token.name)


# --- passwords --------------------------------------------------------------------------------------------------------


def hash_password(password: str) -> str:
    """Its argon2id hash. Raises BadPassword; slow by intent, so no database session should be open meanwhile."""
    if len(password) < SHORTEST_PASSWORD:
        raise BadPassword(f"The password has {len(password)} characters; use at least {SHORTEST_PASSWORD}.")
    return _hasher.hash(password)


def has_password(session: Session, user_id: uuid.UUID) -> bool:
    return session.get_one(User, user_id).password_hash is not None


def password_fits(hashed: str | None, password: str) -> bool:
    """Takes as long whether there is a hash or not."""
    try:
        return _hasher.verify(hashed or _NOBODY, password) and hashed is not None
    except (VerificationError, InvalidHashError):
        return False


# --- browser sessions -------------------------------------------------------------------------------------------------


def start_session(session: Session, viewer: Viewer, days: float, agent: str = "") -> str:
    """A browser session; returns the secret for its cookie. `agent`: the browser as it names itself."""
    secret, hashed = new_secret()
    expires = expires_after(days=days)
    session.add(BrowserSession(hash=hashed, user_id=viewer.id, agent=agent[:300], expires_at=expires))
    session.execute(delete(BrowserSession).where(~is_live(BrowserSession)))
    audit.record(session, viewer.name, "session.started", viewer.name)
    return secret


def identify_session(session: Session, secret: str) -> Viewer | None:
    user = session.scalar(
        select(User).join(BrowserSession, BrowserSession.user_id == User.id).where(opens(BrowserSession, secret))
    )
    return viewer_of(user) if user else None


def sessions(session: Session, user_id: uuid.UUID) -> Sequence[BrowserSession]:
    live = select(BrowserSession).where(BrowserSession.user_id == user_id, is_live(BrowserSession))
    return session.scalars(live.order_by(BrowserSession.created_at.desc())).all()


def end_session(session: Session, secret: str) -> None:
    """End the session of this secret, where there is one: who holds the secret needs no permit."""
    gone = delete(BrowserSession).where(BrowserSession.hash == hash_secret(secret))
    if ended := session.execute(gone.returning(BrowserSession.id, BrowserSession.user_id)).one_or_none():
        name = session.get_one(User, ended.user_id).name
        audit.record(session, name, "session.ended", str(ended.id))


def end_session_of(session: Session, account: ManageAccount, session_id: uuid.UUID) -> None:
    gone = delete(BrowserSession).where(BrowserSession.id == session_id, BrowserSession.user_id == account.viewer.id)
    if session.scalar(gone.returning(BrowserSession.id)) is None:
        raise NotFound(f"You have no session {session_id}.")
    account.record(session, "session.ended", str(session_id))


def end_other_sessions(session: Session, account: ManageAccount, own: str) -> None:
    """End all sessions of the account but the one with the secret `own`."""
    others = (BrowserSession.user_id == account.viewer.id, BrowserSession.hash != hash_secret(own))
    ended = session.scalars(delete(BrowserSession).where(*others).returning(BrowserSession.id)).all()
    account.record(session, "sessions.ended", account.viewer.name, count=len(ended))


def set_password(session: Session, account: ManageAccount, hashed: str, own: str) -> None:
    """The new password's hash; all sessions but the one with the secret `own` end."""
    session.get_one(User, account.viewer.id).password_hash = hashed
    end_other_sessions(session, account, own)
    account.record(session, "password.set", account.viewer.name)
