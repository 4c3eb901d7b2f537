"""A commit's tree as Hugging Face clients read it: pages of files and folders, single paths, and the commit that last changed each."""

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import CTE, Text, and_, collate, column, func, literal, select, values
from sqlalchemy.orm import Session

from hub.registry.inspection.archive import UnsafePath
from hub.registry.models.content import Commit, TreeEntry
from hub.registry.platform.errors import FileNotInRepo

# Kinds of file that are large or never read as text: clients send them by LFS or Xet, and name them by their SHA-256.
LFS_ENDINGS = tuple(
    """.safetensors .bin .pt .pth .ckpt .pkl .pickle .gguf .onnx .h5 .msgpack .npy .npz .model .parquet .arrow .zip .gz .tar .tgz
    .bz2 .xz .zst .7z .rar .wasm .tflite .pb .ot .joblib .png .jpg .jpeg .webp .gif .mp3 .mp4 .wav .flac""".split()
)
INLINE_BYTES = 1 << 20  # what is larger is sent by LFS whatever its name
MAX_PATH_BYTES = 1_000
MAX_PART_BYTES = 255


def is_lfs(path: str, size: int) -> bool:
    """Whether clients must treat a file as LFS, which decides its ETag. It depends on path and size alone, so it never changes.

    Clients always send an empty file inline, whatever the hub answers.
    """
    return size > INLINE_BYTES or (size > 0 and path.lower().endswith(LFS_ENDINGS))


def check_path(path: str) -> str:
    """Return a valid path of a file in a tree, in any script. Raises UnsafePath for paths that some system cannot write safely."""
    try:
        parts = [part.encode() for part in path.split("/")]
    except UnicodeEncodeError:
        raise UnsafePath(f"The path {path!a} is not valid Unicode; rename the file.") from None
    if sum(map(len, parts)) + len(parts) > MAX_PATH_BYTES or max(map(len, parts)) > MAX_PART_BYTES:
        raise UnsafePath(
            f"The path {path[:100]!a}... is longer than {MAX_PATH_BYTES} bytes, or a part of it than {MAX_PART_BYTES}."
        )
    if "\\" in path or any(unicodedata.category(char) == "Cc" for char in path):
        raise UnsafePath(f"The path {path!a} holds a backslash or a control character; rename the file.")
    if any(part in (b"", b".", b"..") or part.lower() == b".git" for part in parts):
        raise UnsafePath(f"The path {path!a} must be relative, and no part of it may be empty, '.', '..' or '.git'.")
    return path


@dataclass(frozen=True)
class Item:
    """A file, or a folder, which has an identity of its own and no entry."""

    path: str
    oid: str  # 40 hex digits
    entry: TreeEntry | None = None


def folder_item(commit: Commit, path: str) -> Item:
    return Item(path, hashlib.sha1(f"{commit.tree}/{path}".encode(), usedforsecurity=False).hexdigest())


def _file_item(entry: TreeEntry) -> Item:
    return Item(entry.path, entry.git_oid, entry)


# Bytewise, whatever the database's own order: then the files of a folder stand together.
PATH = collate(TreeEntry.path, "C")


def recursive(
    session: Session, commit: Commit, folder: str, *, after: str | None, limit: int
) -> tuple[list[Item], str | None]:
    """A page of all files below a folder, each folder before its first file; and the path after which the next page begins."""
    query = select(TreeEntry).where(TreeEntry.tree == commit.tree).order_by(PATH).limit(limit + 1)
    if folder:
        query = query.where(func.starts_with(TreeEntry.path, f"{folder}/"))
    if after:
        query = query.where(after < PATH)
    entries = session.scalars(query).all()
    if not entries and folder and not after:
        raise _no_folder(commit, folder)
    items: list[Item] = []
    before = set(_folders(after, folder)) if after else set()
    for entry in entries[:limit]:
        above = list(_folders(entry.path, folder))
        items += [folder_item(commit, path) for path in above if path not in before]
        items.append(_file_item(entry))
        before = set(above)
    return items, entries[limit - 1].path if len(entries) > limit else None


def _folders(path: str, below: str) -> Iterator[str]:
    """The folders that a file is in, outermost first, below the one that is listed."""
    end = path.find("/", len(below) + 1 if below else 0)
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)


