"""Tables of the instance itself: its secret keys, and marks of what is done once."""

from datetime import datetime

from sqlalchemy import (
    String,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column

from hub.registry.models.columns import Time
from hub.registry.platform.db import Table


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
