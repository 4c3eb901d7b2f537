"""Commits as clients describe them, by their changes. The resulting tree is inspected and handed to `history.publish`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.registry.access.viewer import Viewer
from hub.registry.bases import base_models
from hub.registry.content import blobs, history, refs, repos
from hub.registry.content.blobs import Incoming
from hub.registry.content.history import BytesMissing, Entry, HeadMoved
from hub.registry.content.repos import StoredFile
from hub.registry.content.trees import check_path
from hub.registry.inspection.findings import BROKEN, Finding
from hub.registry.inspection.inspect import BadAdapter, Inspection, inspect
from hub.registry.models.content import Blob, Commit, Ref, Repo, TreeEntry
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import FileNotInRepo, InvalidInput, RevisionNotFound
from hub.registry.platform.services import Services
from hub.registry.platform.streams import WrongBytes
from hub.vocabulary import RepoType

ATTEMPTS = (
    5  # how often a commit is made anew on a head that others moved, where the client does not insist on its parent
)


@dataclass(frozen=True)
class Inline:
    """A file that came with the request; its bytes are stored before the commit is made."""

    entry: Entry


@dataclass(frozen=True)
class Stored:
    """A file whose bytes the namespace holds already."""

    path: str
    sha256: str
    size: int | None = None  # where the client says it


@dataclass(frozen=True)
class Copied:
    path: str
    source: str
    revision: str | None = None  # None: the head that is changed


@dataclass(frozen=True)
class Deleted:
    path: str


@dataclass(frozen=True)
class DeletedFolder:
    path: str  # "" for everything


Change = Inline | Stored | Copied | Deleted | DeletedFolder


@dataclass(frozen=True)
class Request:
    message: str
    changes: Sequence[Change]
    parent: str | None  # the client's idea of the head: a commit id, or the beginning of one


@dataclass(frozen=True)
class Committed:
    commit: Commit
    findings: tuple[Finding, ...]


def commit(
    services: Services,
    viewer: Viewer,
    repo_type: RepoType,
    full_name: str,
    branch: str,
    request: Request,
    inline: Iterable[Incoming],
) -> Committed:
    """Make a commit on a branch. All of the request is checked before any of its bytes is stored.

    Raises RevisionNotFound, HeadMoved, BytesMissing, WrongBytes, FileNotInRepo, UnsafePath, and BadAdapter for what is certainly broken.
    """
    stored = False
    for attempt in range(ATTEMPTS):
        with transaction(services.sessions) as session:
            repo = refs.writable(session, viewer, repo_type, full_name).repo
            head = _head(session, repo, branch, request.parent)
            entries = _changed(session, repo, head, request.changes)
            known = base_models.known(session)
        if not stored:
            blobs.store(services.sessions, services.storage, repo.namespace, list(inline))
            stored = True
        inspection = None
        if repo_type == "model":
            inspection = inspect({e.path: StoredFile(services.storage, e.sha256, e.size) for e in entries}, known)
            _refuse_broken(inspection)
        try:
            with transaction(services.sessions) as session:
                published = history.publish(
                    session,
                    refs.writable(session, viewer, repo_type, full_name).repo,
                    entries,
                    author_id=viewer.id,
                    message=request.message,
                    inspection=inspection,
                    branch=branch,
                    onto=head.id,
                )
        except HeadMoved:
            if request.parent is not None or attempt == ATTEMPTS - 1:
                raise
        else:
            return Committed(published, inspection.findings if inspection else ())
    raise AssertionError("the last attempt returns or raises")


def _head(session: Session, repo: Repo, branch: str, parent: str | None) -> Commit:
    head = session.scalar(
        select(Commit)
        .join(Ref, Ref.commit_id == Commit.id)
        .where(Ref.repo_id == repo.id, Ref.name == branch, Ref.kind == "branch")
    )
    if head is None:
        raise RevisionNotFound(f"{repo.full_name} has no branch {branch!r} to commit to; create it first.")
    if parent is not None and not head.id.startswith(parent.lower()):
        raise HeadMoved(
            f"{branch!r} of {repo.full_name} is at {head.id[:12]}, not at the parent {parent[:12]}: "
            "somebody committed meanwhile; fetch it and try again."
        )
    return head


def _changed(session: Session, repo: Repo, head: Commit, changes: Sequence[Change]) -> list[Entry]:
    """The tree after the changes, deletions first as on the Hub: a file both deleted and added is there."""
    before = {entry.path: _entry(entry) for entry in repos.files(session, head)}
    after = dict(before)
    for change in changes:
        if isinstance(change, Deleted | DeletedFolder):
            _delete(after, change, before)
    held = _held(session, repo, [change for change in changes if isinstance(change, Stored)])
    for change in changes:
        if isinstance(change, Inline):
            after[change.entry.path] = change.entry
        elif isinstance(change, Stored):
            after[change.path] = _from_blob(change, held, repo.namespace)
        elif isinstance(change, Copied):
            source = before.get(change.source)
            if change.revision is not None:
                source = _entry(repos.file(session, repos.resolve(session, repo, change.revision), change.source))
            if source is None:
                raise FileNotInRepo(f"There is no file {change.source!r} to copy.", commit=head.id)
            after[change.path] = Entry(change.path, source.sha256, source.size, source.git_oid)
    _check_paths(after)
    return list(after.values())


def _entry(entry: TreeEntry) -> Entry:
    return Entry(entry.path, entry.sha256, entry.size, entry.git_oid)


def _delete(after: dict[str, Entry], change: Deleted | DeletedFolder, before: Mapping[str, Entry]) -> None:
    folder = f"{change.path}/" if change.path else ""
    gone = [path for path in before if path.startswith(folder)] if isinstance(change, DeletedFolder) else [change.path]
    if not gone or (isinstance(change, Deleted) and change.path not in before):
        raise FileNotInRepo(
            f"There is no {'file' if isinstance(change, Deleted) else 'folder'} {change.path!r} to delete."
        )
    for path in gone:
        after.pop(path, None)


def _held(session: Session, repo: Repo, stored_changes: Sequence[Stored]) -> Mapping[str, Blob]:
    mine = blobs.held(session, repo.namespace, [change.sha256 for change in stored_changes])
    return {blob.sha256: blob for blob in session.scalars(select(Blob).where(Blob.sha256.in_(mine)))}


def _from_blob(change: Stored, held: Mapping[str, Blob], namespace: str) -> Entry:
    blob = held.get(change.sha256)
    if blob is None or blob.git_oid is None:
        raise BytesMissing(
            f"The bytes of {change.path!r} are not held by {namespace!r}: upload them, then commit again."
        )
    if change.size is not None and change.size != blob.size:
        raise WrongBytes(
            f"{change.path!r} was announced with {change.size:,} bytes, but the bytes sent are {blob.size:,}."
        )
    return Entry(change.path, blob.sha256, blob.size, blob.git_oid)


def _check_paths(after: Mapping[str, Entry]) -> None:
    """No path may be a file and a folder at once."""
    for path in after:
        check_path(path)
        end = path.find("/")
        while end >= 0:
            if path[:end] in after:
                raise InvalidInput(
                    f"{path[:end]!r} would be a file and, with {path!r}, a folder too; rename one of them."
                )
            end = path.find("/", end + 1)


def _refuse_broken(inspection: Inspection) -> None:
    """Refuse files that no loader can read. Unlike POST /v1, a commit may leave a tree incomplete or without an adapter."""
    broken = [finding for finding in inspection.errors if finding.code in BROKEN]
    if broken:
        first = broken[0]
        raise BadAdapter(
            f"{first.path}: {first.message} {first.remedy}",
            reason=first.code,
            findings=[finding.to_dict() for finding in inspection.findings],
        )
