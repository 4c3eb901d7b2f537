"""A repo's history: publish (the one place where a commit is born; rows only), and refs that move to it."""

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
from hub.registry.inspection.inspect import Inspection
from hub.registry.models.access import User
from hub.registry.models.adapters import AdapterFacts, Lineage
from hub.registry.models.columns import Json
from hub.registry.models.content import Commit, Ref, Repo, Tree, TreeEntry
from hub.registry.platform.errors import HubError
from hub.vocabulary import MAIN


class HeadMoved(HubError):
    """The branch is no longer where the caller saw it: somebody else committed meanwhile."""

    status, code = 412, "head_moved"


class BytesMissing(HubError):
    """A commit named bytes that its namespace does not hold: they were never sent, or sent too long ago."""

    status, code = 422, "bytes_missing"


@dataclass(frozen=True)
class Entry:
    path: str
    sha256: str
    size: int
    git_oid: str


@dataclass(frozen=True)
class Parent:
    """What a result was made from: a commit, the part it played, and its weight where there is one."""

    commit_id: str
    role: str
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
    """Give a branch a new commit with this tree. Rows only: every blob must be held by the repo's namespace already.

    A tree equal to the head's makes no new commit, unless a job made it. With `onto` the head must still be that commit.
    Raises BytesMissing, HeadMoved.
    """
    session.refresh(repo, with_for_update=True)  # one publisher of a repo at a time, who sees the last version given
    missing = {entry.sha256 for entry in entries} - blobs.held(session, repo.namespace, [e.sha256 for e in entries])
    if missing:
        names = ", ".join(entry.path for entry in entries if entry.sha256 in missing)
        raise BytesMissing(f"The bytes of {names} are not held by {repo.namespace!r}; send them again.")
    head = session.scalar(select(Ref).where(Ref.repo_id == repo.id, Ref.name == branch).with_for_update())
    if onto is not None and (head is None or head.commit_id != onto):
        raise HeadMoved(
            f"Somebody else has committed to {branch!r} of {repo.full_name} meanwhile; fetch it and try again."
        )
    tree = _ensure_tree(session, entries)
    if head is not None and job_id is None:
        current = session.get_one(Commit, head.commit_id)
        if current.tree == tree:
            return current
    now = datetime.now(UTC)
    parent = head.commit_id if head else None
    identity = "\0".join([str(repo.id), parent or "", tree, str(author_id), now.isoformat(), message])
    commit = Commit(
        id=hashlib.sha1(identity.encode(), usedforsecurity=False).hexdigest(),
        repo_id=repo.id,
        parent=parent,
        tree=tree,
        author_id=author_id,
        message=message,
        created_at=now,
        job_id=job_id,
    )
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
        _record_facts(session, repo, commit, inspection, author_id, current=branch == MAIN, previous=parent)
    repo.updated_at = now
    session.flush()
    return commit


def hash_tree(entries: Sequence[Entry]) -> str:
    """The name of the tree that has these files."""
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


def move_ref(session: Session, repo: Repo, name: str, kind: str, commit_id: str, by: uuid.UUID) -> None:
    values = {"commit_id": commit_id, "moved_by": by, "moved_at": func.now()}
    statement = insert(Ref).values(repo_id=repo.id, name=name, kind=kind, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["repo_id", "name"], set_=values))


def _record_facts(
    session: Session,
    repo: Repo,
    commit: Commit,
    inspection: Inspection,
    author_id: uuid.UUID,
    *,
    current: bool,
    previous: str | None,
) -> None:
    """Write what inspection found, and give a version number when main's adapter changed. `current`: the commit is main's."""
    changed = previous is None or _weights(session, commit.id) != _weights(session, previous)
    measured = {} if changed else _measured(session, previous)
    if current:
        session.execute(
            update(AdapterFacts).where(AdapterFacts.repo_id == repo.id, AdapterFacts.current).values(current=False)
        )
    names = base_models.names(session)
    folders = [facts.folder for facts in inspection.adapters]
    for facts in inspection.adapters:
        about = [finding for finding in inspection.findings if _innermost(folders, finding.path) == facts.folder]
        said = [repo.full_name, facts.base_model or "", facts.method, *facts.tags, facts.description]
        searched = text_index.searchable(" ".join(said))
        session.add(
            AdapterFacts(
                commit_id=commit.id,
                folder=facts.folder,
                repo_id=repo.id,
                namespace=repo.namespace,
                name=repo.name,
                visibility=repo.visibility,
                current=current,
                base_id=names.get(facts.base_model or ""),
                base_model=facts.base_model,
                method=facts.method,
                rank=facts.rank,
                tags=list(facts.tags),
                facts=facts.to_dict(),
                findings=[finding.to_dict() for finding in about],
                measured=measured.get(facts.folder),
                search=searched,
                short=text_index.short_words(searched),
                sketch=inspection.sketches[facts.folder],
                published_at=commit.created_at,
            )
        )
    if current and inspection.adapters and changed:
        repo.versions += 1
        move_ref(session, repo, f"v{repo.versions}", "version", commit.id, author_id)


def _innermost(folders: Sequence[str], path: str) -> str | None:
    """The adapter that a file belongs to, where one adapter's folder may lie in another's."""
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
    """By folder; it goes on holding as long as the weights stay."""
    rows = select(AdapterFacts.folder, AdapterFacts.measured).where(AdapterFacts.commit_id == commit_id)
    return dict(iter(session.execute(rows)))
