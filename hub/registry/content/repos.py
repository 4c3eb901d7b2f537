"""Repos and their commits: publish (the one place where a commit is born; rows only), read, refs, delete."""

import hashlib
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import ColumnElement, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from hub.registry.access import audit, permissions, users
from hub.registry.access.viewer import Viewer, viewer_of
from hub.registry.bases import base_models
from hub.registry.content import blobs, text_index
from hub.registry.inspection.inspect import Inspection
from hub.registry.models.access import User
from hub.registry.models.adapters import AdapterFacts, Lineage
from hub.registry.models.columns import Json
from hub.registry.models.content import Commit, Ref, Repo, Tree, TreeEntry
from hub.registry.platform.errors import Conflict, HubError, InvalidInput, NotFound
from hub.registry.platform.storage import Storage

RepoType = Literal["model", "dataset"]
Visibility = Literal["private", "internal", "public"]
VISIBILITIES: tuple[Visibility, ...] = ("private", "internal", "public")  # from least to most visible
MAIN = "main"
RESERVED = re.compile(r"\.v\d+$")  # team/name.v3 is how clients without a revision argument pin a version


class RepoNotFound(NotFound):
    code = "repo_not_found"


class RevisionNotFound(NotFound):
    code = "revision_not_found"


class FileNotInRepo(NotFound):
    code = "file_not_found"


class RepoExists(Conflict):
    code = "repo_exists"


class WouldReveal(Conflict):
    code = "would_reveal"


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


def split_name(full_name: str) -> tuple[str, str]:
    namespace, slash, name = full_name.partition("/")
    if not slash:
        raise InvalidInput(f"{full_name!r} is not a repo id: write namespace/name.")
    return namespace, name


def find(session: Session, viewer: Viewer | None, repo_type: RepoType, full_name: str) -> Repo:
    """A repo the viewer may read. What he may not see answers exactly like what is not there."""
    namespace, name = split_name(full_name)
    repo = session.scalar(
        select(Repo).where(
            Repo.type == repo_type,
            Repo.namespace == namespace,
            Repo.name == name,
            Repo.deleted_at.is_(None),
            permissions.readable(viewer),
        )
    )
    if repo is None:
        raise RepoNotFound(f"There is no {repo_type} repo {full_name!r} that you can see.")
    return repo


def check_target(session: Session, viewer: Viewer, repo_type: RepoType, full_name: str) -> Repo | None:
    """The repo of that name if there is one, after checking that the viewer may write it, or make it.

    Raises NotSignedIn, Forbidden, BadName, or RepoExists if the name is held by a deleted repo.
    """
    namespace, name = split_name(full_name)
    permissions.require_write(session, viewer, namespace, name)
    users.check_name(name, "The repo name")
    if RESERVED.search(name):
        raise users.BadName(f"{full_name!r} ends like a version (.v<digits>), which is reserved; choose another name.")
    key = (Repo.type == repo_type, Repo.namespace == namespace, Repo.name == name)
    repo = session.scalar(select(Repo).where(*key))
    if repo is not None and repo.deleted_at is not None:
        raise RepoExists(
            f"{full_name!r} was deleted and its name is held until it can no longer be restored; "
            "choose another name, or ask an administrator to restore it."
        )
    return repo


def ensure(
    session: Session, viewer: Viewer, repo_type: RepoType, full_name: str, visibility: Visibility | None
) -> Repo:
    """The repo of that name to write in, made if need be (internal unless said otherwise)."""
    repo = check_target(session, viewer, repo_type, full_name)
    if repo is not None:
        return repo
    namespace, name = split_name(full_name)
    made = insert(Repo).values(type=repo_type, namespace=namespace, name=name, visibility=visibility or "internal")
    # Another request may be making it at this moment.
    if session.scalar(made.on_conflict_do_nothing().returning(Repo.id)):
        audit.record(
            session,
            viewer,
            "repo.created",
            full_name,
            namespace=namespace,
            type=repo_type,
            visibility=visibility or "internal",
        )
    return find(session, viewer, repo_type, full_name)


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
        author,
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


