"""A repo's history: `publish`, the only function that creates commits, writes rows and moves refs."""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from hub.registry.access import audit
from hub.registry.access.viewer import viewer_of
from hub.registry.bases import base_models
from hub.registry.content import blobs, text_index
from hub.registry.inspection.facts import InspectedAdapter
from hub.registry.inspection.inspect import Inspection
from hub.registry.models.access import User
from hub.registry.models.adapters import AdapterFacts, Lineage
from hub.registry.models.columns import Json
from hub.registry.models.content import Commit, Ref, Repo, Tree, TreeEntry
from hub.registry.platform.errors import HubError
from hub.vocabulary import MAIN, InputRole, RefKind


class HeadMoved(HubError):
    """The branch has moved since the caller read it: somebody else has committed."""

    status, code = 412, "head_moved"


class BytesMissing(HubError):
    """A commit names bytes that its namespace does not hold: they were never sent, or have been collected since."""

    status, code = 422, "bytes_missing"


@dataclass(frozen=True)
class Entry:
    path: str
    sha256: str
    size: int
    git_oid: str


@dataclass(frozen=True)
class Parent:
    """An input of a result: its commit, its role, and its weight where it has one."""

    commit_id: str
    role: InputRole
    weight: float | None = None


def publish(
    session: Session,
    repo: Repo,
    entries: Sequence[Entry],
    *,
    author_id: uuid.UUID,
    message: str,
    inspection: Inspection | None = None,
    parents: Sequence[Parent] = (),
    job_id: uuid.UUID | None = None,
    branch: str = MAIN,
    onto: str | None = None,
) -> Commit:
    """Give a branch a new commit with this tree. Rows only: the repo's namespace must hold every blob already.

    A tree equal to the head's makes no new commit, unless a job made it. With `onto` the head must still be that commit.
    Raises BytesMissing, HeadMoved.
    """
    session.refresh(repo, with_for_update=True)  # one publisher of a repo at a time, who sees the last version number
    _require_held(session, repo, entries)
    head = _lock_head(session, repo, branch, onto)
    tree = _ensure_tree(session, entries)
    if head is not None and job_id is None and head.tree == tree:
        return head
    commit = _new_commit(repo, head, tree, author_id, message, job_id)
    session.add(commit)
    session.flush()  # refs, facts and lineage point at it
    move_ref(session, repo, branch, "branch", commit.id, author_id)
    author = viewer_of(session.get_one(User, author_id))
    audit.record(
        session,
        author.name,
        "commit.created",
        repo.full_name,
        namespace=repo.namespace,
        type=repo.type,
        commit=commit.id,
        branch=branch,
    )
    for origin in parents:
        session.add(Lineage(child=commit.id, parent=origin.commit_id, role=origin.role, weight=origin.weight))
    if inspection is not None:
        _record_facts(session, repo, commit, inspection, author_id, current=branch == MAIN)
    repo.updated_at = commit.created_at
    session.flush()
    return commit


def _require_held(session: Session, repo: Repo, entries: Sequence[Entry]) -> None:
    hashes = [entry.sha256 for entry in entries]
    missing = set(hashes) - blobs.held(session, repo.namespace, hashes)
    if missing:
        names = ", ".join(entry.path for entry in entries if entry.sha256 in missing)
        raise BytesMissing(f"The bytes of {names} are not held by {repo.namespace!r}; send them again.")


def _lock_head(session: Session, repo: Repo, branch: str, onto: str | None) -> Commit | None:
    """Lock and return the branch's head, so that nobody else moves it in this transaction. Raises HeadMoved unless it is `onto`."""
    ref = session.scalar(select(Ref).where(Ref.repo_id == repo.id, Ref.name == branch).with_for_update())
    if onto is not None and (ref is None or ref.commit_id != onto):
        raise HeadMoved(
            f"Somebody else has committed to {branch!r} of {repo.full_name} meanwhile; fetch it and try again."
        )
    return session.get_one(Commit, ref.commit_id) if ref else None


def _new_commit(
    repo: Repo, head: Commit | None, tree: str, author_id: uuid.UUID, message: str, job_id: uuid.UUID | None
) -> Commit:
    """A commit whose id is the SHA-1 of its content, as in git."""
    now = datetime.now(UTC)
    parent = head.id if head else None
    identity = "\0".join([str(repo.id), parent or "", tree, str(author_id), now.isoformat(), message])
    return Commit(
        id=hashlib.sha1(identity.encode(), usedforsecurity=False).hexdigest(),
        repo_id=repo.id,
        parent=parent,
        tree=tree,
        author_id=author_id,
        message=message,
        created_at=now,
        job_id=job_id,
    )


