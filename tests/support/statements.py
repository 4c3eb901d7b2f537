"""Which SQL statements a piece of code sends."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from hub.registry.platform.services import Services


@contextmanager
def statements(services: Services) -> Iterator[list[str]]:
    """Those that are sent while the block runs."""
    engine = services.sessions.kw["bind"]
    sent: list[str] = []

    def keep(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", keep)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", keep)
