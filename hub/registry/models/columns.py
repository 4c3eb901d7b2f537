"""Types of columns that several tables use, and the constraint that holds a column to the values of the vocabulary."""

from typing import Any, get_args

from sqlalchemy import CheckConstraint, DateTime, String

Time = DateTime(timezone=True)
Sha1 = String(40)
Sha256 = String(64)
Json = dict[str, Any]


def one_of(column: str, values: Any) -> CheckConstraint:
    """`values`: a `Literal` of hub.vocabulary."""
    listed = ", ".join(f"'{value}'" for value in get_args(values))
    return CheckConstraint(f"{column} in ({listed})", name=column)
