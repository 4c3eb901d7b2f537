"""Tables of the instance itself: its secret keys, and its one-time initialisation flags."""

from datetime import datetime

from sqlalchemy import (
    String,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column

from hub.registry.models.columns import Time
from hub.registry.platform.db import Table


class Mark(Table):
    """A one-time initialisation flag. The row "seeded" says that the starter library has been published."""

    __tablename__ = "marks"
    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    at: Mapped[datetime] = mapped_column(Time, server_default=func.now())


class Secret(Table):
    """A key that every process of an instance shares, drawn when it is first needed."""

    __tablename__ = "secrets"
    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    value: Mapped[bytes]
