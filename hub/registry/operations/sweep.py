"""The reconciler: one loop at a time, under an advisory lock, that finishes whatever was interrupted.

It re-sends jobs whose message was lost, settles jobs whose worker died, tells webhooks which jobs have ended, purges what can no longer
be restored, and collects bytes that nothing needs. Every step may be killed and run again.
"""

import logging
import time
from collections.abc import Callable
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
        settled = leases.end_dead(session)
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
            late = leases.unsent(session, queue, RESEND_SECONDS)
        sent += sum(services.queue.send(queue, job_id) for job_id in late)
    return sent
