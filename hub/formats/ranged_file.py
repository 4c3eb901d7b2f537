"""Files that can be read in pieces."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class RangedFile(Protocol):
    """Bytes that can be read in pieces: a file on disk, or an object in a store."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


@dataclass(frozen=True)
class LocalFile:
    """A file on disk."""

    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def read(self, offset: int, length: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)
