"""Secrets of other services that this hub has to show to them again: encrypted with a key of the instance, so that neither a look at
a table nor a log of statements tells them. The key lies in the same database: who can read all of it can read them too."""

import base64

from cryptography.fernet import Fernet
from sqlalchemy.orm import Session

from hub.registry.access import instance_keys


def seal(session: Session, secret: str) -> bytes:
    return _box(session).encrypt(secret.encode())


def unseal(session: Session, sealed: bytes) -> str:
    return _box(session).decrypt(sealed).decode()


def _box(session: Session) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(instance_keys.key(session, "sealing")))
