"""A job while it waits, runs and when it has ended."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse
from markupsafe import Markup
from sqlalchemy.orm import Session

from hub.drawing.plot import progress_plot
from hub.formats.report import Report
from hub.http.identity import SessionDep, ViewerDep
from hub.http.permissions import CanUseJobs
from hub.registry.access.viewer import Viewer
from hub.registry.jobs import job_queries, queueing, usage
from hub.registry.jobs.contracts.common import Result
from hub.registry.jobs.job_queries import Published
from hub.registry.jobs.kinds import params_of, result_of
from hub.registry.models.access import User
from hub.registry.models.jobs import Job, JobEvent
from hub.registry.platform.errors import NotSignedIn
from hub.vocabulary import FINISHED, Metric
from hub.web.pages.jobs import parameters
from hub.web.pages.jobs.parameters import PinnedInput
from hub.web.pages.jobs.sections import Section, result_sections
from hub.web.render import Page, render
from hub.web.report import METRICS, ReportSummary, summarize_report

router = APIRouter(include_in_schema=False)

LOG_LENGTH = 200  # events on the page
MAX_POINTS = 500  # of a plot
PLOTTED = ("loss", "best", "validation_loss", "reward", "learning_rate_a", "learning_rate_b")

Figures = dict[str, float]


@runtime_checkable
class Measured(Protocol):
    """The result of a kind that sets what it publishes beside controls."""

    @property
    def report(self) -> Report | None: ...
    @property
    def warnings(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class LiveJob:
    """How far a job is that has not ended. Scripts carry on the plot from its `points`."""

    last: JobEvent | None
    seconds_left: float | None  # of the part that runs now
    points: Sequence[Mapping[str, int | float | str]]
    phase: str | None
    plot: Markup
    wait: usage.Wait | None  # of a queued job
    may_cancel: bool


@dataclass(frozen=True)
class JobPage(Page, template="jobs/job.html"):
    """One job: its inputs and settings, its progress, its results."""

    """A job as it runs, or how it has ended."""

    job: Job
    title: str
    owner: str
    devices: Sequence[str]
    seconds_taken: float | None
    base: str | None
    has_result: bool  # it publishes an adapter, or will
    published: Published | None
    inputs: Sequence[PinnedInput]
    settings: Sequence[tuple[str, str]]  # in words
    params_json: str
    again: str  # where it can be run again with changes
    live: LiveJob | None
    log: Sequence[JobEvent]
    warnings: Sequence[str]
    report: Report | None
    summary: ReportSummary | None
    metrics: Mapping[Metric, str]
    sections: Sequence[Section]


@router.get("/jobs/{job_id}")
def show_job(session: SessionDep, viewer: ViewerDep, job_id: uuid.UUID) -> Response:
    if viewer is None:
        raise NotSignedIn("Sign in to see your jobs.")
    job = job_queries.find(session, viewer, job_id)
    return render(_page(session, viewer, job), viewer)


@router.post("/jobs/{job_id}/cancel")
def cancel(session: SessionDep, permit: CanUseJobs, job_id: uuid.UUID) -> Response:
    queueing.cancel(session, permit, job_id)
    return RedirectResponse(f"/jobs/{job_id}", status_code=303)


def _page(session: Session, viewer: Viewer, job: Job) -> JobPage:
    params, result = params_of(job), result_of(job)
    report = report_of(result)
    published = job_queries.results(session, [job]).get(job.id)
    return JobPage(
        job=job,
        title=parameters.title(job.kind, params),
        owner=session.get_one(User, job.owner_id).name,
        devices=usage.devices(session, job),
        seconds_taken=seconds_taken(job),
        base=parameters.base_id(params),
        has_result=published is not None or parameters.result_name(params) is not None,
        published=published,
        inputs=list(parameters.pinned_inputs(params)),
        settings=parameters.settings_in_words(params),
        params_json=json.dumps(job.params, indent=1, ensure_ascii=False),
        again=f"/new/{job.kind}?again={job.id}",
        live=_live(session, viewer, job) if job.state not in FINISHED else None,
        log=job_queries.newest_events(session, job.id, LOG_LENGTH),
        warnings=result.warnings if isinstance(result, Measured) else (),
        report=report,
        summary=summarize_report(report) if report else None,
        metrics=METRICS,
        sections=result_sections(params, result),
    )


def report_of(result: Result | None) -> Report | None:
    return result.report if isinstance(result, Measured) else None


def seconds_taken(job: Job) -> float | None:
    """From its first start to its end, or until now."""
    if job.started_at is None:
        return None
    return ((job.finished_at or datetime.now(UTC)) - job.started_at).total_seconds()


# --- while it runs ----------------------------------------------------------------------------------------------------


def _live(session: Session, viewer: Viewer, job: Job) -> LiveJob:
    events = job_queries.sampled_events(session, job.id, MAX_POINTS)
    plotted = [
        (event, figures)
        for event in events
        if event.attempt == job.attempt and ((figures := _plotted(event)) or event.step == 0)
    ]
    steps = [(event, figures) for event, figures in plotted if event.step]
    phase = steps[-1][0].phase if steps else None
    return LiveJob(
        last=events[-1] if events else None,
        seconds_left=_seconds_left(events) if job.state == "running" else None,
        points=[{"seq": event.seq, "phase": event.phase, "step": event.step, **figures} for event, figures in plotted],
        phase=phase,
        plot=progress_plot([(event.step, figures) for event, figures in steps if event.phase == phase]),
        wait=usage.wait(session, job) if job.state == "queued" else None,
        may_cancel=queueing.may_cancel(session, viewer, job),
    )


def _plotted(event: JobEvent) -> Figures:
    return {name: event.numbers[name] for name in PLOTTED if name in event.numbers}


def _seconds_left(events: Sequence[JobEvent]) -> float | None:
    """Of the part that runs now: as the worker reported, or else by what its steps so far have taken."""
    if not events:
        return None
    last = events[-1]
    if "seconds_left" in last.numbers:
        return last.numbers["seconds_left"]
    first = next(event for event in events if (event.phase, event.attempt) == (last.phase, last.attempt))
    if last.step <= first.step:
        return None
    return (last.at - first.at).total_seconds() / (last.step - first.step) * (last.total - last.step)
