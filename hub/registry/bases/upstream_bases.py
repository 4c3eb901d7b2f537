"""Bases of the upstream hub: which files of a repo belong to one, and its description by ranged reads, without downloading weights."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter, ValidationError

from hub.registry.bases import base_folder
from hub.registry.bases.base_folder import BadBase, BaseFolder
from hub.registry.inspection.model_card import CardError, parse_card
from hub.registry.platform.errors import Unavailable
from hub.registry.platform.upstream_client import MAX_SMALL_BYTES, File, Upstream
from hub.vocabulary import COMMIT_ID

CONFIG, WEIGHTS, INDEX, CARD = "config.json", "model.safetensors", "model.safetensors.index.json", "README.md"
SUFFIXES = (".json", ".jinja", ".model", ".txt")  # configs and tokenizers; neither pickles nor code is ever fetched
READERS = 16  # tensors whose first bytes are asked for at the same time
BEGINNING = 256 << 10  # of each file of weights comes in one piece, which holds the header of nearly all


@dataclass(frozen=True)
class UpstreamBase:
    commit: str
    licence: str | None  # as its card names it
    read: BaseFolder


class _Stored(BaseModel):
    oid: str


class _Entry(BaseModel):
    """An entry in the upstream's list of files. `lfs` has the SHA-256 of a large file; `oid` is git's id."""

    type: str
    path: str
    size: int = 0
    oid: str = ""
    lfs: _Stored | None = None


_ENTRIES = TypeAdapter(list[_Entry])


@dataclass(frozen=True)
class _Remote:
    """A file of the upstream, read by ranges."""

    upstream: Upstream
    name: str
    path: str
    file: File

    @property
    def size(self) -> int:
        return self.file.size

    @cached_property
    def beginning(self) -> bytes:
        return self._piece(0, min(BEGINNING, self.size))

    def read(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size)
        return self.beginning[offset:end] if end <= len(self.beginning) else self._piece(offset, end)

    def _piece(self, start: int, end: int) -> bytes:
        data = bytearray()
        with closing(self.upstream.stream("model", self.name, self.path, self.file, start, end)) as pieces:
            for piece in pieces:
                data += piece
                if len(data) > end - start:
                    break
        if len(data) != end - start:
            raise Unavailable("The upstream hub sent more or less of a file than was asked for; try again later.")
        return bytes(data)


def read(upstream: Upstream, name: str, revision: str, token: str | None) -> UpstreamBase:
    """Pin a revision, and describe its base. Raises BadBase, RepoNotFound, RevisionNotFound, Unavailable."""
    if not upstream.url:
        raise BadBase("This hub has no upstream to take a base from: set UPSTREAM_URL, or register a folder.")
    with closing(upstream.with_token(token)) as theirs, ThreadPoolExecutor(READERS) as pool:
        commit = _pinned(theirs, name, revision)
        base_files = files(theirs, name, commit)
        weights = {
            f"{path} of {name}": _Remote(theirs, name, path, file)
            for path, file in base_files.items()
            if path.endswith(".safetensors")
        }
        list(pool.map(lambda remote: remote.beginning, weights.values()))
        config = _small(theirs, name, CONFIG, base_files)
        return UpstreamBase(
            commit,
            _licence(_small(theirs, name, CARD, base_files)),
            base_folder.describe(name, config, weights, pool),
        )


def files(theirs: Upstream, name: str, commit: str) -> dict[str, File]:
    """A base's files at a commit: config, tokenizer, card, and the weights that transformers would load. Raises BadBase."""
    listed = _listed(theirs, name, commit)
    if CONFIG not in listed or not {WEIGHTS, INDEX} & listed.keys():
        raise BadBase(
            f"{name} is not a base model here: it needs {CONFIG} and {WEIGHTS}, or {INDEX} and what it names."
        )
    theirs.file(
        "model", name, commit, CONFIG
    )  # fails with the reason if the repo is gated and this token may not read it
    weights = {WEIGHTS} if WEIGHTS in listed else _shards(_small(theirs, name, INDEX, listed))
    if missing := weights - listed.keys():
        raise BadBase(f"{INDEX} of {name} names {len(missing)} files that are not there, {min(missing)!r} first.")
    needed = {path for path in listed if path.endswith(SUFFIXES)} | {CARD} | weights
    return {path: file for path, file in listed.items() if path in needed}


def _pinned(theirs: Upstream, name: str, revision: str) -> str:
    revision_info = json.loads(theirs.ask(f"/api/models/{name}/revision/{quote(revision, safe='')}", "").text)
    commit = revision_info.get("sha") if isinstance(revision_info, dict) else None
    if not isinstance(commit, str) or not COMMIT_ID.fullmatch(commit):
        raise Unavailable(f"The upstream hub does not say which commit {revision!r} of {name} is; try again later.")
    return commit


def _listed(theirs: Upstream, name: str, commit: str) -> dict[str, File]:
    """The files at the root of a repo. Files in folders are other formats of the same model, or other models."""
    files_by_path = {}
    following: str | None = f"/api/models/{name}/tree/{commit}"
    while following:
        path, _, query = following.partition("?")
        answer = theirs.ask(path, query)
        try:
            entries = _ENTRIES.validate_json(answer.text)
        except ValidationError:
            raise Unavailable(f"The upstream hub's list of {name}'s files cannot be read; try again later.") from None
        for entry in entries:
            if entry.type == "file" and "/" not in entry.path:
                files_by_path[entry.path] = File(commit, entry.lfs.oid if entry.lfs else entry.oid, entry.size)
        following = answer.following
    return files_by_path


def _shards(index: bytes) -> set[str]:
    try:
        named = json.loads(index)["weight_map"].values()
        shards = {str(path) for path in named}
    except (ValueError, LookupError, AttributeError, TypeError):
        raise BadBase(f"{INDEX} does not map weights to files.") from None
    if not all(path.endswith(".safetensors") for path in shards):
        raise BadBase(f"{INDEX} names files that are not safetensors.")
    return shards


def _small(theirs: Upstream, name: str, path: str, listed: Mapping[str, File]) -> bytes:
    """The content of a whole file, checked; empty if there is no such file."""
    file = listed.get(path, File("", "", 0))
    if file.size > MAX_SMALL_BYTES:
        raise BadBase(f"{path} of {name} has {file.size:,} bytes, and no more than {MAX_SMALL_BYTES:,} are read.")
    with closing(theirs.stream("model", name, path, file, 0, file.size)) as pieces:
        return b"".join(pieces)


def _licence(card: bytes) -> str | None:
    try:
        return (parse_card(card).licence or "")[:100] or None
    except CardError:
        return None
