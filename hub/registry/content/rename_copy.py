"""Create an empty repo, rename a repo, copy a repo."""

from sqlalchemy import Select, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from hub.registry.access import permissions, quota
from hub.registry.access.viewer import Viewer
from hub.registry.bases import base_models
from hub.registry.content import history, repos, text_index
from hub.registry.content.history import Entry
from hub.registry.content.refs import RevisionRef
from hub.registry.content.repos import WriteRepo
from hub.registry.inspection.inspect import Inspection, inspect
from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.content import Commit, Holding, Repo, TreeEntry
from hub.registry.platform.errors import Forbidden
from hub.registry.platform.storage import Storage
from hub.vocabulary import RepoType, Visibility, is_wider


def create(
    session: Session, viewer: Viewer, repo_type: RepoType, full_name: str, visibility: Visibility | None
) -> Repo:
    """Create a repo whose main has one commit without files, so that every client finds a revision. Raises RepoExists."""
    target = repos.check_target(session, viewer, repo_type, full_name)
    repos.refuse_existing(target)
    repo = repos.open_target(session, target, visibility)
    history.publish(session, repo, [], author_id=viewer.id, message="initial commit")
    return repo


def move(session: Session, writer: WriteRepo, full_name: str) -> None:
    """Rename a repo. If its namespace changes, the new namespace holds its bytes too."""
    repo = writer.repo
    target = repos.check_target(session, writer.viewer, repo.type, full_name)
    repos.refuse_existing(target)
    before = repo.full_name
    repo.namespace, repo.name = target.name.namespace, target.name.name
    session.flush()
    _hold(session, repo.namespace, select(Commit.tree).where(Commit.repo_id == repo.id))
    writer.record(session, "repo.moved", full_name, namespace=repo.namespace, type=repo.type, before=before)
    # The searchable text begins with the name.
    for facts in session.scalars(select(AdapterFacts).where(AdapterFacts.repo_id == repo.id)):
        facts.search = full_name.lower() + facts.search[len(before) :]
        facts.short = text_index.short_words(facts.search)
    session.flush()


def duplicate(
    session: Session,
    viewer: Viewer,
    storage: Storage,
    source: RevisionRef,
    full_name: str,
    visibility: Visibility | None,
) -> Repo:
    """Copy the files of a commit that the viewer may read into a new repo.

    The copy may be more visible than its source only if the viewer may write to the source.
    """
    repo_type = source.repo.type
    owner = permissions.may_write(session, viewer, source.repo.namespace, source.repo.name)
    visibility = visibility or source.repo.visibility
    if not owner and is_wider(visibility, source.repo.visibility):
        raise Forbidden(f"{source.name} is {source.repo.visibility}, so a copy of it cannot be {visibility}.")
    target = repos.check_target(session, viewer, repo_type, full_name)
    repos.refuse_existing(target)
    repo = repos.open_target(session, target, visibility)
    files = repos.files(session, source.commit)
    _hold(session, repo.namespace, select(Commit.tree).where(Commit.id == source.commit.id))
    history.publish(
        session,
        repo,
        [Entry(file.path, file.sha256, file.size, file.git_oid) for file in files],
        author_id=viewer.id,
        message=f"Copy of {source.name} at {source.commit.id}",
        inspection=_inspection(session, storage, source.commit) if repo_type == "model" else None,
    )
    return repo


def _inspection(session: Session, storage: Storage, commit: Commit) -> Inspection:
    return inspect(repos.stored_files(session, storage, commit), base_models.known(session))


def _hold(session: Session, namespace: str, trees: Select[str | None]) -> None:
    """Record that the namespace holds the bytes of trees whose files the caller may read."""
    rows = select(literal(namespace), TreeEntry.sha256).where(TreeEntry.tree.in_(trees)).distinct()
    session.execute(insert(Holding).from_select(["namespace", "sha256"], rows).on_conflict_do_nothing())
    quota.require_room(session, namespace, 0, lock=True)
