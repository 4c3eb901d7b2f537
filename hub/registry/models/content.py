"""Tables of repos and what is in them: blobs, trees, commits, refs, aliases, share links."""

import uuid
from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
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
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from hub.registry.models.columns import Json, Sha1, Sha256, Time, one_of
from hub.registry.platform.db import Table
from hub.vocabulary import AliasAction, BlobState, Metric, RefKind, RepoType, Template, Visibility


class Blob(Table):
    """Bytes in S3 under their hash. `receiving` while they travel, `deleting` while they go."""

    __tablename__ = "blobs"
    sha256: Mapped[str] = mapped_column(Sha256, primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    git_oid: Mapped[str | None] = mapped_column(Sha1)  # null while bytes travel that nobody has hashed yet
    state: Mapped[BlobState] = mapped_column(String(10))
    touched_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    __table_args__ = (
        one_of("state", BlobState),
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
    type: Mapped[RepoType] = mapped_column(String(10))
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"))
    name: Mapped[str] = mapped_column(String(96))
    visibility: Mapped[Visibility] = mapped_column(String(10))
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
        one_of("type", RepoType),
        one_of("visibility", Visibility),
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
    kind: Mapped[RefKind] = mapped_column(String(10))
    commit_id: Mapped[str] = mapped_column(ForeignKey("commits.id"), index=True)
    moved_by: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    moved_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    __table_args__ = (one_of("kind", RefKind),)


class AliasGate(Table):
    """The evaluation that a version must not do worse in than the alias's holder before the alias moves to it."""

    __tablename__ = "alias_gates"
    repo_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    metric: Mapped[Metric] = mapped_column(String(20))
    dataset_commit: Mapped[str] = mapped_column(ForeignKey("commits.id"))
    dataset_path: Mapped[str] = mapped_column(Text)
    template: Mapped[Template] = mapped_column(String(20))
    tolerance: Mapped[float]
    __table_args__ = (ForeignKeyConstraint(["repo_id", "name"], ["refs.repo_id", "refs.name"], ondelete="CASCADE"),)


class AliasMove(Table):
    """Who moved an alias where and when, rolled it back, gated it or took it away. Rows are only added."""

    __tablename__ = "alias_moves"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    repo_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("repos.id"))
    name: Mapped[str] = mapped_column(String(255))
    action: Mapped[AliasAction] = mapped_column(String(10))
    commit_id: Mapped[str | None] = mapped_column(ForeignKey("commits.id"))
    moved_by: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    moved_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    gate_result: Mapped[Json | None] = mapped_column("compared", JSONB)  # null: the alias had no gate
    __table_args__ = (
        one_of("action", AliasAction),
        Index("ix_alias_moves_alias", "repo_id", "name", "id"),
    )


class ShareLink(Table):
    """A secret address that shows one commit to anybody who has it, until it expires."""

    __tablename__ = "share_links"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"))
    hash: Mapped[str] = mapped_column(Sha256, unique=True)
    commit_id: Mapped[str] = mapped_column(ForeignKey("commits.id"), index=True)
    made_by: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(Time)
