"""Preview data sets: their first examples and their number, reading at most a few megabytes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from hub.registry.models.content import TreeEntry
from hub.registry.platform.storage import Storage

LOOKED_AT_BYTES = 4_000_000


@dataclass(frozen=True)
class Look:
    """The first examples of a file. `count`: how many lines there are, or None if the file is too long to count."""

    path: str
    size: int
    columns: Sequence[str]
    rows: Sequence[dict[str, object]]
    count: int | None
    unreadable: int | None  # the first line that is not a JSON object, from 1


def look(storage: Storage, entry: TreeEntry, *, rows: int = 20) -> Look:
    data = storage.read(entry.sha256, 0, min(entry.size, LOOKED_AT_BYTES))
    whole = len(data) == entry.size
    lines = data.split(b"\n")
    if not whole:
        del lines[-1]  # cut somewhere
    examples: list[dict[str, object]] = []
    unreadable = None
    for number, line in enumerate(lines, 1):
        if len(examples) == rows:
            break
        if not line.strip():
            continue
        row = _object(line)
        if row is None:
            unreadable = number
            break
        examples.append(row)
    columns = list(dict.fromkeys(key for row in examples for key in row))
    count = sum(1 for line in lines if line.strip()) if whole else None
    return Look(entry.path, entry.size, columns, examples, count, unreadable)


def _object(line: bytes) -> dict[str, object] | None:
    try:
        row = json.loads(line)
    except ValueError:  # of the text or of its encoding
        return None
    return row if isinstance(row, dict) else None
