"""Share links: a secret address that shows one version of a module, and gives out its files, to whoever has it, until it expires."""

import secrets
import uuid
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from hub.registry.access import audit, credentials, permissions
from hub.registry.access.viewer import Viewer
from hub.registry.content import repo_visibility, repos
from hub.registry.models.content import Commit, Repo, ShareLink
from hub.registry.platform.errors import NotFound


class ShareNotFound(NotFound):
    code = "share_not_found"


def create(
    session: Session, viewer: Viewer, full_name: str, revision: str, days: float, *, reveal: bool
) -> tuple[ShareLink, str]:
    """A link and its secret, which is shown this once. Raises WouldReveal, as making the module public would."""
    repo = repos.find(session, viewer, "model", full_name)
    permissions.authorize_in(session, viewer, permissions.Write, repo.namespace, repo.name)
    commit = repos.resolve(session, repo, revision)
    if not reveal:
        repo_visibility.check_reveals_nothing(session, Commit.id == commit.id, "public", f"A link to {full_name}")
    secret = secrets.token_urlsafe(32)
    made = ShareLink(
        hash=credentials.hash_secret(secret),
        commit_id=commit.id,
        made_by=viewer.id,
        expires_at=func.now() + timedelta(days=days),
    )
    session.add(made)
    session.flush()
    session.refresh(made)
    audit.record(
        session, viewer.name, "share.created", full_name, namespace=repo.namespace, commit=commit.id, days=days
    )
    return made, secret


def listing(session: Session, viewer: Viewer, full_name: str) -> Sequence[ShareLink]:
    """Those of a repo that have not expired, for whoever may make them."""
    repo = repos.find(session, viewer, "model", full_name)
    permissions.authorize_in(session, viewer, permissions.Write, repo.namespace, repo.name)
    of_repo = select(ShareLink).join(Commit, Commit.id == ShareLink.commit_id).where(Commit.repo_id == repo.id)
    live = of_repo.where(ShareLink.expires_at > func.now()).order_by(ShareLink.created_at)
    return session.scalars(live).all()


def revoke(session: Session, viewer: Viewer, full_name: str, share_id: uuid.UUID) -> None:
    if share_id not in {share.id for share in listing(session, viewer, full_name)}:
        raise ShareNotFound(f"{full_name} has no share link {share_id}.")
    session.execute(delete(ShareLink).where(ShareLink.id == share_id))
    audit.record(
        session, viewer.name, "share.revoked", full_name, namespace=full_name.partition("/")[0], share=str(share_id)
    )


def opened(session: Session, secret: str) -> tuple[Repo, Commit, ShareLink]:
    """What a link shows. Raises ShareNotFound also where it has expired, or the module was deleted."""
    row = session.execute(
        select(Repo, Commit, ShareLink)
        .join(Commit, Commit.repo_id == Repo.id)
        .join(ShareLink, ShareLink.commit_id == Commit.id)
        .where(ShareLink.hash == credentials.hash_secret(secret), ShareLink.expires_at > func.now())
        .where(Repo.deleted_at.is_(None), Commit.tree.is_not(None))
    ).one_or_none()
    if row is None:
        raise ShareNotFound("The link is not known, was revoked, or its time is over; ask whoever sent it for another.")
    return row[0], row[1], row[2]
