"""Cursors of lists: the values after which the next page begins, as text that callers hand back without reading it."""

import base64
import binascii


def encode_cursor(*values: str) -> str:
    return base64.urlsafe_b64encode("\0".join(values).encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> list[str]:
    """Raises ValueError for text that `encode_cursor` did not write."""
    try:
        return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().split("\0")
    except (binascii.Error, UnicodeDecodeError) as error:  # the first is raised for text that is not base64
        raise ValueError(f"{cursor!r} is not a cursor of this hub") from error
