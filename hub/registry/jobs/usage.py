"""Usage of the instance: device-seconds of jobs, and, for administrators, the current queues, workers and storage."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from hub.registry.access import permissions
from hub.registry.access.viewer import Viewer
from hub.registry.jobs.leases import Worker
from hub.registry.models.content import Blob, Holding
from hub.registry.models.jobs import Attempt, Job, WorkerProcess
from hub.vocabulary import QUEUES

ALIVE_SECONDS = 60  # a worker announces itself four times in this
LARGEST = 100


@dataclass(frozen=True)
class Used:
    """Device-seconds of one namespace, month, device and kind of job."""

    namespace: str
    month: str  # in which the attempts began, by UTC: 2026-11
    device: str
    kind: str
    attempts: int
    seconds: float


@dataclass(frozen=True)
class QueueState:
    name: str
    waiting: Mapping[str, int]  # kind of job -> how many
    running: Mapping[str, int]
    oldest_waiting: datetime | None


@dataclass(frozen=True)
class Alive:
    name: str
    queues: Sequence[str]
    device: str
    seen_at: datetime
    jobs: Sequence[uuid.UUID]


@dataclass(frozen=True)
class Wait:
    """Why a queued job waits: about how many jobs run before it, how many run in its queue now, and how many workers there are.

    Without a worker it says when the last one was seen.
    """

    before: int
    running: int
    workers: int
    seen_at: datetime | None


@dataclass(frozen=True)
class Held:
    namespace: str
    bytes: int


@dataclass(frozen=True)
class System:
    queues: Sequence[QueueState]
    workers: Sequence[Alive]
    blobs: int
    bytes: int
    held: Sequence[Held]
    used: Sequence[Used]


def of_namespace(session: Session, viewer: Viewer, namespace: str, months: int) -> list[Used]:
    """The namespace's usage, for its members and administrators. Raises NotFound for others."""
    permissions.require_member(session, viewer, namespace)
    return _used(session, namespace, months)


def of_instance(session: Session, months: int) -> list[Used]:
    """The usage of every namespace, for administrators."""
    return _used(session, None, months)


def _used(session: Session, namespace: str | None, months: int) -> list[Used]:
    """Sum the attempts, failed ones too: from the claim to the end or, if the worker died, to its last heartbeat."""
    month = func.to_char(Attempt.started_at, "YYYY-MM").label("month")
    seconds = func.sum(func.extract("epoch", Attempt.heartbeat_at - Attempt.started_at))
    since = func.date_trunc("month", func.now()) - func.make_interval(0, months - 1)
    query = (
        select(Attempt.namespace, month, Attempt.device, Attempt.kind, func.count(), seconds)
        .where(Attempt.started_at >= since)
        .group_by(Attempt.namespace, month, Attempt.device, Attempt.kind)
        .order_by(month.desc(), Attempt.namespace, Attempt.device, Attempt.kind)
    )
    if namespace is not None:
        query = query.where(Attempt.namespace == namespace)
    return [
        Used(owner, when, device, kind, attempts, round(float(spent), 3))
        for owner, when, device, kind, attempts, spent in session.execute(query)
    ]


def announce(session: Session, worker: Worker, queues: Sequence[str]) -> None:
    """Record that a worker serves these queues. Workers that have not announced themselves for a day are removed."""
    values = {"queues": list(queues), "device": worker.device, "seen_at": func.now()}
    upsert = insert(WorkerProcess).values(name=worker.name, **values)
    session.execute(upsert.on_conflict_do_update(index_elements=["name"], set_=values))
    session.execute(delete(WorkerProcess).where(WorkerProcess.seen_at < func.now() - timedelta(days=1)))


def system(session: Session) -> System:
    """For administrators: queued and running jobs, workers, storage held, and this month's usage."""
    stored = select(func.count(), func.coalesce(func.sum(Blob.size), 0)).where(Blob.state == "stored")
    count, size = session.execute(stored).one()
    total = func.sum(Blob.size)
    held = (
        select(Holding.namespace, total)
        .join(Blob, Blob.sha256 == Holding.sha256)
        .group_by(Holding.namespace)
        .order_by(total.desc(), Holding.namespace)
        .limit(LARGEST)
    )
    return System(
        queues=_queues(session),
        workers=_workers(session),
        blobs=count,
        bytes=int(size),
        held=[Held(namespace, int(held_bytes)) for namespace, held_bytes in session.execute(held)],
        used=_used(session, None, 1),
    )


def wait(session: Session, job: Job) -> Wait:
    """Why a job waits. Claims go round the namespaces.

    So every other namespace counts with at most one job more than precede this one in its own.
    """
    same = and_(Job.queue == job.queue, Job.state == "queued")
    own = session.scalar(select(func.count()).where(same, Job.namespace == job.namespace, Job.id < job.id)) or 0
    others = select(func.count().label("waiting")).where(same, Job.namespace != job.namespace).group_by(Job.namespace)
    per_namespace = func.least(others.subquery().c.waiting, own + 1)
    before = own + int(session.scalar(select(func.coalesce(func.sum(per_namespace), 0))) or 0)
    running = session.scalar(select(func.count()).where(Job.queue == job.queue, Job.state == "running")) or 0
    alive = WorkerProcess.seen_at > func.now() - timedelta(seconds=ALIVE_SECONDS)
    seen = select(func.count().filter(alive), func.max(WorkerProcess.seen_at)).where(
        WorkerProcess.queues.contains([job.queue])
    )
    workers, seen_at = session.execute(seen).one()
    return Wait(before, running, workers, seen_at)


def devices(session: Session, job: Job) -> list[str]:
    """The device of each attempt at a job, oldest first."""
    query = select(Attempt.device).where(Attempt.job_id == job.id).order_by(Attempt.attempt)
    return list(session.scalars(query))


def _queues(session: Session) -> list[QueueState]:
    live = (
        select(Job.queue, Job.state, Job.kind, func.count(), func.min(Job.created_at))
        .where(Job.state.in_(("queued", "running")))
        .group_by(Job.queue, Job.state, Job.kind)
        .order_by(Job.kind)
    )
    rows = session.execute(live).all()
    queues = []
    for queue in QUEUES:
        by_state: dict[str, dict[str, int]] = {"queued": {}, "running": {}}
        oldest = None
        for name, state, kind, count, since in rows:
            if name == queue:
                by_state[state][kind] = count
                if state == "queued":
                    oldest = min(oldest or since, since)
        queues.append(QueueState(queue, by_state["queued"], by_state["running"], oldest))
    return queues


def _workers(session: Session) -> list[Alive]:
    """Workers seen within the last minute, each with the jobs that it holds."""
    held = and_(Attempt.worker == WorkerProcess.name, Attempt.job_id == Job.id, Attempt.attempt == Job.attempt)
    jobs = select(func.array_agg(Attempt.job_id)).where(held, Job.state == "running").correlate(WorkerProcess)
    alive = (
        select(WorkerProcess, jobs.scalar_subquery())
        .where(WorkerProcess.seen_at > func.now() - timedelta(seconds=ALIVE_SECONDS))
        .order_by(WorkerProcess.name)
    )
    return [
        Alive(worker.name, worker.queues, worker.device, worker.seen_at, held or [])
        for worker, held in session.execute(alive)
    ]
