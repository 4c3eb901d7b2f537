"""Interface between the runner and the kinds of job."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from hub.lora.core import adapter
from hub.lora.core.adapter import Adapter
from hub.lora.core.bases import Base
from hub.lora.core.decompose import Decompose
from hub.lora.core.errors import LoraError
from hub.lora.core.examples import Example, parse_jsonl
from hub.lora.train.loop import CheckpointStore
from hub.registry.content.history import Parent
from hub.registry.datasets.examples import PinnedExamples
from hub.registry.jobs.contracts.common import BaseParams, Params, PinnedBase, PinnedModule, Result
from hub.registry.library.scores import Measurement
from hub.registry.platform.settings import Settings

Parsed = TypeVar("Parsed")
P = TypeVar("P", bound=Params, covariant=True)
BP = TypeVar("BP", bound=BaseParams, covariant=True)
R = TypeVar("R", bound=Result, covariant=True)


class Progress(Protocol):
    """Reports a step; raises when the work must stop."""

    def __call__(self, step: int, total: int, numbers: Mapping[str, float]) -> None: ...

    def enter(self, phase: str) -> None: ...


@dataclass(frozen=True)
class Work(Generic[P]):
    """What a kind reads: its params, a folder to write in, its inputs, and a way to report."""

    job_id: uuid.UUID
    params: P
    out: Path
    fetch: Callable[[str], Path]  # commit id -> its files as a folder
    hashes: Callable[[str], Mapping[str, str]]  # commit id -> path -> SHA-256
    progress: Progress
    place: Callable[[str], CheckpointStore]  # name of a stage -> where it keeps its place between attempts
    decompose: Decompose  # keeps its decompositions on this worker's disk
    folder_of: Callable[[PinnedBase], Path]
    settings: Settings

    def module(self, pinned: PinnedModule) -> Adapter:
        return adapter.read(self.fetch(pinned.commit) / pinned.folder, name=pinned.name)

    def examples(self, pinned: PinnedExamples) -> list[Example]:
        return self.read(pinned, parse_jsonl)

    def read(self, pinned: PinnedExamples, parse: Callable[[str], Parsed]) -> Parsed:
        """What `parse` makes of the text of a pinned file. Errors name the file."""
        text = (self.fetch(pinned.commit) / pinned.path).read_text(encoding="utf-8")
        try:
            return parse(text)
        except LoraError as error:
            error.args = (f"{pinned.repo}, {pinned.path}: {error}",)
            raise


@dataclass(frozen=True)
class BaseWork(Work[BP]):
    """Of a kind that computes with a base, which is loaded."""

    base: Base


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """What a kind returns: figures to keep and, where it wrote files, the folder to publish.

    `adapter` says whether the folder must be one. `scores` are of the published adapter, `other_scores` of the base or of modules.
    """

    result: R
    folder: Path | None = None
    adapter: bool = True
    parents: Sequence[Parent] = ()
    scores: Sequence[Measurement] = ()
    other_scores: Sequence[tuple[str | None, Measurement]] = ()  # (commit id, or None for the base; figure)
    message: str = ""
