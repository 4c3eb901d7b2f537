"""Reading jobs: which of them a viewer may see, their events, their results."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import (
    ColumnElement,
    Integer,
    Uuid,
    and_,
    column,
    func,
    literal,
    or_,
    select,
    true,
    union_all,
    values,
)
from sqlalchemy.orm import Session, aliased

from hub.registry.access import permissions
from hub.registry.access.viewer import Viewer
from hub.registry.jobs.leases import LAST_SEQ
from hub.registry.models.access import Membership, User
from hub.registry.models.content import Commit, Repo
from hub.registry.models.jobs import Job, JobEvent, JobInput
from hub.registry.platform.errors import NotFound
from hub.vocabulary import JobKind, JobState

EVENTS_A_PAGE = 1000


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
    kind: JobKind | Literal[""] | None = None,
    state: JobState | Literal[""] | None = None,
    namespace: str | None = None,
    before: uuid.UUID | None = None,
    limit: int = 50,
) -> list[tuple[Job, str]]:
    """Jobs with the names of their owners, newest first, from below the job `before` on. Ids are in the order of time."""
    query = select(Job, User.name).join(User, User.id == Job.owner_id).where(readable(viewer))
    for field, value in ((Job.kind, kind), (Job.state, state), (Job.namespace, namespace)):
        if value:
            query = query.where(field == value)
    if before:
        query = query.where(Job.id < before)
    return [(job, owner) for job, owner in session.execute(query.order_by(Job.id.desc()).limit(limit))]


@dataclass(frozen=True)
class Published:
    """Where a job's result is."""

    repo: str
    commit: str


def results(session: Session, jobs: Iterable[Job]) -> dict[uuid.UUID, Published]:
    """By job, what each has published; in one statement for all of them."""
    query = (
        select(Commit.job_id, Repo.namespace + "/" + Repo.name, Commit.id)
        .join(Repo, Commit.repo_id == Repo.id)
        .where(Commit.job_id.in_([job.id for job in jobs]))
    )
    return {job_id: Published(repo, commit) for job_id, repo, commit in session.execute(query) if job_id}


def states(session: Session, watched: Iterable[tuple[uuid.UUID, Viewer]]) -> dict[tuple[uuid.UUID, Viewer], JobState]:
    """The state of each job that its viewer may still see; in one statement for all of them."""
    by_viewer: dict[Viewer, set[uuid.UUID]] = {}
    for job_id, viewer in watched:
        by_viewer.setdefault(viewer, set()).add(job_id)
    viewers = list(by_viewer)
    seen = [
        select(literal(index), Job.id, Job.state).where(Job.id.in_(by_viewer[viewer]), readable(viewer))
        for index, viewer in enumerate(viewers)
    ]
    if not seen:
        return {}
    rows = session.execute(union_all(*seen))
    return {(job_id, viewers[index]): state for index, job_id, state in rows}


def new_events(
    session: Session, watched: Iterable[tuple[uuid.UUID, int]], limit: int = EVENTS_A_PAGE
) -> dict[tuple[uuid.UUID, int], list[JobEvent]]:
    """By (job, sequence number), the job's first events above that number; in one statement for all of them."""
    wanted = list(dict.fromkeys(watched))
    if not wanted:
        return {}
    places = values(column("place", Integer), column("job_id", Uuid), column("after", Integer), name="places").data(
        [(place, job_id, min(after, LAST_SEQ)) for place, (job_id, after) in enumerate(wanted)]
    )
    newer = (
        select(JobEvent)
        .where(JobEvent.job_id == places.c.job_id, JobEvent.seq > places.c.after)
        .order_by(JobEvent.seq)
        .limit(limit)
        .lateral()
    )
    event = aliased(JobEvent, newer)
    rows = session.execute(
        select(places.c.place, event).join_from(places, event, true()).order_by(places.c.place, event.seq)
    )
    found: dict[tuple[uuid.UUID, int], list[JobEvent]] = {}
    for place, one in rows:
        found.setdefault(wanted[place], []).append(one)
    return found


def events(session: Session, job_id: uuid.UUID, after: int = 0, limit: int = EVENTS_A_PAGE) -> Sequence[JobEvent]:
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