def hash_tree(entries: Sequence[Entry]) -> str:
    """The hash of a tree with these files."""
    listing = "".join(f"{entry.path}\0{entry.sha256}\n" for entry in sorted(entries, key=lambda entry: entry.path))
    return hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest()


def _ensure_tree(session: Session, entries: Sequence[Entry]) -> str:
    ordered = sorted(entries, key=lambda entry: entry.path)
    tree = hash_tree(ordered)
    # The update locks a tree that is there already against the sweep; xmax tells it from one that is new.
    statement = insert(Tree).values(hash=tree).on_conflict_do_update(index_elements=["hash"], set_={"hash": tree})
    if session.scalar(statement.returning(text("xmax = 0"))):
        rows = [
            {"tree": tree, "path": e.path, "sha256": e.sha256, "size": e.size, "git_oid": e.git_oid} for e in ordered
        ]
        if rows:
            session.execute(insert(TreeEntry), rows)
    return tree


def move_ref(session: Session, repo: Repo, name: str, kind: RefKind, commit_id: str, by: uuid.UUID) -> None:
    values = {"commit_id": commit_id, "moved_by": by, "moved_at": func.now()}
    statement = insert(Ref).values(repo_id=repo.id, name=name, kind=kind, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["repo_id", "name"], set_=values))


def _record_facts(
    session: Session, repo: Repo, commit: Commit, inspection: Inspection, author_id: uuid.UUID, *, current: bool
) -> None:
    """Write the facts of a commit's adapters, and a version number if main's adapter changed. `current`: the commit is main's."""
    changed = commit.parent is None or _weights(session, commit.id) != _weights(session, commit.parent)
    measured = {} if changed else _measured(session, commit.parent)
    if current:
        session.execute(
            update(AdapterFacts).where(AdapterFacts.repo_id == repo.id, AdapterFacts.current).values(current=False)
        )
    names = base_models.names(session)
    folders = [adapter.folder for adapter in inspection.adapters]
    for adapter in inspection.adapters:
        row = _facts_row(repo, commit, adapter, current=current)
        row.base_id = names.get(adapter.base_model or "")
        row.findings = [
            finding.to_dict() for finding in inspection.findings if _innermost(folders, finding.path) == adapter.folder
        ]
        row.measured = measured.get(adapter.folder)
        row.sketch = inspection.sketches[adapter.folder]
        session.add(row)
    if current and inspection.adapters and changed:
        repo.versions += 1
        move_ref(session, repo, f"v{repo.versions}", "version", commit.id, author_id)


def _facts_row(repo: Repo, commit: Commit, adapter: InspectedAdapter, *, current: bool) -> AdapterFacts:
    texts = [repo.full_name, adapter.base_model or "", adapter.method, *adapter.tags, adapter.description]
    searched = text_index.searchable(" ".join(texts))
    return AdapterFacts(
        commit_id=commit.id,
        folder=adapter.folder,
        repo_id=repo.id,
        namespace=repo.namespace,
        name=repo.name,
        visibility=repo.visibility,
        current=current,
        base_model=adapter.base_model,
        method=adapter.method,
        rank=adapter.rank,
        tags=list(adapter.tags),
        facts=adapter.to_dict(),
        search=searched,
        short=text_index.short_words(searched),
        published_at=commit.created_at,
    )


def _innermost(folders: Sequence[str], path: str) -> str | None:
    """The folder of the adapter that a file belongs to: the innermost, as one adapter's folder may lie in another's."""
    return max((f for f in folders if not f or path.startswith(f"{f}/")), key=len, default=None)


def _weights(session: Session, commit_id: str) -> Mapping[str, str]:
    """The files of a commit that decide what an adapter computes: path -> hash."""
    rows = session.execute(
        select(TreeEntry.path, TreeEntry.sha256)
        .join(Commit, Commit.tree == TreeEntry.tree)
        .where(Commit.id == commit_id)
        .where(TreeEntry.path.like("%adapter_model.safetensors") | TreeEntry.path.like("%adapter_config.json"))
    )
    return dict(iter(rows))


def _measured(session: Session, commit_id: str | None) -> Mapping[str, Json | None]:
    """The measured scores of a commit's adapters, by folder. They stay true as long as the weights stay the same."""
    rows = select(AdapterFacts.folder, AdapterFacts.measured).where(AdapterFacts.commit_id == commit_id)
    return dict(iter(session.execute(rows)))
