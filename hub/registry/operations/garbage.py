"""Bytes that nothing needs any longer: unused blobs, and objects that were kept for a time."""

import logging
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, exists, func, select, update

from hub.registry.models.content import Blob, Commit, Tree, TreeEntry
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services

log = logging.getLogger(__name__)

BATCH = 500


def drop_old(services: Services, prefix: str, age: timedelta) -> None:
    """Remove objects that were stored so long ago."""
    for key in services.storage.keys_older_than(prefix, datetime.now(UTC) - age):
        services.storage.delete_key(key)


def collect(services: Services, grace: timedelta) -> int:
    """Remove bytes that no tree needs, untouched for the grace period: first the row says so, then S3, then the row goes."""
    with transaction(services.sessions) as session:
        unused_tree = ~exists().where(Commit.tree == Tree.hash)
        orphans = session.scalars(
            select(Tree.hash).where(unused_tree).limit(BATCH).with_for_update(skip_locked=True)
        ).all()
        # Asked again in a statement of its own, which sees what was published before the lock was ours.
        session.execute(
            delete(Tree).where(Tree.hash.in_(orphans), unused_tree).execution_options(synchronize_session=False)
        )
        unused = ~exists().where(TreeEntry.sha256 == Blob.sha256)
        old = (
            select(Blob.sha256)
            .where(Blob.touched_at < func.now() - grace, unused)
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        going = session.scalars(
            update(Blob)
            .where(Blob.sha256.in_(old), Blob.touched_at < func.now() - grace)
            .values(state="deleting")
            .returning(Blob.sha256)
        ).all()
    for sha256 in going:
        with transaction(services.sessions) as session:
            # The row stays locked until S3 has deleted: an upload of the same bytes cannot come between, nor a second sweep.
            gone = session.scalar(
                delete(Blob).where(Blob.sha256 == sha256, Blob.state == "deleting").returning(Blob.sha256)
            )
            if gone:
                services.storage.delete(sha256)
    if going:
        log.info("collected bytes that nothing needs", extra={"count": len(going)})
    return len(going)
