"""Checkpoints of long jobs in S3, from which the next attempt resumes.

A key belongs to one attempt: a worker that lost its lease without noticing can overwrite only its own checkpoint. It cannot overwrite that
of the attempt that took over the job. The sweep removes the checkpoints of ended jobs.
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
    """Store a stage's checkpoint. Raises LeaseLost, and stores nothing, if the lease is gone."""
    with transaction(services.sessions) as session:
        if not leases.renew(session, lease, services.settings.lease_seconds):
            raise LeaseLost
    with file.open("rb") as content:
        services.storage.put_stream(key(lease.job_id, stage, lease.attempt), content, file.stat().st_size)


def fetch(services: Services, lease: Lease, stage: str, file: Path) -> bool:
    """Write the checkpoint of the latest earlier attempt to `file`. False if there is none."""
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
    """Remove the checkpoints of jobs that have ended."""
    keys = list(services.storage.keys_older_than(PREFIX, datetime.now(UTC) + timedelta(days=1)))
    job_ids = {uuid.UUID(key.split("/")[1]) for key in keys}
    if not job_ids:
        return 0
    with transaction(services.sessions) as session:
        live = set(session.scalars(select(Job.id).where(Job.id.in_(job_ids), Job.state.in_(("queued", "running")))))
    ended = [key for key in keys if uuid.UUID(key.split("/")[1]) not in live]
    for key in ended:
        services.storage.delete_key(key)
    return len(ended)
