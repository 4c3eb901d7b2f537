"""The tables. docs/architecture.md draws them; the invariants are constraints wherever a constraint can say them."""

import uuid
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    DateTime,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    String,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from hub.registry.platform.db import Table

Time = DateTime(timezone=True)
Sha1 = String(40)
Sha256 = String(64)
Json = dict[str, Any]
Role = Literal["read", "write", "admin"]


def _number(fact: str) -> str:
    return f"coalesce((facts ->> '{fact}')::bigint, 0)"


_FILTERED = ["base", "method", "task", "rank", "namespace", "name", "visibility"]


def _besides(column: str) -> list[str]:
    return [each for each in _FILTERED if each != column]


def _listed(name: str, *columns: Any, **options: Any) -> Index:
    """An index of the adapters that lists show."""
    return Index(f"ix_adapter_facts_by_{name}", *columns, postgresql_where=text("current and not deleted"), **options)


class User(Table):
    __tablename__ = "users"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"))
    name: Mapped[str] = mapped_column(String(96), unique=True)
    is_admin: Mapped[bool] = mapped_column(server_default=text("false"))
    password_hash: Mapped[str | None] = mapped_column(Text)  # argon2id; null: signs in by other means
    # Set for a service account, which is no person: it belongs to this organisation and has tokens alone.
    service_of: Mapped[str | None] = mapped_column(ForeignKey("namespaces.name"), index=True)
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    # Names that differ only in case would be told apart by programs and not by people.
    __table_args__ = (Index("ix_users_lower_name", func.lower(name), unique=True),)


class Namespace(Table):
    """A person's or an organisation's; what owns repos, jobs and holdings."""

    __tablename__ = "namespaces"
    name: Mapped[str] = mapped_column(String(96), primary_key=True)
    kind: Mapped[str] = mapped_column(String(12))
    quota_bytes: Mapped[int | None] = mapped_column(BigInteger)  # null: as the instance's settings say
    quota_jobs: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    __table_args__ = (
        CheckConstraint("kind in ('user', 'organization')", name="kind"),
        Index("ix_namespaces_lower_name", func.lower(name), unique=True),
    )


class Membership(Table):
    """What a user may do in a namespace. A person is admin of the namespace of his name."""

    __tablename__ = "memberships"
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True)
    role: Mapped[Role] = mapped_column(String(5))
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    __table_args__ = (CheckConstraint("role in ('read', 'write', 'admin')", name="role"),)


class Invitation(Table):
    """A link that makes whoever opens it first, signed in, a member."""

    __tablename__ = "invitations"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"))
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name", ondelete="CASCADE"), index=True)
    hash: Mapped[str] = mapped_column(Sha256, unique=True)
    role: Mapped[Role] = mapped_column(String(5))
    invited_by: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(Time)
    __table_args__ = (CheckConstraint("role in ('read', 'write', 'admin')", name="role"),)


class OpenIdentity(Table):
    """A user as an OpenID Connect provider knows him: the pair of issuer and subject never changes, names and addresses may."""

    __tablename__ = "identities"
    issuer: Mapped[str] = mapped_column(Text, primary_key=True)
    subject: Mapped[str] = mapped_column(Text, primary_key=True)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())


class Token(Table):
    """A secret for programs. Only its SHA-256 is kept: the secret has 256 random bits, so a slow hash adds nothing."""

    __tablename__ = "tokens"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"))
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(96))
    hash: Mapped[str] = mapped_column(Sha256, unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(String(10)))
    repos: Mapped[list[str] | None] = mapped_column(
        ARRAY(Text)
    )  # null: wherever its user may; else these, or "namespace/*"
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    expires_at: Mapped[datetime | None] = mapped_column(Time)


class BrowserSession(Table):
    __tablename__ = "sessions"
    hash: Mapped[str] = mapped_column(Sha256, primary_key=True)
    id: Mapped[uuid.UUID] = mapped_column(unique=True, server_default=text("uuidv7()"))
    agent: Mapped[str] = mapped_column(String(300), server_default="")  # the browser as it names itself
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(Time)


class DeviceLogin(Table):
    """A program that waits to be signed in: it polls with the device code while a person enters the user code on a page."""

    __tablename__ = "device_logins"
    hash: Mapped[str] = mapped_column(Sha256, primary_key=True)  # of the device code
    user_code: Mapped[str] = mapped_column(String(9), unique=True)
    user_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))  # who approved it
    denied: Mapped[bool] = mapped_column(server_default=text("false"))
    expires_at: Mapped[datetime] = mapped_column(Time)


