"""The reconciler: one loop at a time, under an advisory lock, that finishes whatever was interrupted.

`TASKS` declares its work. Every task may be killed at any point and run again.
"""

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from hub.registry.content import lfs, xet
from hub.registry.jobs import checkpoints, leases, webhooks
from hub.registry.library import similar
from hub.registry.operations.expiry import expire_answers, purge
from hub.registry.operations.garbage import collect, drop_old
from hub.registry.platform import upstream_client
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import Unavailable
from hub.registry.platform.services import Services
from hub.vocabulary import QUEUES

log = logging.getLogger(__name__)

SWEEP_LOCK = 7_301_205
RESEND_SECONDS = 10.0
MINUTE = 60.0


@dataclass(frozen=True)
class Task:
    """Periodic work. `every`: seconds between two runs; 0 for each round of the sweep."""

    name: str
    run: Callable[[Services], object]
    every: float = 0.0


def settle_dead_jobs(services: Services) -> None:
    with transaction(services.sessions) as session:
        settled = leases.end_dead(session)
    if settled:
        log.info("settled jobs of dead workers", extra={"count": settled})


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
            late = leases.unsent(session, queue, RESEND_SECONDS)
        sent += sum(services.queue.send(queue, job_id) for job_id in late)
    return sent


def purge_repos(services: Services) -> None:
    with transaction(services.sessions) as session:
        purge(session, timedelta(days=services.settings.restore_days))


def expire_old_answers(services: Services) -> None:
    with transaction(services.sessions) as session:
        expire_answers(session)


def collect_blobs(services: Services) -> None:
    collect(services, _grace(services))


def drop_lfs_parts(services: Services) -> None:
    """Parts of uploads that nobody completed."""
    drop_old(services, lfs.PARTS, _grace(services))


def drop_xorbs(services: Services) -> None:
    xet.drop_xorbs(services, datetime.now(UTC), _grace(services))


def drop_upstream_copies(services: Services) -> None:
    drop_old(services, upstream_client.KEPT, timedelta(days=services.settings.upstream_days))


def _grace(services: Services) -> timedelta:
    return timedelta(hours=services.settings.blob_grace_hours)


# In this order: a purge frees bytes that the collection after it may remove once their grace is over. What lists a whole
# prefix of S3 runs once a minute, as S3 bills each listing.
TASKS = (
    Task("settle dead jobs", settle_dead_jobs),
    Task("resend lost messages", resend),
    Task("deliver webhooks", webhooks.send_due),
    Task("purge deleted repos", purge_repos),
    Task("expire answers", expire_old_answers),
    Task("collect blobs", collect_blobs),
    Task("remove checkpoints", checkpoints.remove_ended, every=MINUTE),
    Task("drop LFS parts", drop_lfs_parts, every=MINUTE),
    Task("drop xorbs", drop_xorbs, every=MINUTE),
    Task("drop upstream copies", drop_upstream_copies, every=MINUTE),
    Task("sketch adapters", similar.sketch_missing),
)


def run(services: Services, *, stop: Callable[[], bool]) -> None:
    """Sweep until `stop` says so. Of several sweeps one works; the others wait for its lock."""
    with services.sessions() as keeper:
        # An advisory lock is held by a connection and not by a transaction: PostgreSQL releases it the moment this process or its
        # connection dies, so no stale lock has to expire before another sweep takes over, and no row is locked meanwhile.
        while not stop():
            if keeper.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": SWEEP_LOCK}):
                break
            keeper.rollback()
            time.sleep(services.settings.sweep_seconds)
        keeper.commit()  # the lock belongs to the connection; no transaction stays open with it
        schedule = Schedule(TASKS)
        while not stop():
            sweep(services, schedule.due(time.monotonic()))
            time.sleep(services.settings.sweep_seconds)
            # Ends the loop with an error if the connection, and the lock with it, is gone; the supervisor starts anew.
            keeper.execute(text("SELECT 1"))
            keeper.commit()
        # A pooled connection outlives this loop, and its locks with it.
        keeper.execute(text("SELECT pg_advisory_unlock_all()"))
        keeper.commit()


def sweep(services: Services, tasks: Collection[Task] = TASKS) -> None:
    """One round of these tasks."""
    for task in tasks:
        task.run(services)


class Schedule:
    """Which tasks are due: all of them at first, and then each after its interval."""

    def __init__(self, tasks: Collection[Task]) -> None:
        self._tasks = tasks
        self._last: dict[str, float] = {}

    def due(self, now: float) -> list[Task]:
        """The tasks to run at this time (seconds of a clock that only moves forward), which are then taken as run."""
        tasks = [task for task in self._tasks if now - self._last.get(task.name, -float("inf")) >= task.every]
        self._last |= {task.name: now for task in tasks}
        return tasks
