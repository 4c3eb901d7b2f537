"""Uploads by Xet: chunks are stored for some days. Files are built from them, hashed, and stored like any other file.

Xorbs lie in S3 by epoch and namespace, so that every process of the instance finds them, and nobody reads another namespace's.
A client remembers for weeks which chunks it has sent to an address. So the address changes with the epoch, which is a day of this
instance, and the chunks of an epoch are stored for as long as its address is valid.
"""

import hashlib
import io
import re
import time
import uuid
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import BinaryIO

from hub.formats import xet_format
from hub.formats.xet_format import Malformed, Segment, ShardFile
from hub.registry.access import signing
from hub.registry.content import blobs, lfs
from hub.registry.content.history import BytesMissing
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import InvalidInput, NotFound, NotSignedIn
from hub.registry.platform.services import Services
from hub.registry.platform.storage import Storage
from hub.registry.platform.streams import VerifiedStream
from hub.vocabulary import SHA256

XORBS = "xorbs/"
XORB_HASH = SHA256  # of the same form: 64 lowercase hex digits
TOKEN_SECONDS = 3600  # clients ask for another one before it ends
MAX_BODY_BYTES = xet_format.MAX_XORB_BYTES + xet_format.MAX_FOOTER_BYTES
INDEXES = 64  # of xorbs, 64 KiB each at most, in memory while a file is built


class BadXorb(InvalidInput):
    """A xorb that is not what its hash or the format says."""

    code = "bad_xorb"


class BadShard(InvalidInput):
    """A list of files that cannot be built from the chunks it names."""

    code = "bad_shard"


@dataclass(frozen=True)
class UploadEpoch:
    """Where the chunks of uploads lie: those of one namespace in one epoch."""

    namespace: str
    epoch: str

    @property
    def prefix(self) -> str:
        return f"{XORBS}{self.epoch}/{self.namespace}/"


@dataclass(frozen=True)
class Access:
    """Where a client sends chunks, with which token, and until when (Unix seconds)."""

    upload: UploadEpoch
    token: str
    expires: int


def epoch(key: bytes, day: datetime) -> str:
    """The epoch's name. The part after the day identifies the instance, in case another one replaces it at the same address."""
    return f"{day:%Y%m%d}-{hashlib.sha256(b'xet epoch' + key).hexdigest()[:8]}"


def grant(key: bytes, namespace: str) -> Access:
    """Grant access to upload chunks. The caller has checked that the user may write in the namespace."""
    upload = UploadEpoch(namespace, epoch(key, datetime.now(UTC)))
    expires = int(time.time()) + TOKEN_SECONDS
    return Access(upload, f"xet_{expires}_{signing.sign(key, expires, 'xet', namespace)}", expires)


def check(key: bytes, upload: UploadEpoch, token: str) -> None:
    """Raises NotSignedIn or BadSignature unless `grant` issued the token for the namespace, NotFound if the epoch has ended.

    An upload that began in one epoch may continue through the next, with tokens issued meanwhile.
    """
    match = re.fullmatch(r"xet_(\d{1,12})_([0-9a-f]{64})", token)
    if match is None:
        raise NotSignedIn("Chunks are sent with the token that /xet-write-token gave.")
    signing.check(key, match[2], int(match[1]), "xet", upload.namespace)
    now = datetime.now(UTC)
    # Tomorrow's too, as the clocks of two servers differ.
    if upload.epoch not in {epoch(key, now + timedelta(days=days)) for days in (-1, 0, 1)}:
        raise NotFound("This upload has expired; start it again, which sends what is missing.")


def receive_xorb(services: Services, upload: UploadEpoch, name: str, size: int, pieces: Iterator[bytes]) -> None:
    """Stream a xorb into S3 and check it on the way. Raises BadXorb or WrongBytes, and then stores nothing.

    A xorb exists once its index does. The index names the object with the bytes. Two clients may pack one xorb differently; each
    leaves an index that matches its own object.
    """
    if not XORB_HASH.fullmatch(name):
        raise BadXorb(f"{name[:100]!r} is not the hash of a xorb in 64 lowercase hex digits.")
    if not 0 < size <= MAX_BODY_BYTES:
        raise BadXorb(f"The xorb {name} has {size:,} bytes; it must have 1 to {MAX_BODY_BYTES:,}.")
    verifier = xet_format.XorbCheck()
    data = f"{upload.prefix}{name}.{uuid.uuid4().hex}"
    VerifiedStream(None, size, _checked(name, verifier, pieces)).store(services.storage, data)
    index = Index(data, verifier.packed_ends, verifier.unpacked_ends).to_bytes()
    services.storage.put_stream(f"{upload.prefix}{name}", io.BytesIO(index), len(index))


