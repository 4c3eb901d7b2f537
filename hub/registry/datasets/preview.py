"""Preview examples before use: how many there are, their length in tokens, and the problems by line."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from hub.registry.access.viewer import Viewer
from hub.registry.content import repos
from hub.registry.datasets import parse_examples, token_counts
from hub.registry.datasets.examples import Examples, ExampleText, pin_examples
from hub.registry.datasets.parse_examples import Problem
from hub.registry.models.content import Commit, TreeEntry
from hub.registry.platform.errors import HubError
from hub.registry.platform.storage import Storage

ROWS = 8  # shown
MAX_BYTES = 8 << 20  # read of a data set's file


@dataclass(frozen=True)
class PreviewRow:
    line: int
    example: ExampleText
    tokens: int


@dataclass(frozen=True)
class Preview:
    """`tokens` counts inputs and targets together, without the prompt template. `part`: only the beginning of the file was read."""

    format: str
    count: int
    rows: Sequence[PreviewRow]
    problems: Sequence[Problem]
    tokens: int
    longest: int
    exact: bool
    size: int  # of all of it, in bytes
    part: bool = False
    systems: tuple[int, int, int] = (0, 0, 0)  # System 1, System 2, unlabelled


def of_text(session: Session, storage: Storage, base_id: str, text: str, *, size: int | None = None) -> Preview:
    """The preview of a text. `size`: bytes of the whole file, if the text is only its beginning."""
    parsed = parse_examples.parse(text)
    counted = token_counts.count(
        session, storage, base_id, [f"{example.input}\n{example.target}" for example in parsed.examples]
    )
    rows = zip(parsed.lines, parsed.examples, counted.tokens, strict=True)
    systems = [example.system for example in parsed.examples]
    return Preview(
        format=parsed.format,
        count=len(parsed.examples),
        rows=[PreviewRow(*row) for row, _ in zip(rows, range(ROWS), strict=False)],
        problems=parsed.problems,
        tokens=sum(counted.tokens),
        longest=max(counted.tokens, default=0),
        exact=counted.exact,
        size=size or len(text.encode()),
        part=size is not None,
        systems=(systems.count(1), systems.count(2), systems.count(None)),
    )


def of_dataset(session: Session, storage: Storage, viewer: Viewer, base_id: str, source: Examples) -> Preview:
    """The preview of a file that the viewer may read. Raises the errors of `pin_examples`."""
    entry = _entry(session, viewer, source)
    text = storage.read(entry.sha256, 0, min(entry.size, MAX_BYTES)).decode(errors="replace")
    if entry.size <= MAX_BYTES:
        return of_text(session, storage, base_id, text)
    return of_text(session, storage, base_id, text.rpartition("\n")[0], size=entry.size)


def size_of(session: Session, viewer: Viewer, source: Examples) -> int:
    """The size in bytes; 0 if it is not known yet."""
    try:
        return _entry(session, viewer, source).size
    except HubError:
        return 0


def _entry(session: Session, viewer: Viewer, source: Examples) -> TreeEntry:
    pinned = pin_examples(session, viewer, source)
    return repos.file(session, session.get_one(Commit, pinned.commit), pinned.path)


def files(session: Session, viewer: Viewer, name: str) -> list[str]:
    """The files of examples in a data set."""
    repo = repos.find(session, viewer, "dataset", name)
    return [entry.path for entry in repos.files(session, repos.resolve(session, repo)) if entry.path.endswith(".jsonl")]
