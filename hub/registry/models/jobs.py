"""Tables of jobs, their attempts, inputs and events, the workers, and the webhooks that report them."""

import uuid
from datetime import datetime

from sqlalchemy import (
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from hub.registry.models.columns import Json, Sha256, Time, one_of
from hub.registry.platform.db import Table
from hub.vocabulary import InputRole, JobKind, JobState, QueueName, Visibility


class Job(Table):
    __tablename__ = "jobs"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"))
    kind: Mapped[JobKind] = mapped_column(String(20))
    queue: Mapped[QueueName] = mapped_column(String(20))
    state: Mapped[JobState] = mapped_column(String(10), server_default=text("'queued'"))
    params: Mapped[Json] = mapped_column(JSONB)
    owner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"))
    visibility: Mapped[Visibility] = mapped_column(String(10))
    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    request_hash: Mapped[str] = mapped_column(Sha256)
    # As it can be asked again: what was written out in it has become a data set. Null: older than this column, or no longer kept.
    request: Mapped[Json | None] = mapped_column(JSONB)
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    lease_token: Mapped[uuid.UUID | None]
    lease_until: Mapped[datetime | None] = mapped_column(Time)
    sent_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    time_limit: Mapped[float] = mapped_column(server_default=text("86400"))  # seconds from its first start
    cancel_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    result: Mapped[Json | None] = mapped_column(JSONB)
    error_code: Mapped[str | None] = mapped_column(String(60))
    error_message: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    started_at: Mapped[datetime | None] = mapped_column(Time)
    finished_at: Mapped[datetime | None] = mapped_column(Time)
    __table_args__ = (
        UniqueConstraint("owner_id", "idempotency_key"),
        one_of("state", JobState),
        Index("ix_jobs_live", "state", "lease_until", postgresql_where=text("state in ('queued', 'running')")),
        Index("ix_jobs_owner", "owner_id", created_at.desc()),
        Index("ix_jobs_namespace", "namespace", "queue", started_at.desc()),  # whose turn it is
    )


class Attempt(Table):
    """One worker's attempt at a job; device-seconds are summed from these rows.

    `heartbeat_at` moves with the lease and stops when the worker dies.
    """

    __tablename__ = "attempts"
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(Text)
    kind: Mapped[JobKind] = mapped_column(String(20))
    worker: Mapped[str] = mapped_column(Text)
    device: Mapped[str] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column("last_at", Time, server_default=func.now())
    __table_args__ = (Index("ix_attempts_namespace", "namespace", "started_at"),)


class WorkerProcess(Table):
    """A worker that says every few seconds that it is there, busy or not."""

    __tablename__ = "workers"
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    queues: Mapped[list[str]] = mapped_column(ARRAY(Text))
    device: Mapped[str] = mapped_column(Text)
    seen_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())


class Webhook(Table):
    """Where a namespace's events go. The secret is kept as it is, as every event is signed with it."""

    __tablename__ = "webhooks"
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name", ondelete="CASCADE"), primary_key=True)
    url: Mapped[str] = mapped_column(Text)
    secret: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())


class WebhookEvent(Table):
    """The event of an ended job, to be sent: at most one event a job, written in the transaction that ends it."""

    __tablename__ = "webhook_events"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"))
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), unique=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("webhooks.namespace", ondelete="CASCADE"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    next_at: Mapped[datetime | None] = mapped_column(Time, server_default=func.now())  # null: delivered or given up
    answer: Mapped[str | None] = mapped_column(Text)  # the last one
    delivered_at: Mapped[datetime | None] = mapped_column(Time)
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    __table_args__ = (
        Index("ix_webhook_events_namespace", "namespace", "id"),
        Index("ix_webhook_events_due", "namespace", "next_at", postgresql_where=text("next_at is not null")),
    )


class JobInput(Table):
    """A commit that a job pinned: readable by the owner when it starts, and kept from collection while it waits."""

    __tablename__ = "job_inputs"
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    commit_id: Mapped[str] = mapped_column(ForeignKey("commits.id"), primary_key=True, index=True)
    role: Mapped[InputRole] = mapped_column(String(20), primary_key=True)


class JobEvent(Table):
    """One step of a job. The holder of the lease assigns the sequence number."""

    __tablename__ = "job_events"
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    phase: Mapped[str] = mapped_column(String(40))
    step: Mapped[int]
    total: Mapped[int]
    numbers: Mapped[dict[str, float]] = mapped_column(JSONB)
