"""Branches and tags, and the commit that a name with a revision refers to."""

import re
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import Select, bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from hub.registry.access import permissions
from hub.registry.access.users import BadName
from hub.registry.access.viewer import Viewer
from hub.registry.content import repos
from hub.registry.content.repos import WriteRepo
from hub.registry.models.content import Commit, Ref, Repo, TreeEntry
from hub.registry.platform.errors import Conflict, FileNotInRepo, Forbidden, RepoNotFound, RevisionNotFound
from hub.vocabulary import COMMIT_ID, MAIN, RepoType

VERSION = re.compile(r"v\d+")
PINNED = re.compile(r"(.+)\.(v\d+)")  # team/name.v3: version 3, for clients that cannot say a revision
NAME = re.compile(r"(?!.*(\.\.|//|\.lock(/|$)))[\w+][\w.+/-]{0,253}[\w+-]|[\w+]", re.ASCII)


class RefExists(Conflict):
    code = "ref_exists"


class ReadOnly(Forbidden):
    """The name is a version or pins one: its commit never changes."""

    code = "read_only"


@dataclass(frozen=True)
class RevisionRef:
    """The commit that a client requested, under the name by which the client requested it."""

    name: str  # namespace/name, or namespace/name.v3
    repo: Repo
    commit: Commit

    @property
    def pinned(self) -> bool:
        return self.name != self.repo.full_name


def find_revision(
    session: Session, viewer: Viewer | None, repo_type: RepoType, full_name: str, revision: str = MAIN
) -> RevisionRef:
    """Raises RepoNotFound, RevisionNotFound."""
    match = PINNED.fullmatch(full_name)
    if match is None:
        repo = repos.find(session, viewer, repo_type, full_name)
        return RevisionRef(full_name, repo, repos.resolve(session, repo, revision))
    repo = repos.find(session, viewer, repo_type, match[1])
    ref = session.get(Ref, (repo.id, match[2]))
    if ref is None:
        raise RepoNotFound(f"There is no {repo_type} repo {full_name!r}: {match[1]} has no version {match[2]}.")
    if revision not in (MAIN, match[2], ref.commit_id):
        raise RevisionNotFound(f"{full_name} is version {match[2]} alone; for {revision!r} ask {match[1]}.")
    return RevisionRef(full_name, repo, repos.resolve(session, repo, match[2]))


@lru_cache(1_000)  # to build it takes as long as to run it
def _file_query(viewer: Viewer | None, by_commit: bool) -> Select[str, TreeEntry]:
    query = (
        select(Commit.id, TreeEntry)
        .join(Repo, Repo.id == Commit.repo_id)
        .join(TreeEntry, TreeEntry.tree == Commit.tree)
        .where(Repo.type == bindparam("type"), Repo.namespace == bindparam("namespace"), Repo.name == bindparam("name"))
        .where(Repo.deleted_at.is_(None), TreeEntry.path == bindparam("path"), permissions.readable(viewer))
    )
    if by_commit:
        return query.where(Commit.id == bindparam("revision"))
    named = Ref.name == bindparam("revision")
    return query.join(Ref, Ref.commit_id == Commit.id).where(Ref.repo_id == Repo.id, named)


def find_file(
    session: Session, viewer: Viewer | None, repo_type: RepoType, full_name: str, revision: str, path: str
) -> tuple[str, TreeEntry]:
    """The id of the commit and the file, in one query if both exist, since every download begins with this.

    Raises RepoNotFound, RevisionNotFound, FileNotInRepo.
    """
    name = repos.parse_name(full_name)
    of_repo = {"type": repo_type, "namespace": name.namespace, "name": name.name}
    values = {**of_repo, "revision": revision, "path": path}
    query = _file_query(viewer, COMMIT_ID.fullmatch(revision) is not None)
    if row := session.execute(query, values).one_or_none():
        return row[0], row[1]
    revision_ref = find_revision(session, viewer, repo_type, full_name, revision)
    entry = session.get(TreeEntry, (revision_ref.commit.tree, path))
    if entry is None:
        raise FileNotInRepo(f"There is no file {path!r} in {full_name} at {revision!r}.", commit=revision_ref.commit.id)
    return revision_ref.commit.id, entry


def writable(session: Session, viewer: Viewer | None, repo_type: RepoType, full_name: str) -> WriteRepo:
    """The permit to change a repo, as `repos.writable`. Raises ReadOnly for a name that pins a version."""
    if match := PINNED.fullmatch(full_name):
        repos.find(session, viewer, repo_type, match[1])
        raise ReadOnly(f"{full_name} is a read-only name for a version of {match[1]}; write to {match[1]}.")
    return repos.writable(session, viewer, repo_type, full_name)


def create(session: Session, writer: WriteRepo, name: str, kind: str, commit: Commit) -> None:
    """Create a branch or tag. Raises BadName, RefExists."""
    insert_ref(session, writer, name, kind, commit)
    writer.record(session, f"{kind}.created", f"{writer.repo.full_name}@{name}", commit=commit.id)


def insert_ref(session: Session, writer: WriteRepo, name: str, kind: str, commit: Commit) -> None:
    """Insert the row of a new branch, tag or alias; the caller writes the audit log. Raises BadName, RefExists."""
    check_name(name)
    repo = writer.repo
    values = {"repo_id": repo.id, "name": name, "kind": kind, "commit_id": commit.id, "moved_by": writer.viewer.id}
    insertion = insert(Ref).values(**values).on_conflict_do_nothing().returning(Ref.name)
    if session.scalar(insertion) is None:
        raise RefExists(
            f"{repo.full_name} has a branch, tag or version {name!r} already; delete it first, or choose another."
        )


def remove(session: Session, writer: WriteRepo, name: str, kind: str) -> None:
    """Delete a branch or tag. Raises RevisionNotFound; ReadOnly for main, which every repo has, and for versions, which others rely on."""
    repo = writer.repo
    ref = session.get(Ref, (repo.id, name))
    if ref is None or (ref.kind != kind and ref.kind != "version"):
        raise RevisionNotFound(f"{repo.full_name} has no {kind} {name!r}.")
    if ref.kind == "version" or name == MAIN:
        raise ReadOnly(
            f"{name!r} of {repo.full_name} cannot be deleted: main and the versions stay as long as the repo."
        )
    session.execute(delete(Ref).where(Ref.repo_id == repo.id, Ref.name == name))
    writer.record(session, f"{kind}.deleted", f"{repo.full_name}@{name}")


def check_name(name: str) -> None:
    if VERSION.fullmatch(name):
        raise BadName(f"{name!r} is a name for versions, which the hub gives; choose another, such as {name}.0.")
    if not NAME.fullmatch(name) or COMMIT_ID.fullmatch(name) or name.startswith("refs/"):
        raise BadName(
            f"{name[:100]!r} cannot name a branch or tag: use letters, digits and _ . + - (and / inside), "
            "not beginning with '.' or '-', at most 255 characters, and nothing that looks like a commit id or refs/..."
        )