class BaseModel(Table):
    """A base that workers can load: the built-in one, a folder on the workers' machines, or one of the upstream hub."""

    __tablename__ = "base_models"
    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    # Both null: the built-in base, which each worker converts for itself.
    path: Mapped[str | None] = mapped_column(Text)
    upstream: Mapped[str | None] = mapped_column(String(200))  # a repo of the upstream hub; `revision` is its commit
    token: Mapped[bytes | None] = mapped_column(deferred=True)  # shown to the upstream for this base alone; sealed
    revision: Mapped[str | None] = mapped_column(String(200))
    dtype: Mapped[str] = mapped_column(String(20))  # to load it in; "auto": as the device computes best
    licence: Mapped[str | None] = mapped_column(String(100))
    shapes: Mapped[Json] = mapped_column(JSONB)  # linear layer -> [in, out]
    fingerprint: Mapped[str] = mapped_column(Sha256)
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    aliases: Mapped[list["BaseAlias"]] = relationship(cascade="all, delete-orphan", order_by="BaseAlias.alias")


class BaseAlias(Table):
    """Another name of the same base. Names are unique over all bases, so a name never means two of them."""

    __tablename__ = "base_aliases"
    alias: Mapped[str] = mapped_column(Text, primary_key=True)
    base_id: Mapped[str] = mapped_column(ForeignKey("base_models.id", ondelete="CASCADE"), index=True)


class Blob(Table):
    """Bytes in S3 under their hash. `receiving` while they travel, `deleting` while they go."""

    __tablename__ = "blobs"
    sha256: Mapped[str] = mapped_column(Sha256, primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    git_oid: Mapped[str | None] = mapped_column(Sha1)  # null while bytes travel that nobody has hashed yet
    state: Mapped[str] = mapped_column(String(10))
    touched_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    __table_args__ = (
        CheckConstraint("state in ('receiving', 'stored', 'deleting')", name="state"),
        CheckConstraint("state <> 'stored' or git_oid is not null", name="git_oid"),
        Index("ix_blobs_touched_at", "touched_at"),
    )


class Holding(Table):
    """A namespace sent these bytes, or a job of it made them. "Already there" is answered from here alone."""

    __tablename__ = "holdings"
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"), primary_key=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256", ondelete="CASCADE"), primary_key=True, index=True)
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())


class Repo(Table):
    __tablename__ = "repos"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"))
    type: Mapped[str] = mapped_column(String(10))
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"))
    name: Mapped[str] = mapped_column(String(96))
    visibility: Mapped[str] = mapped_column(String(10))
    versions: Mapped[int] = mapped_column(server_default=text("0"))  # the last version number given
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    deleted_at: Mapped[datetime | None] = mapped_column(Time)
    deleted: Mapped[bool] = mapped_column(Computed("deleted_at is not null", persisted=True))
    purged_at: Mapped[datetime | None] = mapped_column(Time)
    __table_args__ = (
        UniqueConstraint("id", "namespace", "name", "visibility", "deleted"),  # what its adapters' facts repeat
        # A deleted repo keeps its row, and so its name, until it can no longer be restored.
        UniqueConstraint("type", "namespace", "name"),
        CheckConstraint("type in ('model', 'dataset')", name="type"),
        CheckConstraint("visibility in ('private', 'internal', 'public')", name="visibility"),
        Index("ix_repos_listing", "type", updated_at.desc(), "id"),
    )

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"


class Tree(Table):
    __tablename__ = "trees"
    hash: Mapped[str] = mapped_column(Sha1, primary_key=True)


class TreeEntry(Table):
    __tablename__ = "tree_entries"
    tree: Mapped[str] = mapped_column(ForeignKey("trees.hash", ondelete="CASCADE"), primary_key=True)
    path: Mapped[str] = mapped_column(Text, primary_key=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"), index=True)
    size: Mapped[int] = mapped_column(BigInteger)
    git_oid: Mapped[str] = mapped_column(Sha1)


class Commit(Table):
    __tablename__ = "commits"
    id: Mapped[str] = mapped_column(Sha1, primary_key=True)
    repo_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("repos.id"), index=True)
    parent: Mapped[str | None] = mapped_column(ForeignKey("commits.id"))
    tree: Mapped[str | None] = mapped_column(ForeignKey("trees.hash"), index=True)  # null: purged, kept for lineage
    author_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    message: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Time)
    # Unique: a job's result is registered at most once, however often the job runs.
    job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id"), unique=True)


