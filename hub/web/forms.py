"""Forms of pages: send one, and show the page again with the problem beside the form where it is refused."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from fastapi import Response
from sqlalchemy.orm import Session

from hub.registry.platform.errors import HubError, InvalidInput


@dataclass(frozen=True)
class RefusedForm:
    """The form of a page that was refused, with what was typed in it; by default none was."""

    name: str = ""
    problem: str = ""
    typed: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    error: HubError | None = None

    @property
    def status(self) -> int:
        return self.error.status if self.error else 200

    def problem_of(self, name: str) -> str:
        """Why this form was refused; empty where another one was, or none."""
        return self.problem if name == self.name else ""

    def value(self, name: str, input_name: str, default: str | Sequence[str] = "") -> str | Sequence[str]:
        """What was typed in one input of this form, or else the default."""
        return self.typed.get(input_name, default) if name == self.name else default


NO_FORM = RefusedForm()


def run_form(
    change: Callable[[], Response],
    show_again: Callable[[RefusedForm], Response],
    *,
    name: str,
    typed: Mapping[str, str | Sequence[str]] | None = None,
    session: Session | None = None,
) -> Response:
    """Run what a form asks for, and answer what `change` returns: a redirect, or a page that shows a secret once.

    On a HubError, undo what was written in the `session` and show the page again with the problem and what was `typed`. The route has
    checked before whether the viewer may see that page.
    """
    try:
        if session is None:
            return change()
        with session.begin_nested():
            return change()
    except HubError as error:
        return show_again(RefusedForm(name, error.message, typed or {}, error))


def expiry(days: str) -> datetime | None:
    """When something ends, from a field with a number of days or nothing in it. Raises InvalidInput."""
    if not days.strip():
        return None
    if not (days.strip().isdigit() and 0 < int(days) <= 36_500):
        raise InvalidInput(f"{days!r} is not a number of days from 1 to 36500; leave it empty for no end.")
    return datetime.now(UTC) + timedelta(days=int(days))
