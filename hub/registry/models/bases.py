"""Tables of base models and their names."""

from datetime import datetime

from sqlalchemy import (
    ForeignKey,
    String,
    Text,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from hub.registry.models.columns import Json, Sha256, Time
from hub.registry.platform.db import Table
from hub.vocabulary import Dtype


class RegisteredBase(Table):
    """A base that workers can load: the built-in one, a folder on the workers' machines, or one of the upstream hub."""

    __tablename__ = "base_models"
    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    # Both null: the built-in base, which each worker converts for itself.
    path: Mapped[str | None] = mapped_column(Text)
    upstream: Mapped[str | None] = mapped_column(String(200))  # a repo of the upstream hub; `revision` is its commit
    token: Mapped[bytes | None] = mapped_column(deferred=True)  # shown to the upstream for this base alone; sealed
    revision: Mapped[str | None] = mapped_column(String(200))
    dtype: Mapped[Dtype] = mapped_column(String(20))  # to load it in; "auto": as the device computes best
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
