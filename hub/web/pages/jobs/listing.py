"""The list of jobs."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from sqlalchemy.orm import Session

from hub.http.identity import SessionDep, ViewerDep
from hub.registry.access import users
from hub.registry.jobs import job_queries
from hub.registry.jobs.kinds import params_of, result_of
from hub.registry.models.jobs import Job, JobEvent
from hub.registry.platform.errors import NotSignedIn
from hub.vocabulary import JOB_KINDS, JOB_STATES, JobKind, JobState
from hub.web.pages.jobs.job import report_of, seconds_taken
from hub.web.pages.jobs.parameters import title
from hub.web.render import Page, render
from hub.web.report import summarize_report

router = APIRouter(include_in_schema=False)

PAGE_SIZE = 50


@dataclass(frozen=True)
class JobRow:
    job: Job
    title: str
    owner: str
    last_event: JobEvent | None  # of a running job
    outcome: str  # of a finished one: whether it helped
    seconds_taken: float | None


@dataclass(frozen=True)
class JobListPage(Page, template="jobs/list.html"):
    """Jobs that the viewer may see, newest first."""

    """One page of the jobs that match the filters."""

    rows: Sequence[JobRow]
    filters: Mapping[str, str]
    kinds: Sequence[JobKind]
    states: Sequence[JobState]
    namespaces: Sequence[str]
    older: Mapping[str, str] | None  # the query of the next page
    first: bool


@router.get("/jobs")
def list_jobs(
    session: SessionDep,
    viewer: ViewerDep,
    kind: JobKind | Literal[""] = "",
    state: JobState | Literal[""] = "",
    namespace: Annotated[str, Query(pattern=r"^[\w.-]{0,96}$")] = "",
    before: uuid.UUID | None = None,
) -> Response:
    if viewer is None:
        raise NotSignedIn("Sign in to see your jobs.")
    filters = {"kind": kind, "state": state, "namespace": namespace}
    jobs = job_queries.listing(
        session, viewer, kind=kind, state=state, namespace=namespace, before=before, limit=PAGE_SIZE + 1
    )
    rows = [_row(session, job, owner) for job, owner in jobs[:PAGE_SIZE]]
    page = JobListPage(
        rows=rows,
        filters=filters,
        kinds=JOB_KINDS,
        states=JOB_STATES,
        namespaces=[account.name for account, _ in users.namespaces(session, viewer)],
        older={**filters, "before": str(rows[-1].job.id)} if len(jobs) > PAGE_SIZE else None,
        first=before is None,
    )
    return render(page, viewer)


def _row(session: Session, job: Job, owner: str) -> JobRow:
    report = report_of(result_of(job))
    newest = job_queries.newest_events(session, job.id, 1) if job.state == "running" else []
    return JobRow(
        job=job,
        title=title(job.kind, params_of(job)),
        owner=owner,
        last_event=newest[0] if newest else None,
        outcome=summarize_report(report).headline if report else "",
        seconds_taken=seconds_taken(job),
    )
