"""The reconciler: one loop at a time, under an advisory lock, that finishes whatever was interrupted.

It re-sends jobs whose message was lost, settles jobs whose worker died, tells webhooks which jobs have ended, purges what can no longer
be restored, and collects bytes that nothing needs. Every step may be killed and run again.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, exists, func, null, select, text, update
from sqlalchemy.orm import Session

from hub.registry.content import lfs, xet
from hub.registry.jobs import checkpoints, lifecycle, webhooks
from hub.registry.library import similar
from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.content import Blob, Commit, Ref, Repo, Tree, TreeEntry
from hub.registry.models.jobs import Job, JobEvent, JobInput
from hub.registry.platform import upstream_client
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import Unavailable
from hub.registry.platform.job_queue import QUEUES
from hub.registry.platform.services import Services

log = logging.getLogger(__name__)

SWEEP_LOCK = 7_301_205
RESEND_SECONDS = 10.0
BATCH = 500


def run(services: Services, *, stop: Callable[[], bool]) -> None:
    """Sweep until told to stop. Of several sweeps one works; the others wait for its lock."""
    with services.sessions() as keeper:
        while not stop():
            if keeper.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": SWEEP_LOCK}):
                break
            keeper.rollback()
            time.sleep(services.settings.sweep_seconds)
        keeper.commit()  # the lock belongs to the connection; no transaction stays open with it
        while not stop():
            sweep(services)
            time.sleep(services.settings.sweep_seconds)
            # Ends the loop with an error if the connection, and the lock with it, is gone; the supervisor starts anew.
            keeper.execute(text("SELECT 1"))
            keeper.commit()
        # A pooled connection outlives this loop, and its locks with it.
        keeper.execute(text("SELECT pg_advisory_unlock_all()"))
        keeper.commit()


def sweep(services: Services) -> None:
    """One round."""
    with transaction(services.sessions) as session:
        settled = lifecycle.end_dead(session)
    if settled:
        log.info("settled jobs of dead workers", extra={"count": settled})
    resend(services)
    webhooks.send_due(services)
    settings = services.settings
    with transaction(services.sessions) as session:
        purge(session, timedelta(days=settings.restore_days))
        expire_answers(session)
    grace = timedelta(hours=settings.blob_grace_hours)
    collect(services, grace)
    checkpoints.remove_ended(services)
    drop_old(services, lfs.PARTS, grace)  # of uploads that nobody completed
    xet.drop_xorbs(services, datetime.now(UTC), grace)
    drop_old(services, upstream_client.KEPT, timedelta(days=settings.upstream_days))
    similar.sketch_missing(services)


def resend(services: Services) -> int:
    """Send waiting jobs again where their queue is empty: then no message of theirs can still be there."""
    sent = 0
    for queue in QUEUES:
        try:
            if services.queue.depth(queue):
                continue
        except Unavailable:
            log.warning("broker unreachable", extra={"queue": queue})
            continue
        with transaction(services.sessions) as session:
            late = lifecycle.unsent(session, queue, RESEND_SECONDS)
        sent += sum(services.queue.send(queue, job_id) for job_id in late)
    return sent


def expire_answers(session: Session) -> None:
    """Answers of `generate` jobs are kept for a day, and so are their prompts."""
    old = select(Job.id).where(
        Job.kind == "generate", Job.finished_at < func.now() - timedelta(hours=24), Job.params != {}
    )
    session.execute(delete(JobEvent).where(JobEvent.job_id.in_(old)))
    session.execute(update(Job).where(Job.id.in_(old)).values(result=null(), params={}, request=null()))


def purge(session: Session, after: timedelta) -> int:
    """Give up repos whose time to be restored is over: the name is free again, the commits stay as ancestors without files.

    A tree that a waiting or running job pinned stays until that job has ended.
    """
    old = session.scalars(
        select(Repo).where(Repo.deleted_at < func.now() - after, Repo.purged_at.is_(None)).limit(BATCH)
    ).all()
    for repo in old:
        session.execute(delete(Ref).where(Ref.repo_id == repo.id))
        session.execute(delete(AdapterFacts).where(AdapterFacts.repo_id == repo.id))
        repo.name, repo.purged_at = f"purged-{repo.id}", func.now()
    session.flush()
    live = exists().where(
        JobInput.commit_id == Commit.id, JobInput.job_id == Job.id, Job.state.in_(("queued", "running"))
    )
    purged = select(Repo.id).where(Repo.purged_at.is_not(None))
    session.execute(
        update(Commit)
        .where(Commit.repo_id.in_(purged), Commit.tree.is_not(None), ~live)
        .values(tree=None)
        .execution_options(synchronize_session=False)
    )
    return len(old)


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
