"""Receive bytes: hash them, store them, and only then record that a namespace holds them. No database session is open meanwhile."""

import hashlib
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, sessionmaker

from hub.formats.git import blob_hasher
from hub.registry.access import quota
from hub.registry.models.content import Blob, Holding
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import Unavailable
from hub.registry.platform.storage import CHUNK, Storage, blob_key
from hub.registry.platform.streams import VerifiedStream

COLLECTION_WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class Incoming:
    """A file that has been read once: where it belongs in a tree, its bytes, and the two hashes that name them."""

    path: str
    file: BinaryIO
    size: int
    sha256: str
    git_oid: str

    def read(self, offset: int, length: int) -> bytes:
        self.file.seek(offset)
        return self.file.read(length)


def hash_file(path: str, file: BinaryIO) -> Incoming:
    """Hash a seekable file: SHA-256 names it here, git's blob id (SHA-1 over its length and bytes) names it to Hub clients."""
    size = file.seek(0, 2)
    file.seek(0)
    sha256 = hashlib.sha256()
    git = blob_hasher(size)
    while chunk := file.read(CHUNK):
        sha256.update(chunk)
        git.update(chunk)
    return Incoming(path, file, size, sha256.hexdigest(), git.hexdigest())


def store(sessions: sessionmaker[Session], storage: Storage, namespace: str, files: Sequence[Incoming]) -> None:
    """Put files into S3 and record that the namespace holds them. Killed at any point, it leaves no row that names missing bytes.

    Raises QuotaExceeded before anything is stored.
    """
    with transaction(sessions) as session:
        sizes = {file.sha256: file.size for file in files}
        quota.require_room(session, namespace, sum(sizes.values()) - _size_held(session, namespace, sizes))
    for file in files:
        if not _announce(sessions, file.sha256, file.size, file.git_oid):
            storage.put(file.sha256, file.file, file.size)
        with transaction(sessions) as session:
            session.execute(
                update(Blob)
                .where(Blob.sha256 == file.sha256)
                .values(state="stored", git_oid=file.git_oid, touched_at=func.now())
            )
            hold(session, namespace, file.sha256)


def receive(
    sessions: sessionmaker[Session],
    storage: Storage,
    namespace: str,
    sha256: str,
    size: int,
    pieces: Iterator[bytes],
) -> None:
    """Stream bytes of a hash announced beforehand straight into S3, and record that the namespace holds them.

    Nothing is kept in memory or on disk. Raises WrongBytes, and stores nothing, if they differ from the announcement; and QuotaExceeded.
    """
    with transaction(sessions) as session:
        quota.require_room(session, namespace, size - _size_held(session, namespace, [sha256]))
    body = VerifiedStream(sha256, size, pieces)
    if _announce(sessions, sha256, size, None):
        while body.read(CHUNK):
            pass  # somebody else sent them: this sender must prove that they have them too
    else:
        body.store(storage, blob_key(sha256))
    with transaction(sessions) as session:
        session.execute(
            update(Blob)
            .where(Blob.sha256 == sha256)
            .values(state="stored", git_oid=body.git_oid, touched_at=func.now())
        )
        hold(session, namespace, sha256)


def _announce(sessions: sessionmaker[Session], sha256: str, size: int, git_oid: str | None) -> bool:
    """Whether the bytes are stored already. Otherwise leaves a `receiving` row; waits for a collection under way to end."""
    deadline = time.monotonic() + COLLECTION_WAIT_SECONDS
    while True:
        with transaction(sessions) as session:
            row = insert(Blob).values(
                sha256=sha256, size=size, git_oid=git_oid, state="receiving", touched_at=func.now()
            )
            session.execute(row.on_conflict_do_nothing())
            # Touched in the same statement that reads the state: the collector skips what was touched lately.
            state = session.scalar(
                update(Blob)
                .where(Blob.sha256 == sha256, Blob.state != "deleting")
                .values(touched_at=func.now())
                .returning(Blob.state)
            )
        if state is not None:
            return bool(state == "stored")
        if time.monotonic() > deadline:
            raise Unavailable(f"The bytes {sha256} are being removed from storage; send them again in a minute.")
        time.sleep(0.2)


def _size_held(session: Session, namespace: str, hashes: Collection[str]) -> int:
    held = select(func.coalesce(func.sum(Blob.size), 0)).join(Holding, Holding.sha256 == Blob.sha256)
    return int(session.scalar(held.where(Holding.namespace == namespace, Blob.sha256.in_(hashes))) or 0)


def hold(session: Session, namespace: str, sha256: str) -> None:
    """Record that the namespace has these bytes. Raises QuotaExceeded where another upload has taken the room meanwhile."""
    if session.get(Holding, (namespace, sha256)) is None:
        quota.require_room(session, namespace, session.get_one(Blob, sha256).size, lock=True)
    session.execute(insert(Holding).values(namespace=namespace, sha256=sha256).on_conflict_do_nothing())


def held(session: Session, namespace: str, hashes: Sequence[str]) -> set[str]:
    """Which of the hashes the namespace holds, stored and touched, so that none is collected before the caller commits."""
    rows = session.scalars(
        select(Blob.sha256)
        .join(Holding, Holding.sha256 == Blob.sha256)
        .where(Holding.namespace == namespace, Blob.sha256.in_(set(hashes)), Blob.state == "stored")
        .order_by(Blob.sha256)  # two publishers lock in the same order
        .with_for_update(of=Blob, key_share=True)
    ).all()
    # An update, not only a lock: a collector that waited for us re-checks the row only if it has changed.
    session.execute(update(Blob).where(Blob.sha256.in_(rows)).values(touched_at=func.now()))
    return set(rows)
