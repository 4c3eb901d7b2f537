"""The life cycle of a job. Its row is authoritative. A lease, not a lock, names its worker, and each write carries the lease's token."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import JsonValue
from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, aliased

from hub.registry.access import permissions
from hub.registry.access.viewer import viewer_of
from hub.registry.jobs import webhooks
from hub.registry.models.access import User
from hub.registry.models.content import Commit, Repo
from hub.registry.models.jobs import Attempt, Job, JobEvent, JobInput

MAX_ATTEMPTS = 3
LAST_SEQ = 2**31 - 1  # the largest number that its column holds


class LeaseLost(Exception):
    """Another worker has the job now, or it was ended: stop, and publish nothing."""


class CancelRequested(Exception):
    """The owner asked for the job to stop."""


class TimeLimitReached(Exception):
    """The job has reached its time limit."""

    code = "time_limit"


@dataclass(frozen=True)
class Worker:
    """A worker process: its name, and the device that it computes on ("cpu", or "cuda" and the card's name)."""

    name: str
    device: str


@dataclass(frozen=True)
class Lease:
    job_id: uuid.UUID
    token: uuid.UUID
    attempt: int
    next_seq: int


# Operations of a worker. Each write is one statement that names the lease; no rows means that the lease is gone.


def claim(session: Session, job_id: uuid.UUID, worker: Worker, lease_seconds: float) -> Lease | None:
    """Claim a job that is queued, or whose worker stopped renewing its lease. None if it cannot be claimed."""
    token = uuid.uuid4()
    free = or_(Job.state == "queued", and_(Job.state == "running", Job.lease_until < func.now()))
    row = session.execute(
        update(Job)
        .where(Job.id == job_id, free, Job.attempt < MAX_ATTEMPTS, ~Job.cancel_requested)
        .values(
            state="running",
            attempt=Job.attempt + 1,
            lease_token=token,
            lease_until=func.now() + timedelta(seconds=lease_seconds),
            started_at=func.coalesce(Job.started_at, func.now()),
        )
        .returning(Job.attempt, Job.namespace, Job.kind)
    ).one_or_none()
    if row is None:
        return None
    of = {"attempt": row.attempt, "namespace": row.namespace, "kind": row.kind}
    session.add(Attempt(job_id=job_id, worker=worker.name, device=worker.device, **of))
    last = session.scalar(select(func.max(JobEvent.seq)).where(JobEvent.job_id == job_id)) or 0
    return Lease(job_id, token, row.attempt, last + 1)


def claim_fairly(session: Session, job_id: uuid.UUID, worker: Worker, lease_seconds: float) -> Lease | None:
    """Claim the next job of this one's queue, round-robin over namespaces, so that many jobs of one keep nobody waiting.

    There is one message for each waiting job, so every job is claimed in the end, though a message may claim another job than its own.
    The namespace with the fewest running jobs comes first, then the one served longest ago. Its oldest job is claimed. Where none
    waits, this job itself is claimed, as its worker may have died.
    """
    queue = select(Job.queue).where(Job.id == job_id).scalar_subquery()
    other = aliased(Job)
    running = (
        select(func.count())
        .where(other.namespace == Job.namespace, other.queue == queue, other.state == "running")
        .correlate(Job)
        .scalar_subquery()
    )
    served = (
        select(func.max(other.started_at))
        .where(other.namespace == Job.namespace, other.queue == queue)
        .correlate(Job)
        .scalar_subquery()
    )
    # Only the oldest job of each namespace is a candidate. Jobs that another worker is claiming now are skipped.
    waiting = (
        select(Job.id)
        .where(Job.queue == queue, Job.state == "queued", Job.attempt < MAX_ATTEMPTS, ~Job.cancel_requested)
        .ext(distinct_on(Job.namespace))
        .order_by(Job.namespace, Job.created_at, Job.id)
    )
    turn = (
        select(Job.id)
        .where(Job.id.in_(waiting))
        .order_by(running, served.asc().nulls_first(), Job.created_at, Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return claim(session, session.scalar(turn) or job_id, worker, lease_seconds)


def unreadable_input(session: Session, job: Job) -> bool:
    """Whether an input is no longer readable by the job's owner: deleted, made private, or purged."""
    owner = session.get_one(User, job.owner_id)
    viewer = viewer_of(owner)
    pinned = select(func.count()).select_from(JobInput).where(JobInput.job_id == job.id)
    still = (
        select(func.count())
        .select_from(JobInput)
        .join(Commit, Commit.id == JobInput.commit_id)
        .join(Repo, Repo.id == Commit.repo_id)
        .where(
            JobInput.job_id == job.id, Commit.tree.is_not(None), Repo.deleted_at.is_(None), permissions.readable(viewer)
        )
    )
    return session.scalar(pinned) != session.scalar(still)


def renew(session: Session, lease: Lease, lease_seconds: float) -> bool:
    """Extend the lease. False if it is gone."""
    until = func.now() + timedelta(seconds=lease_seconds)
    return _write(session, lease, lease_until=until)


def record(
    session: Session, lease: Lease, seq: int, phase: str, step: int, total: int, numbers: Mapping[str, float]
) -> None:
    """Write one event. Raises LeaseLost, CancelRequested or TimeLimitReached; the worker must then stop."""
    query = select(Job.cancel_requested, Job.time_limit, _over_time().label("over")).where(*_held(lease))
    row = session.execute(query.with_for_update(of=Job)).one_or_none()
    if row is None:
        raise LeaseLost
    if row.cancel_requested:
        raise CancelRequested
    if row.over:
        raise TimeLimitReached(_limit_message(row.time_limit, f" It had reached step {step} of {total} of {phase!r}."))
    event = {"phase": phase, "step": step, "total": total, "numbers": dict(numbers)}
    session.add(JobEvent(job_id=lease.job_id, seq=seq, attempt=lease.attempt, **event))


def succeed(session: Session, lease: Lease, result: Mapping[str, JsonValue]) -> None:
    """End the job as succeeded. Raises LeaseLost, which rolls back everything published in the same transaction."""
    if not _write(session, lease, state="succeeded", result=dict(result), finished_at=func.now()):
        raise LeaseLost


def fail(session: Session, lease: Lease, code: str, message: str) -> None:
    _write(session, lease, state="failed", error_code=code, error_message=message, finished_at=func.now())


def end_cancelled(session: Session, lease: Lease) -> None:
    _write(session, lease, state="cancelled", finished_at=func.now())


def _over_time() -> ColumnElement[bool]:
    return func.now() - Job.started_at > func.make_interval(0, 0, 0, 0, 0, 0, Job.time_limit)


def _limit_message(seconds: float, reached: str = "") -> str:
    return f"The job has run for its limit of {seconds / 60:g} minutes.{reached} Ask for less, or for a longer time_limit_minutes."


def _held(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return Job.id == lease.job_id, Job.lease_token == lease.token, Job.state == "running"


def _write(session: Session, lease: Lease, **values: Any) -> bool:
    statement = update(Job).where(*_held(lease)).values(**values).returning(Job.id)
    if session.execute(statement).one_or_none() is None:
        return False
    ours = (Attempt.job_id == lease.job_id, Attempt.attempt == lease.attempt)
    session.execute(update(Attempt).where(*ours).values(heartbeat_at=func.now()))
    if "finished_at" in values:
        webhooks.jobs_ended(session, lease.job_id)
    return True


# What the sweep does.


def end_dead(session: Session) -> int:
    """End or requeue jobs whose worker is gone: cancelled if requested, failed after the last attempt, else queued again."""
    dead = and_(Job.state == "running", Job.lease_until < func.now())
    cancelled = session.execute(
        update(Job)
        .where(dead, Job.cancel_requested)
        .values(state="cancelled", finished_at=func.now())
        .returning(Job.id)
    ).all()
    message = (
        f"The worker died {MAX_ATTEMPTS} times while running this job, most likely because it ran out of memory or "
        "made no progress for too long. Try a smaller base, fewer examples or shorter ones, or a larger worker."
    )
    lost = session.execute(
        update(Job)
        .where(dead, Job.attempt >= MAX_ATTEMPTS)
        .values(state="failed", error_code="worker_lost", error_message=message, finished_at=func.now())
        .returning(Job.id)
    ).all()
    late = session.execute(
        update(Job)
        .where(dead, _over_time())
        .values(state="failed", error_code=TimeLimitReached.code, finished_at=func.now())
        .returning(Job.id, Job.time_limit)
    ).all()
    for job_id, seconds in late:
        session.execute(update(Job).where(Job.id == job_id).values(error_message=_limit_message(seconds)))
    ended = [row.id for row in (*cancelled, *lost, *late)]
    webhooks.jobs_ended(session, *ended)
    again = session.execute(update(Job).where(dead).values(state="queued", sent_at=_long_ago()).returning(Job.id)).all()
    return len(ended) + len(again)


def _long_ago() -> ColumnElement[datetime]:
    return func.now() - timedelta(days=1)


def unsent(session: Session, queue: str, seconds: float) -> Sequence[uuid.UUID]:
    """Waiting jobs of a queue whose message seems lost. They are marked as sent now."""
    late = (
        select(Job.id)
        .where(Job.state == "queued", Job.queue == queue, Job.sent_at < func.now() - timedelta(seconds=seconds))
        .order_by(Job.created_at)
        .limit(1000)
        .with_for_update(skip_locked=True)
    )
    statement = update(Job).where(Job.id.in_(late)).values(sent_at=func.now()).returning(Job.id)
    return session.scalars(statement).all()
