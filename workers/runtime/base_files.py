"""Bases of the upstream on this machine's disk: downloaded once for all of its workers, checked, and evicted where a limit is set.

A base is the folder of its commit, which appears whole. Whoever uses one holds a shared lock on a file beside it, whoever makes or
removes one an exclusive one; locks end with their process, however it ends.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from io import BufferedWriter
from pathlib import Path

from hub.formats.ranged_file import LocalFile
from hub.formats.safetensors_header import fingerprint
from hub.lora.core.errors import LoraError
from hub.registry.bases import upstream_bases
from hub.registry.jobs.contracts.common import PinnedBase
from hub.registry.platform.upstream_client import File, Upstream
from hub.vocabulary import COMMIT_ID
from workers.runtime.work import Progress

PART = ".part"  # what is on its way; whole files in it stay for the next try
REPORT_SECONDS = 5.0


class BaseCacheFull(LoraError):
    code = "base_cache_full"


class BaseChanged(LoraError):
    code = "base_changed"


class NoUpstream(LoraError):
    code = "no_upstream"


@dataclass
class BaseFiles:
    """One per worker process. Below `limit` bytes, if there is one, as seen when a download begins."""

    root: Path
    limit: int | None
    _held: dict[Path, BufferedWriter] = field(default_factory=dict)

    def get(self, theirs: Upstream, pinned: PinnedBase, progress: Progress, let_go: Callable[[], None]) -> Path:
        """The folder of a pinned base, kept from eviction until `release`.

        `let_go` is called where there is no room: it releases what this process has no need of. Raises BaseCacheFull, BaseChanged,
        NoUpstream, and what the upstream answers.
        """
        place = self.root.resolve() / str(pinned.revision)
        report = _Report(progress)
        with ExitStack() as stack:
            if place not in self._held:
                lock = stack.enter_context(self._lock(place))
                _wait(lock, fcntl.LOCK_SH, report)
                while not place.exists():
                    fcntl.flock(lock, fcntl.LOCK_UN)
                    _wait(lock, fcntl.LOCK_EX, report)
                    if not place.exists():  # another process may have been faster
                        self._download(place, theirs, pinned, report, let_go)
                    _wait(lock, fcntl.LOCK_SH, report)
                self._held[place] = lock
            stack.pop_all()
        os.utime(place)
        return place

    def release(self, keep: Collection[Path]) -> None:
        """Let all but these be evicted, also by other processes."""
        for place in self._held.keys() - set(keep):
            self._held.pop(place).close()

    def _lock(self, place: Path) -> BufferedWriter:
        return place.with_name(f"{place.name}.lock").open("ab")

    def _download(
        self,
        place: Path,
        theirs: Upstream,
        pinned: PinnedBase,
        report: "_Report",
        let_go: Callable[[], None],
    ) -> None:
        if not theirs.url:
            raise NoUpstream(f"{pinned.id} comes from the upstream hub; set UPSTREAM_URL for this worker too.")
        name = pinned.upstream or ""
        report.progress.enter("download")
        part = place.with_name(place.name + PART)
        part.mkdir(exist_ok=True)
        files = upstream_bases.files(theirs, name, pinned.revision or "")
        report.total = sum(file.size for file in files.values())
        self._make_room(part, report.total, let_go)
        for path, file in files.items():
            if not (part / path).exists():
                _fetch(theirs, name, path, file, part / path, report)
            report.done += file.size
        weights = [LocalFile(path) for path in part.glob("*.safetensors")]
        if fingerprint(weights) != pinned.fingerprint:
            shutil.rmtree(part)
            raise BaseChanged(f"The upstream's files of {pinned.id} are not those registered; register it again.")
        part.rename(place)
        report.progress.enter("load")

    def _make_room(self, part: Path, needed: int, let_go: Callable[[], None]) -> None:
        """Evict what was used longest ago and is in nobody's use, until so many bytes fit. Raises BaseCacheFull."""
        free = shutil.disk_usage(self.root).free + _size(part)
        if needed > free:
            raise BaseCacheFull(
                f"The base has {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free on the worker's disk."
            )
        if self.limit is None or self._evict(part, self.limit - needed):
            return
        let_go()
        if not self._evict(part, self.limit - needed):
            raise BaseCacheFull(
                f"The base has {needed / 2**30:.1f} GiB, which do not fit below the worker's limit of {self.limit / 2**30:.1f} GiB beside "
                "the bases in use. Try again later, or ask for a larger limit (BASE_CACHE_BYTES)."
            )

    def _evict(self, but: Path, limit: int) -> bool:
        """Whether no more than `limit` bytes are there now."""
        folders = [each for each in self.root.resolve().iterdir() if COMMIT_ID.fullmatch(each.name.removesuffix(PART))]
        sizes = {each: _size(each) for each in folders if each != but}
        for each in sorted(sizes, key=lambda each: each.stat().st_mtime):
            if sum(sizes.values()) <= limit:
                break
            with self._lock(each.with_name(each.name.removesuffix(PART))) as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # in use
                going = each.with_name(each.name.removesuffix(PART) + PART)
                each.rename(going)  # first, so that half a folder is never seen
                shutil.rmtree(going)
                del sizes[each]
        return sum(sizes.values()) <= limit


@dataclass
class _Report:
    """Tells how far a download is now and then, which also asks whether the job is still wanted."""

    progress: Progress
    total: int = 0
    done: int = 0
    _last: float = field(default_factory=time.monotonic)

    def __call__(self, more: int = 0) -> None:
        if time.monotonic() - self._last > REPORT_SECONDS:
            self._last = time.monotonic()
            self.progress((self.done + more) >> 20, self.total >> 20, {})


def _fetch(theirs: Upstream, name: str, path: str, file: File, target: Path, report: _Report) -> None:
    fresh = target.with_name(f"{path}.fresh")
    seen = 0
    with closing(theirs.stream("model", name, path, file, 0, file.size)) as pieces, fresh.open("wb") as out:
        for piece in pieces:
            seen += out.write(piece)
            report(seen)
    fresh.rename(target)


def _wait(lock: BufferedWriter, kind: int, report: _Report) -> None:
    while True:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.2)
            report()
        else:
            return


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