class Ref(Table):
    """A branch, a tag, a version (a tag v<n> that publish gives and nobody moves), or an alias, which moves with a record."""

    __tablename__ = "refs"
    repo_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("repos.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    commit_id: Mapped[str] = mapped_column(ForeignKey("commits.id"), index=True)
    moved_by: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    moved_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    __table_args__ = (CheckConstraint("kind in ('branch', 'tag', 'version', 'alias')", name="kind"),)


class AliasGate(Table):
    """The evaluation that a version must not do worse in than the alias's holder before the alias moves to it."""

    __tablename__ = "alias_gates"
    repo_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    metric: Mapped[str] = mapped_column(String(20))
    dataset_commit: Mapped[str] = mapped_column(ForeignKey("commits.id"))
    dataset_path: Mapped[str] = mapped_column(Text)
    template: Mapped[str] = mapped_column(String(20))
    tolerance: Mapped[float]
    __table_args__ = (ForeignKeyConstraint(["repo_id", "name"], ["refs.repo_id", "refs.name"], ondelete="CASCADE"),)


class AliasMove(Table):
    """Who moved an alias where and when, rolled it back, gated it or took it away. Rows are only added."""

    __tablename__ = "alias_moves"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    repo_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("repos.id"))
    name: Mapped[str] = mapped_column(String(255))
    action: Mapped[str] = mapped_column(String(10))
    commit_id: Mapped[str | None] = mapped_column(ForeignKey("commits.id"))
    moved_by: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    moved_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    compared: Mapped[Json | None] = mapped_column(JSONB)  # what the gate saw
    __table_args__ = (
        CheckConstraint("action in ('move', 'rollback', 'gate', 'ungate', 'remove')", name="action"),
        Index("ix_alias_moves_alias", "repo_id", "name", "id"),
    )


class AdapterFacts(Table):
    """What inspection read in one folder of one commit. `current`: the head of main, which lists and searches show."""

    __tablename__ = "adapter_facts"
    commit_id: Mapped[str] = mapped_column(ForeignKey("commits.id"), primary_key=True)
    folder: Mapped[str] = mapped_column(Text, primary_key=True)
    repo_id: Mapped[uuid.UUID] = mapped_column(index=True)
    # As the repo says: repeated so that one index finds what a viewer may see, and kept so by the foreign key.
    namespace: Mapped[str] = mapped_column(String(96))
    name: Mapped[str] = mapped_column(String(96))
    visibility: Mapped[str] = mapped_column(String(10))
    deleted: Mapped[bool] = mapped_column(server_default=text("false"))
    current: Mapped[bool]
    base_id: Mapped[str | None] = mapped_column(ForeignKey("base_models.id", ondelete="SET NULL"))
    base_model: Mapped[str | None] = mapped_column(Text)  # as the adapter's own config says it
    base: Mapped[str | None] = mapped_column(Text, Computed("coalesce(base_id, base_model)", persisted=True))
    method: Mapped[str] = mapped_column(String(40))
    rank: Mapped[int]
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text))
    facts: Mapped[Json] = mapped_column(JSONB)
    task: Mapped[str | None] = mapped_column(Text, Computed("facts ->> 'task_type'", persisted=True))
    licence: Mapped[str | None] = mapped_column(Text, Computed("facts ->> 'licence'", persisted=True))
    parameters: Mapped[int] = mapped_column(BigInteger, Computed(_number("parameters"), persisted=True))
    size_bytes: Mapped[int] = mapped_column(BigInteger, Computed(_number("size_bytes"), persisted=True))
    findings: Mapped[list[Json]] = mapped_column(JSONB)
    # What the job that made it measured on the data held out for that: metric (a share), value, low, high, examples.
    measured: Mapped[Json | None] = mapped_column(JSONB)
    score: Mapped[float] = mapped_column(  # -1 where nothing was measured, as pages by key want no nulls
        Computed("coalesce((measured ->> 'value')::double precision, -1)", persisted=True)
    )
    search: Mapped[str] = mapped_column(Text)  # lower-case name, base, tags and card, for the trigram index
    short: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")  # what shorter words are looked up in
    # Deferred, as lists need it of no module. Null: published before there were sketches; empty: nothing to tell (see sketches.py).
    sketch: Mapped[bytes | None] = mapped_column(deferred=True)
    published_at: Mapped[datetime] = mapped_column(Time)
    __table_args__ = (
        ForeignKeyConstraint(
            ["repo_id", "namespace", "name", "visibility", "deleted"],
            ["repos.id", "repos.namespace", "repos.name", "repos.visibility", "repos.deleted"],
            name="fk_adapter_facts_repo",
            onupdate="CASCADE",
        ),
        # One for each order of a list, and one for each filter in the usual order. Those that repeat what other filters ask for are
        # read without the rows, so that facets can be counted. Migration 0013 says how the rows lie.
        _listed("newest", published_at.desc(), commit_id.desc(), folder.desc(), postgresql_include=_FILTERED),
        _listed("name", "namespace", "name", "folder"),
        _listed("size", size_bytes.desc(), published_at.desc(), commit_id.desc(), folder.desc()),
        _listed("score", score.desc(), published_at.desc(), commit_id.desc(), folder.desc()),
        _listed("base", "base", published_at.desc(), postgresql_include=_besides("base")),
        _listed("method", "method", published_at.desc(), postgresql_include=_besides("method")),
        _listed("task", "task", published_at.desc(), postgresql_include=_besides("task")),
        _listed("rank", "rank", published_at.desc(), postgresql_include=_besides("rank")),
        _listed("owner", "namespace", published_at.desc(), postgresql_include=_besides("namespace")),
        _listed("visibility", "visibility", published_at.desc(), postgresql_include=_besides("visibility")),
        _listed("tags", "tags", postgresql_using="gin"),
        _listed("short", "short", postgresql_using="gin"),
        _listed("search", "search", postgresql_using="gin", postgresql_ops={"search": "gin_trgm_ops"}),
    )


