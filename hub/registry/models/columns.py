"""Types of columns that several tables use."""

from typing import Any, Literal

from sqlalchemy import (
    DateTime,
    String,
)

Time = DateTime(timezone=True)
Sha1 = String(40)
Sha256 = String(64)
Json = dict[str, Any]
Role = Literal["read", "write", "admin"]
