"""Reading jobs: which of them a viewer may see, their events, their results."""

import uuid
from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from hub.registry.access import permissions
from hub.registry.access.viewer import Viewer
from hub.registry.jobs.leases import LAST_SEQ
from hub.registry.models.access import Membership, User
from hub.registry.models.content import Commit, Repo
from hub.registry.models.jobs import Job, JobEvent, JobInput
from hub.registry.platform.errors import NotFound


class JobNotFound(NotFound):
    code = "job_not_found"


def readable(viewer: Viewer | None) -> ColumnElement[bool]:
    """Who may see a job: its owner, the members of its namespace, and administrators.

    A token limited to repos sees those whose inputs it may read.
    """
    if viewer is None:
        return Job.id.is_(None)
    if viewer.is_admin:
        seen: ColumnElement[bool] = Job.id.is_not(None)
    else:
        own = select(Membership.namespace).where(Membership.user_id == viewer.id)
        seen = or_(Job.owner_id == viewer.id, Job.namespace.in_(own))
    if viewer.repos is None:
        return seen
    hidden = (
        select(JobInput.job_id)
        .join(Commit, Commit.id == JobInput.commit_id)
        .join(Repo, Repo.id == Commit.repo_id)
        .where(JobInput.job_id == Job.id, ~permissions.readable(viewer))
    )
    return and_(seen, ~hidden.exists())


def find(session: Session, viewer: Viewer | None, job_id: uuid.UUID) -> Job:
    job = session.scalar(select(Job).where(Job.id == job_id, readable(viewer)))
    if job is None:
        raise JobNotFound(f"There is no job {job_id} that you can see.")
    return job


def listing(
    session: Session,
    viewer: Viewer,
    *,
    kind: str | None = None,
    state: str | None = None,
    namespace: str | None = None,
    before: uuid.UUID | None = None,
    limit: int = 50,
) -> list[tuple[Job, str]]:
    """Jobs with the names of their owners, newest first, from below the job `before` on. Ids are in the order of time."""
    query = select(Job, User.name).join(User, User.id == Job.owner_id).where(readable(viewer))
    for column, value in ((Job.kind, kind), (Job.state, state), (Job.namespace, namespace)):
        if value:
            query = query.where(column == value)
    if before:
        query = query.where(Job.id < before)
    return [(job, owner) for job, owner in session.execute(query.order_by(Job.id.desc()).limit(limit))]


def result_commit(session: Session, job: Job) -> tuple[Repo, Commit] | None:
    row = session.execute(
        select(Repo, Commit).join(Commit, Commit.repo_id == Repo.id).where(Commit.job_id == job.id)
    ).one_or_none()
    return (row[0], row[1]) if row else None


def events(session: Session, job_id: uuid.UUID, after: int = 0, limit: int = 1000) -> Sequence[JobEvent]:
    """Events with a sequence number above `after`, in order."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > min(after, LAST_SEQ))
    return session.scalars(query.order_by(JobEvent.seq).limit(limit)).all()


def newest_events(session: Session, job_id: uuid.UUID, limit: int) -> Sequence[JobEvent]:
    """The last ones, newest first."""
    query = select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq.desc()).limit(limit)
    return session.scalars(query).all()


def sampled_events(session: Session, job_id: uuid.UUID, points: int) -> Sequence[JobEvent]:
    """Events for a plot, in order: up to about so many of them, evenly, and the first of every phase."""
    last = session.scalar(select(func.max(JobEvent.seq)).where(JobEvent.job_id == job_id)) or 0
    chosen = or_(JobEvent.seq % max(1, last // points) == 0, JobEvent.step == 0, JobEvent.seq == last)
    return session.scalars(select(JobEvent).where(JobEvent.job_id == job_id, chosen).order_by(JobEvent.seq)).all()
