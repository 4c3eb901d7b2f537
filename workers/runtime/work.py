"""What the runner and the kinds of job hand each other."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from hub.lora.core import adapter
from hub.lora.core.adapter import Adapter
from hub.lora.core.bases import Base
from hub.lora.core.decompose import Decompose
from hub.lora.core.errors import LoraError
from hub.lora.core.examples import Example, parse_jsonl
from hub.lora.train.loop import CheckpointStore
from hub.registry.content.history import Parent
from hub.registry.platform.settings import Settings

Parsed = TypeVar("Parsed")


class Progress(Protocol):
    """Reports a step; raises when the work must stop."""

    def __call__(self, step: int, total: int, numbers: Mapping[str, float]) -> None: ...

    def enter(self, phase: str) -> None: ...


@dataclass(frozen=True)
class Work:
    """What a kind is given: its parameters, the base, a folder to write in, its inputs, and a way to report."""

    job_id: uuid.UUID
    params: Mapping[str, Any]
    base: Base  # None for a kind that pins none
    out: Path
    fetch: Callable[[str], Path]  # commit id -> its files as a folder
    hashes: Callable[[str], Mapping[str, str]]  # commit id -> path -> SHA-256
    progress: Progress
    place: Callable[[str], CheckpointStore]  # name of a stage -> where it keeps its place between attempts
    decompose: Decompose  # keeps what it found on this worker's disk
    folder_of: Callable[[Mapping[str, Any]], Path]  # a pinned base -> its folder
    settings: Settings

    def module(self, pinned: Mapping[str, Any]) -> Adapter:
        """A pinned module, named so that two versions of one repo stay apart."""
        folder = self.fetch(pinned["commit"]) / pinned["folder"]
        return adapter.read(folder, name=module_name(pinned))

    def examples(self, pinned: Mapping[str, Any]) -> list[Example]:
        return self.read(pinned, parse_jsonl)

    def read(self, pinned: Mapping[str, Any], parse: Callable[[str], Parsed]) -> Parsed:
        """What `parse` makes of the text of a pinned file. Errors say which file they are about."""
        text = (self.fetch(pinned["commit"]) / pinned["path"]).read_text(encoding="utf-8")
        try:
            return parse(text)
        except LoraError as error:
            error.args = (f"{pinned['repo']}, {pinned['path']}: {error}",)
            raise


@dataclass(frozen=True)
class Outcome:
    """What a kind hands back: figures to keep and, where it made an adapter, the folder to publish.

    `adapter` says whether the folder must be one. A score that names no `commit_id` is one of that adapter.
    """

    result: Mapping[str, Any]
    folder: Path | None = None
    adapter: bool = True
    parents: Sequence[Parent] = ()
    scores: Sequence[Mapping[str, Any]] = ()
    message: str = ""


def module_name(pinned: Mapping[str, Any]) -> str:
    folder = f"/{pinned['folder']}" if pinned["folder"] else ""
    return f"{pinned['repo']}{folder}@{pinned['commit'][:8]}"
