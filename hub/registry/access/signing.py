"""Signed addresses and tokens: with a key that all processes of an instance share, and valid for a time."""

import hashlib
import hmac
import time

from hub.registry.platform.errors import Forbidden


class BadSignature(Forbidden):
    code = "bad_signature"


def sign(key: bytes, expires: int, *parts: object) -> str:
    """A signature over what is allowed (the parts, in order) and until when (Unix seconds); 64 hex digits."""
    message = "\0".join(str(part) for part in (expires, *parts))
    return hmac.new(key, message.encode(), hashlib.sha256).hexdigest()


def check(key: bytes, signature: str, expires: int, *parts: object) -> None:
    """Raises BadSignature unless `sign` made it for the same parts and it has not expired."""
    if not hmac.compare_digest(signature.encode(), sign(key, expires, *parts).encode()):
        raise BadSignature("The address was not signed by this hub for what it is used for; ask for a new one.")
    if expires < time.time():
        raise BadSignature("The address is no longer valid; start the upload again, which gives a new one.")
