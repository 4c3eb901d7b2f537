"""What several forms read alike."""

from datetime import UTC, datetime, timedelta

from hub.registry.platform.errors import InvalidInput


def expiry(days: str) -> datetime | None:
    """From a field in which a number of days may stand. Raises InvalidInput."""
    if not days.strip():
        return None
    if not (days.strip().isdigit() and 0 < int(days) <= 36_500):
        raise InvalidInput(f"{days!r} is no number of days from 1 to 36500; leave it empty for no end.")
    return datetime.now(UTC) + timedelta(days=int(days))