def resolve(session: Session, repo: Repo, revision: str = MAIN) -> Commit:
    """A branch, tag, version or whole commit id -> the commit. Raises RevisionNotFound."""
    commit = session.scalar(
        select(Commit)
        .join(Ref, Ref.commit_id == Commit.id)
        .where(Ref.repo_id == repo.id, Ref.name == revision, Commit.tree.is_not(None))
    ) or session.scalar(
        select(Commit).where(Commit.repo_id == repo.id, Commit.id == revision, Commit.tree.is_not(None))
    )
    if commit is None:
        raise RevisionNotFound(f"{repo.full_name} has no branch, tag, version or commit {revision!r}.")
    return commit


def files(session: Session, commit: Commit) -> Sequence[TreeEntry]:
    return session.scalars(select(TreeEntry).where(TreeEntry.tree == commit.tree).order_by(TreeEntry.path)).all()


def sizes(session: Session, commits: Sequence[Commit]) -> Mapping[str, tuple[int, int]]:
    """Commit -> the number of its files and their bytes together."""
    counted = (
        select(TreeEntry.tree, func.count(), func.sum(TreeEntry.size))
        .where(TreeEntry.tree.in_({commit.tree for commit in commits}))
        .group_by(TreeEntry.tree)
    )
    by_tree = {tree: (count, int(size)) for tree, count, size in session.execute(counted)}
    return {commit.id: by_tree.get(commit.tree or "", (0, 0)) for commit in commits}


def file(session: Session, commit: Commit, path: str) -> TreeEntry:
    entry = session.get(TreeEntry, (commit.tree, path))
    if entry is None:
        raise FileNotInRepo(f"There is no file {path!r} in commit {commit.id[:12]}.", commit=commit.id)
    return entry


@dataclass(frozen=True)
class StoredFile:
    """A file of a commit, read from S3 by ranges: what inspection reads when the bytes are no longer at hand."""

    storage: Storage
    sha256: str
    size: int

    def read(self, offset: int, length: int) -> bytes:
        return self.storage.read(self.sha256, offset, min(length, max(0, self.size - offset)))


def refs(session: Session, repo: Repo) -> Sequence[Ref]:
    return session.scalars(select(Ref).where(Ref.repo_id == repo.id).order_by(Ref.moved_at.desc(), Ref.name)).all()


def facts(session: Session, commit: Commit) -> Sequence[AdapterFacts]:
    return session.scalars(
        select(AdapterFacts).where(AdapterFacts.commit_id == commit.id).order_by(AdapterFacts.folder)
    ).all()


def current_adapters(
    session: Session, viewer: Viewer | None, namespaces: Sequence[str], base_id: str | None
) -> list[tuple[str, AdapterFacts]]:
    """The adapters at the head of main in some namespaces, as far as the viewer may see them: of one base, or of any registered one."""
    name = AdapterFacts.namespace + "/" + AdapterFacts.name
    of_base = AdapterFacts.base_id.is_not(None) if base_id is None else AdapterFacts.base_id == base_id
    query = (
        select(name, AdapterFacts)
        .where(AdapterFacts.current, ~AdapterFacts.deleted, of_base, AdapterFacts.namespace.in_(namespaces))
        .where(permissions.readable(viewer, AdapterFacts))
        .order_by(name, AdapterFacts.folder)
    )
    return [(full_name, facts) for full_name, facts in session.execute(query)]


def version_of(session: Session, commit: Commit) -> str | None:
    return session.scalar(select(Ref.name).where(Ref.commit_id == commit.id, Ref.kind == "version"))


