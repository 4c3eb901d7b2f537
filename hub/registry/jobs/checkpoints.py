"""Where a long job's worker keeps its place in S3, so that the next attempt goes on instead of starting anew.

A key belongs to one attempt: a worker that lost its lease and does not know it yet can only write over its own place, never over that of
the attempt that took the job from it. The sweep removes what ended jobs leave behind.
"""

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import select

from hub.registry.jobs import leases
from hub.registry.jobs.leases import Lease, LeaseLost
from hub.registry.models.jobs import Job
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import NotFound
from hub.registry.platform.services import Services

PREFIX = "checkpoints/"


def key(job_id: uuid.UUID, stage: str, attempt: int) -> str:
    return f"{PREFIX}{job_id}/{stage}/{attempt}"


def keep(services: Services, lease: Lease, stage: str, file: Path) -> None:
    """Store a stage's place. Raises LeaseLost, and stores nothing, if the lease is gone."""
    with transaction(services.sessions) as session:
        if not leases.renew(session, lease, services.settings.lease_seconds):
            raise LeaseLost
    with file.open("rb") as content:
        services.storage.put_stream(key(lease.job_id, stage, lease.attempt), content, file.stat().st_size)


def fetch(services: Services, lease: Lease, stage: str, file: Path) -> bool:
    """Write the place that the latest earlier attempt has kept to `file`. False if none has."""
    for attempt in range(lease.attempt - 1, 0, -1):
        try:
            pieces = services.storage.stream_key(key(lease.job_id, stage, attempt))
        except NotFound:
            continue
        with file.open("wb") as content:
            content.writelines(pieces)
        return True
    return False


def remove_ended(services: Services) -> int:
    """Remove the places of jobs that have ended."""
    keys = list(services.storage.keys_older_than(PREFIX, datetime.now(UTC) + timedelta(days=1)))
    found = {uuid.UUID(each.split("/")[1]) for each in keys}
    if not found:
        return 0
    with transaction(services.sessions) as session:
        live = set(session.scalars(select(Job.id).where(Job.id.in_(found), Job.state.in_(("queued", "running")))))
    ended = [each for each in keys if uuid.UUID(each.split("/")[1]) not in live]
    for each in ended:
        services.storage.delete_key(each)
    return len(ended)
