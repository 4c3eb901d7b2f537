"""Count a text's tokens for a base: with its tokenizer if the hub has it, else estimated from the bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sqlalchemy.orm import Session
from tokenizers import Tokenizer

from hub.registry.bases import base_models
from hub.registry.content import repos
from hub.registry.platform.errors import NotFound
from hub.registry.platform.storage import Storage

FILE = "tokenizer.json"
MAX_BYTES = 64 << 20
BYTES_PER_TOKEN = 4  # of English text, roughly


@dataclass(frozen=True)
class Counted:
    tokens: list[int]  # of each text
    exact: bool


def count(session: Session, storage: Storage, base_id: str, texts: Sequence[str]) -> Counted:
    """The number of tokens of each text, without the prompt template."""
    tokenizer = _tokenizer_of(session, storage, base_id)
    if tokenizer is None:
        return Counted([-(-len(text.encode()) // BYTES_PER_TOKEN) for text in texts], exact=False)
    return Counted(
        [len(encoding) for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)], exact=True
    )


def _tokenizer_of(session: Session, storage: Storage, base_id: str) -> Tokenizer | None:
    """The tokenizer from the base's folder, if this machine has it; for the built-in base, from the repo in which the hub serves it."""
    try:
        base = base_models.find(session, base_id)
        if base.path is None:
            commit = repos.resolve(session, repos.find(session, None, "model", base.id))
            entry = repos.file(session, commit, FILE)
            return _from_storage(storage, entry.sha256, entry.size) if entry.size <= MAX_BYTES else None
    except NotFound:
        return None
    path = Path(base.path) / FILE
    return _from_folder(path, path.stat().st_mtime_ns) if path.is_file() else None


@lru_cache(maxsize=4)
def _from_folder(path: Path, changed: int) -> Tokenizer | None:
    return _parsed(path.read_text(encoding="utf-8"))


@lru_cache(maxsize=4)
def _from_storage(storage: Storage, sha256: str, size: int) -> Tokenizer | None:
    return _parsed(storage.read(sha256, 0, size).decode())


def _parsed(text: str) -> Tokenizer | None:
    try:
        return Tokenizer.from_str(text)
    except Exception:  # the library has no class of its own; a file that it cannot read is one that we do not have
        return None
