"""Repos: find, make, read, list, delete and restore."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from hub.registry.access import permissions, users
from hub.registry.access.permissions import AdministerHub, Write, authorize_in
from hub.registry.access.viewer import Viewer
from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.content import Commit, Ref, Repo, TreeEntry
from hub.registry.platform.errors import Conflict, FileNotInRepo, InvalidInput, RepoNotFound, RevisionNotFound
from hub.registry.platform.storage import Storage
from hub.vocabulary import MAIN, VERSION_SUFFIX, RepoName, RepoType, Visibility


class RepoExists(Conflict):
    code = "repo_exists"


def parse_name(full_name: str) -> RepoName:
    """Split namespace/name. Raises InvalidInput for text without a slash.

    A second slash stays in the name; no repo has such a name, and `check_target` refuses it.
    """
    namespace, slash, name = full_name.partition("/")
    if not slash:
        raise InvalidInput(f"{full_name!r} is not a repo id: write namespace/name.")
    return RepoName(namespace, name)


def find(session: Session, viewer: Viewer | None, repo_type: RepoType, full_name: str) -> Repo:
    """A repo that the viewer may read. Raises RepoNotFound, the same error for a hidden repo as for a missing one."""
    name = parse_name(full_name)
    repo = session.scalar(
        select(Repo).where(
            Repo.type == repo_type,
            Repo.namespace == name.namespace,
            Repo.name == name.name,
            Repo.deleted_at.is_(None),
            permissions.readable(viewer),
        )
    )
    if repo is None:
        raise RepoNotFound(f"There is no {repo_type} repo {full_name!r} that you can see.")
    return repo


@dataclass(frozen=True)
class WriteRepo(Write):
    """The permit to change this repo. Made by `writable` alone."""

    repo: Repo


def writable(session: Session, viewer: Viewer | None, repo_type: RepoType, full_name: str) -> WriteRepo:
    """The permit to change a repo. Raises RepoNotFound for those who may not read it either, NotSignedIn, Forbidden."""
    repo = find(session, viewer, repo_type, full_name)
    permit = authorize_in(session, viewer, Write, repo.namespace, repo.name)
    return WriteRepo(permit.viewer, permit.namespace, repo)


@dataclass(frozen=True)
class Target(Write):
    """The permit to publish under this name. Made by `check_target` alone. `repo`: None if the repo does not exist yet."""

    type: RepoType
    name: RepoName
    repo: Repo | None


def check_target(session: Session, viewer: Viewer, repo_type: RepoType, full_name: str) -> Target:
    """The permit to write the repo of that name, or to create it.

    Raises NotSignedIn, Forbidden, BadName, or RepoExists if the name is held by a deleted repo.
    """
    name = parse_name(full_name)
    permit = authorize_in(session, viewer, Write, name.namespace, name.name)
    users.check_name(name.name, "The repo name")
    if VERSION_SUFFIX.search(name.name):
        raise users.BadName(f"{full_name!r} ends like a version (.v<digits>), which is reserved; choose another name.")
    key = (Repo.type == repo_type, Repo.namespace == name.namespace, Repo.name == name.name)
    repo = session.scalar(select(Repo).where(*key))
    if repo is not None and repo.deleted_at is not None:
        raise RepoExists(
            f"{full_name!r} was deleted and its name is held until it can no longer be restored; "
            "choose another name, or ask an administrator to restore it."
        )
    return Target(permit.viewer, permit.namespace, repo_type, name, repo)


def refuse_existing(target: Target) -> None:
    """Raise RepoExists if the target exists already, for callers that need a new repo."""
    if target.repo is not None:
        raise RepoExists(
            f"There is a {target.type} repo {str(target.name)!r} already; choose another name.",
            repo=str(target.name),
            type=target.type,
        )


def open_target(session: Session, target: Target, visibility: Visibility | None) -> Repo:
    """The target's repo, created if it does not exist (internal by default). The target may be of an earlier transaction."""
    if target.repo is None:
        values = {"namespace": target.name.namespace, "name": target.name.name, "visibility": visibility or "internal"}
        # Another request may be creating it at this moment.
        created = insert(Repo).values(type=target.type, **values).on_conflict_do_nothing().returning(Repo.id)
        if session.scalar(created):
            target.record(
                session, "repo.created", str(target.name), type=target.type, visibility=visibility or "internal"
            )
    return find(session, target.viewer, target.type, str(target.name))


def ensure(
    session: Session, viewer: Viewer, repo_type: RepoType, full_name: str, visibility: Visibility | None
) -> Repo:
    """`check_target` and `open_target` in one transaction."""
    return open_target(session, check_target(session, viewer, repo_type, full_name), visibility)


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
    """A file of a commit, read from S3 by ranges. Inspection reads it when the bytes are no longer on this machine."""

    storage: Storage
    sha256: str
    size: int

    def read(self, offset: int, length: int) -> bytes:
        return self.storage.read(self.sha256, offset, min(length, max(0, self.size - offset)))


def stored_files(session: Session, storage: Storage, commit: Commit) -> dict[str, StoredFile]:
    """The files of a commit by path, as inspection reads them."""
    return {entry.path: StoredFile(storage, entry.sha256, entry.size) for entry in files(session, commit)}


def refs(session: Session, repo: Repo) -> Sequence[Ref]:
    return session.scalars(select(Ref).where(Ref.repo_id == repo.id).order_by(Ref.moved_at.desc(), Ref.name)).all()


def facts(session: Session, commit: Commit) -> Sequence[AdapterFacts]:
    return session.scalars(
        select(AdapterFacts).where(AdapterFacts.commit_id == commit.id).order_by(AdapterFacts.folder)
    ).all()


def current_adapters(
    session: Session, viewer: Viewer | None, namespaces: Sequence[str], base_id: str | None
) -> list[tuple[str, AdapterFacts]]:
    """The adapters at the head of main in some namespaces that the viewer may see: of one base, or of any registered one."""
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


def delete(session: Session, writer: WriteRepo) -> None:
    """Hide the repo from everyone but administrators. The name and the bytes stay until it can no longer be restored."""
    repo = writer.repo
    repo.deleted_at = datetime.now(UTC)
    writer.record(session, "repo.deleted", repo.full_name, type=repo.type)


def restore(session: Session, hub: AdministerHub, repo_type: RepoType, full_name: str, days: float) -> Repo:
    """Undo a deletion of the last days. Raises RepoNotFound."""
    name = parse_name(full_name)
    repo = session.scalar(
        select(Repo).where(
            Repo.type == repo_type,
            Repo.namespace == name.namespace,
            Repo.name == name.name,
            Repo.deleted_at > datetime.now(UTC) - timedelta(days=days),
        )
    )
    if repo is None:
        raise RepoNotFound(f"There is no deleted {repo_type} repo {full_name!r} that you could restore.")
    repo.deleted_at = None
    hub.record(session, "repo.restored", full_name, namespace=name.namespace, type=repo_type)
    return repo


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
    rows = [(repo, commit) for repo, commit in session.execute(query)]
    return rows[:limit], rows[limit - 1][0].full_name if len(rows) > limit else None