class Lineage(Table):
    __tablename__ = "lineage"
    child: Mapped[str] = mapped_column(ForeignKey("commits.id"), primary_key=True)
    parent: Mapped[str] = mapped_column(ForeignKey("commits.id"), primary_key=True, index=True)
    role: Mapped[str] = mapped_column(String(20), primary_key=True)
    weight: Mapped[float | None]


class Job(Table):
    __tablename__ = "jobs"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"))
    kind: Mapped[str] = mapped_column(String(20))
    queue: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(10), server_default=text("'queued'"))
    params: Mapped[Json] = mapped_column(JSONB)
    owner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"))
    visibility: Mapped[str] = mapped_column(String(10))
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
        CheckConstraint("state in ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="state"),
        Index("ix_jobs_live", "state", "lease_until", postgresql_where=text("state in ('queued', 'running')")),
        Index("ix_jobs_owner", "owner_id", created_at.desc()),
        Index("ix_jobs_namespace", "namespace", "queue", started_at.desc()),  # whose turn it is
    )


class Attempt(Table):
    """One worker's work on a job, from which device-seconds are summed. `last_at` moves with the lease, and stops where the worker dies."""

    __tablename__ = "attempts"
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(20))
    worker: Mapped[str] = mapped_column(Text)
    device: Mapped[str] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    last_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
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
    """A job that has ended, to be told: at most one event a job, written with its end."""

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
    role: Mapped[str] = mapped_column(String(20), primary_key=True)


class JobEvent(Table):
    """One step of a job: the sequence number is given by whoever holds the lease."""

    __tablename__ = "job_events"
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    phase: Mapped[str] = mapped_column(String(40))
    step: Mapped[int]
    total: Mapped[int]
    numbers: Mapped[dict[str, float]] = mapped_column(JSONB)


class Score(Table):
    """A measured figure of one commit on one file of a data set, kept with both commits."""

    __tablename__ = "scores"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"))
    commit_id: Mapped[str | None] = mapped_column(ForeignKey("commits.id"), index=True)  # null: the base alone
    base_id: Mapped[str] = mapped_column(Text)
    dataset_commit: Mapped[str] = mapped_column(ForeignKey("commits.id"), index=True)
    dataset_path: Mapped[str] = mapped_column(Text)
    template: Mapped[str] = mapped_column(String(20))
    metric: Mapped[str] = mapped_column(String(20))
    value: Mapped[float]
    low: Mapped[float]
    high: Mapped[float]
    examples: Mapped[int]
    each: Mapped[list[float] | None] = mapped_column(
        ARRAY(Float), deferred=True
    )  # one value an example, in their order
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"))
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    __table_args__ = (
        # The newest measurement of the same thing replaces the older one.
        UniqueConstraint(
            "commit_id",
            "base_id",
            "dataset_commit",
            "dataset_path",
            "template",
            "metric",
            name="uq_scores_what",
            postgresql_nulls_not_distinct=True,
        ),
    )


class ShareLink(Table):
    """A secret address that shows one commit, to whoever has it, until it expires."""

    __tablename__ = "share_links"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"))
    hash: Mapped[str] = mapped_column(Sha256, unique=True)
    commit_id: Mapped[str] = mapped_column(ForeignKey("commits.id"), index=True)
    made_by: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(Time)


class AuditEvent(Table):
    """Who did what. Rows are only added; names are kept as they were, so that what was deleted later is still told."""

    __tablename__ = "audit_events"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    actor: Mapped[str | None] = mapped_column(Text)  # null: nobody who is signed in
    action: Mapped[str] = mapped_column(String(40))
    namespace: Mapped[str | None] = mapped_column(Text)  # null: of the instance as a whole
    subject: Mapped[str] = mapped_column(Text)
    details: Mapped[Json] = mapped_column(JSONB)
    __table_args__ = (Index("ix_audit_events_namespace", "namespace", "id"),)


class Mark(Table):
    """Something that is done once in an instance's life, such as publishing the starter library."""

    __tablename__ = "marks"
    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    at: Mapped[datetime] = mapped_column(Time, server_default=func.now())


class Secret(Table):
    """A key that every process of an instance shares, drawn when it is first needed."""

    __tablename__ = "secrets"
    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    value: Mapped[bytes]