def children(
    session: Session, commit: Commit, folder: str, *, after: str | None, limit: int
) -> tuple[list[Item], str | None]:
    """A page of the files and folders directly in a folder, grouped by the database; and the path after which the next page begins."""
    prefix = f"{folder}/" if folder else ""
    rest = func.substr(TreeEntry.path, len(prefix) + 1)
    first = func.split_part(rest, "/", 1)
    name = collate(first, "C")
    query = select(first, func.bool_or(first != rest)).where(
        TreeEntry.tree == commit.tree, func.starts_with(TreeEntry.path, prefix)
    )
    if after:
        query = query.where(name > after.removeprefix(prefix))
    rows = [
        (prefix + child, is_folder)
        for child, is_folder in session.execute(query.group_by(first).order_by(name).limit(limit + 1))
    ]
    if not rows and folder and not after:
        raise _no_folder(commit, folder)
    files = {entry.path: entry for entry in find(session, commit, [path for path, is_folder in rows if not is_folder])}
    items = [_file_item(files[path]) if path in files else folder_item(commit, path) for path, _ in rows[:limit]]
    return items, rows[limit - 1][0] if len(rows) > limit else None


def _no_folder(commit: Commit, folder: str) -> FileNotInRepo:
    return FileNotInRepo(f"There is no folder {folder!r} in commit {commit.id[:12]}.", commit=commit.id)


def find(session: Session, commit: Commit, paths: Sequence[str]) -> Sequence[TreeEntry]:
    return session.scalars(
        select(TreeEntry).where(TreeEntry.tree == commit.tree, TreeEntry.path.in_(paths)).order_by(PATH)
    ).all()


def paths_info(session: Session, commit: Commit, paths: Sequence[str]) -> list[Item]:
    """The file or folder at each path, in the order requested. Missing paths are left out."""
    requested = list(dict.fromkeys(path.strip("/") for path in paths))
    files = {entry.path: entry for entry in find(session, commit, requested)}
    items: list[Item] = []
    for path in requested:
        if path in files:
            items.append(_file_item(files[path]))
        elif path and session.scalar(
            select(TreeEntry.path)
            .where(TreeEntry.tree == commit.tree, func.starts_with(TreeEntry.path, f"{path}/"))
            .limit(1)
        ):
            items.append(folder_item(commit, path))
    return items


def ancestry(commit_id: str, limit: int | None = None) -> CTE:
    """The commit and its ancestors on the branch, with their distance (`depth`)."""
    first = select(Commit.id, Commit.parent, Commit.tree, literal(0).label("depth")).where(Commit.id == commit_id)
    chain = first.cte("chain", recursive=True)
    more = and_(Commit.id == chain.c.parent, chain.c.depth + 1 < limit) if limit else Commit.id == chain.c.parent
    return chain.union_all(select(Commit.id, Commit.parent, Commit.tree, chain.c.depth + 1).join(chain, more))


def last_changes(session: Session, commit: Commit, entries: Sequence[TreeEntry]) -> Mapping[str, Commit]:
    """For each file the commit that gave it its present bytes."""
    if not entries:
        return {}
    chain = ancestry(commit.id)
    files = values(column("path", Text), column("sha256", Text), name="asked").data(
        [(entry.path, entry.sha256) for entry in entries]
    )
    other = (
        select(files.c.path, func.min(chain.c.depth).label("depth"))
        .select_from(chain.join(files, literal(True)))
        .outerjoin(TreeEntry, and_(TreeEntry.tree == chain.c.tree, TreeEntry.path == files.c.path))
        .where(TreeEntry.sha256.is_distinct_from(files.c.sha256))
        .group_by(files.c.path)
    )
    since = {path: depth - 1 for path, depth in session.execute(other)}
    rows = session.execute(select(chain.c.depth, Commit).join(Commit, Commit.id == chain.c.id))
    by_depth: dict[int, Commit] = dict(iter(rows))
    first = max(by_depth)
    return {entry.path: by_depth[since.get(entry.path, first)] for entry in entries}


def history(session: Session, commit: Commit, limit: int) -> Sequence[Commit]:
    """The commit and its ancestors, newest first."""
    chain = ancestry(commit.id, limit)
    return session.scalars(select(Commit).join(chain, chain.c.id == Commit.id).order_by(chain.c.depth)).all()


def totals(session: Session, commit: Commit) -> tuple[int, int]:
    """How many files a commit has, and their bytes."""
    count, size = session.execute(
        select(func.count(), func.coalesce(func.sum(TreeEntry.size), 0)).where(TreeEntry.tree == commit.tree)
    ).one()
    return count, int(size)
