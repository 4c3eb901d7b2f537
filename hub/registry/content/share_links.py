"""Share links: a secret address that shows one version of an adapter and serves its files, without signing in, until it expires."""

import uuid
from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from hub.registry.access.secret_hashes import expires_after, is_live, new_secret, opens
from hub.registry.content import repo_visibility, repos
from hub.registry.content.repos import WriteRepo
from hub.registry.models.content import Commit, Repo, ShareLink
from hub.registry.platform.errors import NotFound


class ShareNotFound(NotFound):
    code = "share_not_found"


def create(session: Session, writer: WriteRepo, revision: str, days: float, *, reveal: bool) -> tuple[ShareLink, str]:
    """Create a link. Returns it with its secret, which is shown once. Raises WouldReveal, as making the adapter public would."""
    repo = writer.repo
    commit = repos.resolve(session, repo, revision)
    if not reveal:
        repo_visibility.check_reveals_nothing(session, Commit.id == commit.id, "public", f"A link to {repo.full_name}")
    secret, hashed = new_secret()
    link = ShareLink(
        hash=hashed,
        commit_id=commit.id,
        made_by=writer.viewer.id,
        expires_at=expires_after(days=days),
    )
    session.add(link)
    session.flush()
    session.refresh(link)
    writer.record(session, "share.created", repo.full_name, commit=commit.id, days=days)
    return link, secret


def listing(session: Session, writer: WriteRepo) -> Sequence[ShareLink]:
    """The links to a repo that have not expired."""
    of_repo = select(ShareLink).join(Commit, Commit.id == ShareLink.commit_id).where(Commit.repo_id == writer.repo.id)
    live = of_repo.where(is_live(ShareLink)).order_by(ShareLink.created_at)
    return session.scalars(live).all()


def revoke(session: Session, writer: WriteRepo, share_id: uuid.UUID) -> None:
    full_name = writer.repo.full_name
    if share_id not in {share.id for share in listing(session, writer)}:
        raise ShareNotFound(f"{full_name} has no share link {share_id}.")
    session.execute(delete(ShareLink).where(ShareLink.id == share_id))
    writer.record(session, "share.revoked", full_name, share=str(share_id))


def open_share_link(session: Session, secret: str) -> tuple[Repo, Commit, ShareLink]:
    """What a link shows. Raises ShareNotFound also where it has expired, or the adapter was deleted."""
    row = session.execute(
        select(Repo, Commit, ShareLink)
        .join(Commit, Commit.repo_id == Repo.id)
        .join(ShareLink, ShareLink.commit_id == Commit.id)
        .where(opens(ShareLink, secret))
        .where(Repo.deleted_at.is_(None), Commit.tree.is_not(None))
    ).one_or_none()
    if row is None:
        raise ShareNotFound(
            "The link is not known, was revoked, or has expired; ask the person who sent it for another."
        )
    return row[0], row[1], row[2]