def change_visibility(
    session: Session, viewer: Viewer, repo_type: RepoType, full_name: str, visibility: Visibility, *, reveal: bool
) -> Repo:
    """Raises WouldReveal, listing them, if that shows the names of less visible inputs and `reveal` does not say so."""
    repo = find(session, viewer, repo_type, full_name)
    permissions.require_write(session, viewer, repo.namespace, repo.name)
    if not reveal and VISIBILITIES.index(visibility) > VISIBILITIES.index(repo.visibility):
        check_reveals_nothing(session, Commit.repo_id == repo.id, visibility, f"Making {full_name} {visibility}")
    audit.record(
        session, viewer, "visibility.set", full_name, namespace=repo.namespace, now=visibility, before=repo.visibility
    )
    repo.visibility = visibility
    return repo


def check_reveals_nothing(session: Session, which: ColumnElement[bool], visibility: Visibility, act: str) -> None:
    """Raise WouldReveal, listing them, if one of these commits was made from something that is less visible than this."""
    parent = aliased(Commit)
    inputs = session.scalars(
        select(Repo)
        .join(parent, parent.repo_id == Repo.id)
        .join(Lineage, Lineage.parent == parent.id)
        .join(Commit, Commit.id == Lineage.child)
        .where(which)
    ).unique()
    narrower = sorted(r.full_name for r in inputs if VISIBILITIES.index(r.visibility) < VISIBILITIES.index(visibility))
    if narrower:
        raise WouldReveal(
            f"{act} shows that it was made from {', '.join(narrower)}, named in its card and manifest; "
            "repeat with `reveal` to confirm.",
            reveals=narrower,
        )


def delete(session: Session, viewer: Viewer, repo_type: RepoType, full_name: str) -> None:
    """Gone at once for all but administrators; the name and the bytes stay until it can no longer be restored."""
    repo = find(session, viewer, repo_type, full_name)
    permissions.require_write(session, viewer, repo.namespace, repo.name)
    repo.deleted_at = datetime.now(UTC)
    audit.record(session, viewer, "repo.deleted", full_name, namespace=repo.namespace, type=repo_type)


def restore(session: Session, viewer: Viewer, repo_type: RepoType, full_name: str, days: float) -> Repo:
    """Undo a deletion of the last days. Administrators only: to others the repo does not exist."""
    namespace, name = split_name(full_name)
    repo = None
    if viewer.is_admin:
        repo = session.scalar(
            select(Repo).where(
                Repo.type == repo_type,
                Repo.namespace == namespace,
                Repo.name == name,
                Repo.deleted_at > datetime.now(UTC) - timedelta(days=days),
            )
        )
    if repo is None:
        raise RepoNotFound(f"There is no deleted {repo_type} repo {full_name!r} that you could restore.")
    repo.deleted_at = None
    audit.record(session, viewer, "repo.restored", full_name, namespace=namespace, type=repo_type)
    return repo


def least_visible(session: Session, commit_ids: Sequence[str]) -> Visibility:
    """The visibility of the least visible repo among these commits; public if there are none."""
    found = set(
        session.scalars(
            select(Repo.visibility).join(Commit, Commit.repo_id == Repo.id).where(Commit.id.in_(commit_ids))
        )
    )
    return next((level for level in VISIBILITIES if level in found), "public")


def listing(
    session: Session, viewer: Viewer | None, repo_type: RepoType, *, limit: int, cursor: str | None
) -> tuple[list[tuple[Repo, Commit]], str | None]:
    """Repos with a commit on main, in the order of their names; the cursor is the last name of the page before."""
    name = Repo.namespace + "/" + Repo.name
    query = (
        select(Repo, Commit)
        .join(Ref, Ref.repo_id == Repo.id)
        .join(Commit, Commit.id == Ref.commit_id)
        .where(Ref.name == MAIN, Repo.type == repo_type, Repo.deleted_at.is_(None), permissions.readable(viewer))
        .order_by(name)
        .limit(limit + 1)
    )
    if cursor:
        query = query.where(name > cursor)
    found = [(repo, commit) for repo, commit in session.execute(query)]
    return found[:limit], found[limit - 1][0].full_name if len(found) > limit else None
