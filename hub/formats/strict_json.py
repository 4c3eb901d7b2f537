"""JSON from a stranger's file, read strictly."""

import json
from collections import Counter
from typing import Any, NoReturn

from hub.formats.errors import FormatError, printable


def load_json(data: bytes, what: str, code: str) -> dict[str, object]:
    """Parse a JSON object; NaN and duplicate keys are refused. Raises FormatError with this code, or duplicate_key."""
    try:
        parsed = json.loads(data.decode(), object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant)
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise FormatError(code, f"{what} is not JSON ({error})") from error
    if not isinstance(parsed, dict):
        raise FormatError(code, f"{what} holds no JSON object")
    return parsed


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, object]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise FormatError("duplicate_key", f"The name {printable(name)} occurs twice")
    return mapping


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
