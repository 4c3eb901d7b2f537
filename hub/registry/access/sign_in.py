"""Signing in to the browser: by password, by a token with all scopes, or through an OpenID Connect provider."""

import re
from collections.abc import Mapping

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from hub.registry.access import audit, credentials, users
from hub.registry.access.permissions import ManageAccount, ScopeMissing, authorize
from hub.registry.access.viewer import Viewer, viewer_of
from hub.registry.models.access import OpenIdentity, User
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import Forbidden, NotSignedIn
from hub.registry.platform.rate_limits import RateLimits
from hub.vocabulary import SCOPES


class NotAdmitted(Forbidden):
    """The provider knows the person, and this hub has no user for them."""

    code = "not_admitted"


def by_password(sessions: sessionmaker[Session], limits: RateLimits, name: str, password: str, address: str) -> Viewer:
    """Raises NotSignedIn, in the same words and time whether the name or the password is wrong, and TooManyAttempts."""
    limits.check_attempts(address, name)
    with transaction(sessions) as session:
        user = session.scalar(select(User).where(func.lower(User.name) == name.lower()))
    # No transaction is open while the hash is computed, which takes long by intent.
    if not credentials.password_fits(user.password_hash if user else None, password) or user is None:
        limits.count_failure(address, name)
        with transaction(sessions) as session:
            audit.record(session, None, "sign_in.failed", name[:96], address=address)
        raise NotSignedIn("The name or the password is wrong; or this user signs in by other means.")
    return viewer_of(user)


def by_token(sessions: sessionmaker[Session], limits: RateLimits, secret: str, address: str) -> Viewer:
    """Raises NotSignedIn, TooManyAttempts, and ScopeMissing for a token that may not do everything, which its session could."""
    limits.check_attempts(address)
    try:
        with transaction(sessions) as session:
            viewer = credentials.identify_token(session, secret.strip())
    except NotSignedIn:
        limits.count_failure(address)
        raise
    authorize(viewer, ManageAccount)
    if not viewer.scopes.issuperset(SCOPES):
        raise ScopeMissing("A session may do everything, and this token may not; sign in with one that has all scopes.")
    return viewer


def change_password(
    sessions: sessionmaker[Session],
    limits: RateLimits,
    account: ManageAccount,
    current: str,
    new: str,
    *,
    address: str,
    own_session: str,
) -> None:
    """The account's other sessions end. Raises NotSignedIn where `current` is wrong, BadPassword, TooManyAttempts."""
    viewer = account.viewer
    limits.check_attempts(address, viewer.name)
    with transaction(sessions) as session:
        before = session.get_one(User, viewer.id).password_hash
    # No transaction is open while hashes are computed, which takes long by intent.
    if before is not None and not credentials.password_fits(before, current):
        limits.count_failure(address, viewer.name)
        raise NotSignedIn("The current password is wrong.")
    hashed = credentials.hash_password(new)
    with transaction(sessions) as session:
        credentials.set_password(session, account, hashed, own_session)


def by_identity(
    session: Session, issuer: str, claims: Mapping[str, object], viewer: Viewer | None, *, admit: bool
) -> Viewer:
    """The user of this subject of a provider.

    A new subject is connected to the user who is signed in already (`viewer`), or else, with `admit`, gets a user, named as at
    the provider if that name is free. Raises NotAdmitted.
    """
    subject = str(claims["sub"])
    known = session.get(OpenIdentity, (issuer, subject))
    if known is not None:
        return viewer_of(session.get_one(User, known.user_id))
    if viewer is not None:
        session.add(OpenIdentity(issuer=issuer, subject=subject, user_id=viewer.id))
        audit.record(session, viewer.name, "identity.connected", viewer.name, issuer=issuer)
        return viewer
    if not admit:
        raise NotAdmitted(
            "You have no user on this hub; ask an administrator for one, sign in with it, and then here to connect the two."
        )
    user = _new_user(session, str(claims.get("preferred_username") or claims.get("email") or "user"))
    session.add(OpenIdentity(issuer=issuer, subject=subject, user_id=user.id))
    viewer = viewer_of(user)
    audit.record(session, viewer.name, "user.created", user.name, issuer=issuer)
    return viewer


def _new_user(session: Session, wish: str) -> User:
    """Never an existing user of that name: who has a name at the provider need not be who has it here."""
    stem = re.sub(r"[^A-Za-z0-9_-]+|--+", "-", wish.partition("@")[0]).strip("-_")[:80] or "user"
    number = 1
    while True:
        try:
            with session.begin_nested():
                return users.create_user(session, stem if number == 1 else f"{stem}-{number}")
        except (users.NameTaken, users.BadName):
            number += 1
