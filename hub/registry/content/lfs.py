"""Uploads by Git LFS: what is missing, addresses signed for one file each, and files that come in parts."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.registry.access import instance_keys, signing
from hub.registry.content import blobs
from hub.registry.content.history import BytesMissing
from hub.registry.models.content import Blob
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import InvalidInput, NotFound, TooLarge
from hub.registry.platform.services import Services
from hub.registry.platform.storage import MAX_OBJECT_BYTES
from hub.registry.platform.streams import VerifiedStream, WrongBytes
from hub.vocabulary import SHA256

UPLOAD_SECONDS = 6 * 3600  # how long an address is good for
PARTS = "parts/"


@dataclass(frozen=True)
class Grant:
    """What an address allows: to send this file, or a part of it, into this namespace."""

    namespace: str
    oid: str
    size: int
    expires: int

    def signature(self, key: bytes, action: str) -> str:
        return signing.sign(key, self.expires, action, self.namespace, self.oid, self.size)

    def check(self, key: bytes, action: str, signature: str) -> None:
        signing.check(key, signature, self.expires, action, self.namespace, self.oid, self.size)

    def address(self, root: str, key: bytes, action: str) -> str:
        signed = {"size": self.size, "expires": self.expires, "signature": self.signature(key, action)}
        return f"{root}/api/lfs/{self.namespace}/{self.oid}/{action}?{urlencode(signed)}"


@dataclass(frozen=True)
class Upload:
    """Where a client sends a file: whole to `href`, or in parts and then to `href` to complete it."""

    href: str
    header: Mapping[str, str]


def check_object(oid: str, size: int) -> None:
    if not SHA256.fullmatch(oid):
        raise InvalidInput(f"{oid[:100]!r} is not a SHA-256 in 64 lowercase hex digits.")
    if size < 1:
        raise InvalidInput(
            f"The size {size} of {oid} is not that of a file for LFS; send an empty file with the commit."
        )
    if size > MAX_OBJECT_BYTES:
        raise TooLarge(
            f"A file of {size:,} bytes is larger than the {MAX_OBJECT_BYTES:,} that one file may have; "
            "save it in shards (max_shard_size of save_pretrained)."
        )


def sizes_held(session: Session, namespace: str, oids: list[str]) -> dict[str, int]:
    """Sizes in bytes of those of the files that the namespace holds."""
    mine = blobs.held(session, namespace, oids)
    return dict(iter(session.execute(select(Blob.sha256, Blob.size).where(Blob.sha256.in_(mine)))))


def upload(session: Session, root: str, namespace: str, oid: str, size: int, part_bytes: int) -> Upload:
    """Addresses below `root` for a file that is missing."""
    key = instance_keys.key(session)
    grant = Grant(namespace, oid, size, int(time.time()) + UPLOAD_SECONDS)
    if size <= part_bytes:
        return Upload(grant.address(root, key, "content"), {})
    count = -(-size // part_bytes)
    parts = {str(n): grant.address(root, key, f"part-{n}-{part_bytes}") for n in range(1, count + 1)}
    return Upload(grant.address(root, key, f"complete-{count}"), {"chunk_size": str(part_bytes), **parts})


def receive(services: Services, grant: Grant, pieces: Iterator[bytes]) -> None:
    blobs.receive(services.sessions, services.storage, grant.namespace, grant.oid, grant.size, pieces)


def receive_part(services: Services, grant: Grant, number: int, part_bytes: int, pieces: Iterator[bytes]) -> str:
    """Store one part until the file is complete; returns an ETag for the client to hand back."""
    size = min(part_bytes, grant.size - (number - 1) * part_bytes)
    body = VerifiedStream(None, size, pieces)
    return body.store(services.storage, _part_key(grant, number))


def complete(services: Services, grant: Grant, count: int) -> None:
    """Join the parts into the file, which is hashed as it is written. The parts are gone afterwards, whether or not they fit."""
    keys = [_part_key(grant, number) for number in range(1, count + 1)]
    try:
        receive(services, grant, _joined(services, keys))
    except WrongBytes:
        _remove(services, keys)
        raise
    _remove(services, keys)


def _joined(services: Services, keys: list[str]) -> Iterator[bytes]:
    for number, key in enumerate(keys, 1):
        try:
            yield from services.storage.stream_key(key)
        except NotFound:
            raise BytesMissing(f"Part {number} of {len(keys)} has not come; send the file again.") from None


def _remove(services: Services, keys: list[str]) -> None:
    for key in keys:
        services.storage.delete_key(key)


def verify(services: Services, namespace: str, oid: str, size: int) -> None:
    """Raises BytesMissing unless the namespace holds a file of that hash and size."""
    check_object(oid, size)
    with transaction(services.sessions) as session:
        held = sizes_held(session, namespace, [oid])
    if held.get(oid) != size:
        raise BytesMissing(f"{namespace!r} holds no file {oid} of {size:,} bytes; upload it again.")


def _part_key(grant: Grant, number: int) -> str:
    return f"{PARTS}{grant.namespace}/{grant.oid}/{number}"
