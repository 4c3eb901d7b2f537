"""Tables about adapters: the facts that inspection read, lineage, and measured scores."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Computed,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    String,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from hub.registry.models.columns import Json, Time
from hub.registry.platform.db import Table
from hub.vocabulary import InputRole, Metric, Template, Visibility


def _number(fact: str) -> str:
    return f"coalesce((facts ->> '{fact}')::bigint, 0)"


_FILTERED = ["base", "method", "task", "rank", "namespace", "name", "visibility"]


def _besides(column: str) -> list[str]:
    return [name for name in _FILTERED if name != column]


def _listed(name: str, *columns: Any, **options: Any) -> Index:
    """An index of the adapters that lists show."""
    return Index(f"ix_adapter_facts_by_{name}", *columns, postgresql_where=text("current and not deleted"), **options)


class AdapterFacts(Table):
    """What inspection read in one folder of one commit. `current`: the head of main, which lists and searches show."""

    __tablename__ = "adapter_facts"
    commit_id: Mapped[str] = mapped_column(ForeignKey("commits.id"), primary_key=True)
    folder: Mapped[str] = mapped_column(Text, primary_key=True)
    repo_id: Mapped[uuid.UUID] = mapped_column(index=True)
    # Copies of the repo's columns, so that one index finds what a viewer may see without joining repos.
    namespace: Mapped[str] = mapped_column(String(96))
    name: Mapped[str] = mapped_column(String(96))
    visibility: Mapped[Visibility] = mapped_column(String(10))
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
        # The foreign key keeps the copies true: ON UPDATE CASCADE makes PostgreSQL rewrite them in the same statement that renames the
        # repo, changes its visibility or deletes it. So no code has to remember to, and no reader ever sees an adapter under the old rules.
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
    role: Mapped[InputRole] = mapped_column(String(20), primary_key=True)
    weight: Mapped[float | None]


class Score(Table):
    """A measured figure of one commit on one file of a data set, kept with both commits."""

    __tablename__ = "scores"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"))
    commit_id: Mapped[str | None] = mapped_column(ForeignKey("commits.id"), index=True)  # null: the base alone
    base_id: Mapped[str] = mapped_column(Text)
    dataset_commit: Mapped[str] = mapped_column(ForeignKey("commits.id"), index=True)
    dataset_path: Mapped[str] = mapped_column(Text)
    template: Mapped[Template] = mapped_column(String(20))
    metric: Mapped[Metric] = mapped_column(String(20))
    value: Mapped[float]
    low: Mapped[float]
    high: Mapped[float]
    examples: Mapped[int]
    per_example: Mapped[list[float] | None] = mapped_column("each", ARRAY(Float), deferred=True)  # in their order
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
