"""Inputs of jobs on the worker's own disk, by hash: fetched once, checked, shared by all jobs."""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hub.registry.models.content import TreeEntry
from hub.registry.platform.storage import Storage


class CorruptBytes(Exception):
    """What storage sent does not have the hash that names it."""


class Cache:
    def __init__(self, folder: Path, storage: Storage) -> None:
        self.blobs = folder / "blobs"
        self.trees = folder / "trees"
        self.bases = folder / "bases"
        self.decompositions = folder / "decompositions"
        self._storage = storage
        for path in (self.blobs, self.trees, self.bases):
            path.mkdir(parents=True, exist_ok=True)

    def folder(self, tree: str, entries: Sequence[TreeEntry]) -> Path:
        """A commit's files as a folder. Made beside its place and moved there whole, so that half a folder is never seen."""
        place = self.trees / tree
        if place.exists():
            return place
        with tempfile.TemporaryDirectory(dir=self.trees) as name:
            fresh = Path(name) / "tree"
            fresh.mkdir()
            for entry in entries:
                link = fresh / entry.path
                link.parent.mkdir(parents=True, exist_ok=True)
                os.link(self.fetch(entry), link)
            try:
                fresh.rename(place)
            except OSError:
                if not place.exists():  # another worker was faster, which is just as good
                    raise
        return place

    def fetch(self, entry: TreeEntry) -> Path:
        place = self.blobs / entry.sha256
        if place.exists():
            return place
        digest = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=self.blobs, delete=False) as file:
            for chunk in self._storage.stream(entry.sha256, 0, entry.size):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != entry.sha256:
            Path(file.name).unlink()
            raise CorruptBytes(f"Storage sent other bytes than {entry.sha256} for {entry.path}.")
        Path(file.name).replace(place)
        return place
