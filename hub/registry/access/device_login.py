"""Signing in a program by device code (RFC 8628): it shows a short code, a person enters that on a page, and it gets a token."""

import secrets
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from hub.registry.access import credentials
from hub.registry.access.permissions import ManageAccount, authorize
from hub.registry.access.secret_hashes import expires_after, is_live, new_secret, opens
from hub.registry.access.viewer import viewer_of
from hub.registry.models.access import DeviceLogin, User
from hub.registry.platform.errors import HubError, NotFound

SECONDS = 900
INTERVAL_SECONDS = 2
# Letters that nobody mistakes for one another and that spell no words. 20^8 codes, of which few are open at a time.
ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"


@dataclass(frozen=True)
class Codes:
    device_code: str
    user_code: str


class NoSuchCode(NotFound):
    code = "no_such_code"


class AuthorizationPending(HubError):
    """This and the next two have the codes that RFC 8628 gives them, by which a program knows whether to go on asking."""

    status, code = 400, "authorization_pending"


class AccessDenied(HubError):
    status, code = 400, "access_denied"


class ExpiredCode(HubError):
    status, code = 400, "expired_token"


def start(session: Session) -> Codes:
    """Codes for one sign-in, valid for a quarter of an hour."""
    session.execute(delete(DeviceLogin).where(~is_live(DeviceLogin)))
    letters = "".join(secrets.choice(ALPHABET) for _ in range(8))
    device_code, hashed = new_secret()
    codes = Codes(device_code, f"{letters[:4]}-{letters[4:]}")
    session.add(DeviceLogin(hash=hashed, user_code=codes.user_code, expires_at=expires_after(seconds=SECONDS)))
    session.flush()
    return codes


def decide(session: Session, account: ManageAccount, user_code: str, *, approve: bool) -> None:
    """The signed-in person's answer; with approval, the program gets a token with all scopes. Raises NoSuchCode."""
    letters = "".join(char for char in user_code.upper() if char.isalnum())
    login = session.scalar(
        select(DeviceLogin)
        .where(DeviceLogin.user_code == f"{letters[:4]}-{letters[4:]}", is_live(DeviceLogin))
        .where(DeviceLogin.user_id.is_(None), ~DeviceLogin.denied)
        .with_for_update()
    )
    if login is None:
        raise NoSuchCode(f"No program waits with the code {user_code[:20]!r}; compare it with what the program shows.")
    if approve:
        login.user_id = account.viewer.id
    else:
        login.denied = True
    account.record(session, "device.approved" if approve else "device.denied", account.viewer.name)


def poll(session: Session, device_code: str) -> str:
    """The new token's secret once the sign-in is approved, which ends it.

    Raises AuthorizationPending, AccessDenied, ExpiredCode.
    """
    login = session.scalar(select(DeviceLogin).where(opens(DeviceLogin, device_code)).with_for_update())
    if login is None:
        raise ExpiredCode("The code is not known, was used, or has expired; begin to sign in again.")
    if login.denied:
        raise AccessDenied("The sign-in was refused on the hub's page.")
    if login.user_id is None:
        raise AuthorizationPending("Nobody has entered the code yet.")
    approver = authorize(viewer_of(session.get_one(User, login.user_id)), ManageAccount)
    _, secret = credentials.create_token(session, approver, "hf auth login")
    session.delete(login)
    return secret
