"""Secrets that are shown once and stored as a hash: of tokens, sessions, invitations, sign-ins by device code, share links.

A secret has 256 random bits, so a slow hash would add nothing.
"""

import hashlib
import secrets
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, or_

from hub.registry.models.access import BrowserSession, DeviceLogin, Invitation, Token
from hub.registry.models.content import ShareLink

WithSecret = type[Token] | type[BrowserSession] | type[Invitation] | type[DeviceLogin] | type[ShareLink]


def new_secret(prefix: str = "") -> tuple[str, str]:
    """A secret and its hash. The prefix tells the kind of secret apart in logs and for secret scanners."""
    secret = prefix + secrets.token_urlsafe(32)
    return secret, hash_secret(secret)


def hash_secret(secret: str) -> str:
    """SHA-256, 64 hex digits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def expires_after(*, days: float = 0, seconds: float = 0) -> ColumnElement[datetime]:
    """A time from now by the clock of the database."""
    return func.now() + timedelta(days=days, seconds=seconds)


def is_live(table: WithSecret) -> ColumnElement[bool]:
    """The condition on rows that have not expired."""
    return or_(table.expires_at.is_(None), table.expires_at > func.now())


def opens(table: WithSecret, secret: str) -> ColumnElement[bool]:
    """The condition on the row of this secret, if it has not expired."""
    return and_(table.hash == hash_secret(secret), is_live(table))