def _checked(name: str, verifier: xet_format.XorbCheck, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same pieces. The last one is withheld unless all together match the hash, because S3 discards an incomplete upload."""
    last = b""
    try:
        for piece in pieces:
            verifier.feed(piece)
            if last:
                yield last
            last = piece
        actual = verifier.end()
    except Malformed as error:
        raise BadXorb(f"The xorb {name} cannot be read: {error}.") from None
    if actual != name:
        raise BadXorb(f"The xorb has the hash {actual} and not {name}, as was announced; send it again.")
    yield last


@dataclass(frozen=True)
class Index:
    """Where the bytes of a xorb are, and where each of its chunks ends: in the object, and unpacked."""

    key: str
    packed_ends: "array[int]"
    unpacked_ends: "array[int]"

    def to_bytes(self) -> bytes:
        return self.key.encode() + b"\n" + self.packed_ends.tobytes() + self.unpacked_ends.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Index":
        key, _, numbers = data.partition(b"\n")
        ends = array("I")
        ends.frombytes(numbers)
        half = len(ends) // 2
        return cls(key.decode(), ends[:half], ends[half:])

    def packed(self, segment: Segment) -> tuple[int, int]:
        return _between(self.packed_ends, segment)

    def length(self, segment: Segment) -> int:
        start, end = _between(self.unpacked_ends, segment)
        return end - start


def _between(ends: "array[int]", segment: Segment) -> tuple[int, int]:
    return ends[segment.start - 1] if segment.start else 0, ends[segment.end - 1]


def find(storage: Storage, upload: UploadEpoch, name: str) -> None:
    """Raises NotFound unless this upload has the xorb."""
    if not XORB_HASH.fullmatch(name) or next(storage.keys(f"{upload.prefix}{name}"), None) != f"{upload.prefix}{name}":
        raise NotFound(f"The xorb {name[:100]!r} has not come to {upload.namespace!r}; send it.")


def receive_shard(services: Services, upload: UploadEpoch, shard: BinaryIO) -> None:
    """Build the files that a shard describes, and record that the namespace holds them.

    The whole shard is checked before any file is built. Raises BadShard, BytesMissing if chunks are missing, WrongBytes if a file differs
    from its announced hash.
    """

    @lru_cache(INDEXES)
    def index(xorb: str) -> Index:
        return _index(services.storage, upload, xorb)

    try:
        announced = [_check_file(file, index) for file in xet_format.read_shard(shard)]
        for file, (sha256, size) in zip(xet_format.read_shard(shard), announced, strict=True):
            with transaction(services.sessions) as session:
                held = lfs.sizes_held(session, upload.namespace, [sha256])
            if held.get(sha256) != size:
                built = _built(services.storage, file, index)
                blobs.receive(services.sessions, services.storage, upload.namespace, sha256, size, built)
    except Malformed as error:
        raise BadShard(f"The list of files cannot be read: {error}.") from None


def _check_file(file: ShardFile, index: Callable[[str], Index]) -> tuple[str, int]:
    """The file's SHA-256 and size, as they are announced."""
    if file.sha256 is None:
        raise BadShard("A file comes without its SHA-256, which is its name here; use a client that sends it.")
    size = 0
    for segment in file.segments:
        there = index(segment.xorb)
        if not 0 <= segment.start < segment.end <= len(there.packed_ends):
            raise BadShard(
                f"The shard gives the file {file.sha256} the chunks {segment.start} to {segment.end} of the xorb {segment.xorb}, "
                f"which has {len(there.packed_ends)}."
            )
        if there.length(segment) != segment.length:
            raise BadShard(
                f"The shard gives the file {file.sha256} {segment.length:,} bytes of the xorb {segment.xorb}; "
                f"the chunks named have {there.length(segment):,}."
            )
        size += segment.length
    lfs.check_object(file.sha256, size)
    return file.sha256, size


def _index(storage: Storage, upload: UploadEpoch, xorb: str) -> Index:
    try:
        return Index.from_bytes(b"".join(storage.stream_key(f"{upload.prefix}{xorb}")))
    except NotFound:
        raise BytesMissing(
            f"The xorb {xorb} has not come to {upload.namespace!r}. If the client believes that it was sent, remove its "
            "cache (the folder xet in HF_HOME) and upload again."
        ) from None


def _built(storage: Storage, file: ShardFile, index: Callable[[str], Index]) -> Iterator[bytes]:
    for segment in file.segments:
        there = index(segment.xorb)
        chunks = xet_format.Chunks()
        for piece in storage.stream_key(there.key, *there.packed(segment)):
            yield b"".join(data for _, data in chunks.feed(piece))


def drop_xorbs(services: Services, now: datetime, grace: timedelta) -> None:
    """Remove the xorbs of epochs that have ended, once the grace period has ended too."""
    for key in services.storage.keys(XORBS):  # the oldest first, as epochs begin with their day
        day = datetime.strptime(key.removeprefix(XORBS)[:8], "%Y%m%d").replace(tzinfo=UTC)
        if now <= day + timedelta(days=2) + grace:
            return
        services.storage.delete_key(key)
