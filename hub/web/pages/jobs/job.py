"""Jobs: the list, and one as it runs and when it has ended."""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import RedirectResponse
from markupsafe import Markup
from sqlalchemy.orm import Session

from hub.drawing import svg
from hub.drawing.heat import partition_maps
from hub.drawing.plot import loss_trace, progress_curve, reward_curve, training_curve
from hub.http.identity import SessionDep, ViewerDep
from hub.http.permissions import CanUseJobs
from hub.registry.access import users
from hub.registry.access.viewer import Viewer
from hub.registry.jobs import job_queries, queueing, usage
from hub.registry.models.access import User
from hub.registry.models.jobs import Job, JobEvent
from hub.registry.platform.errors import NotSignedIn
from hub.vocabulary import FINISHED, JOB_KINDS, JOB_STATES, JobKind, JobState
from hub.web.render import page
from hub.web.report import METRICS, summarize_report

router = APIRouter(include_in_schema=False)


TITLES = {"par": "LoRA-PAR"}
PAGE = 50
LOG = 200  # lines of it on the page
POINTS = 500  # of a plot
DRAWN = ("loss", "best", "validation_loss", "reward", "learning_rate_a", "learning_rate_b")
# Parameters that the page shows elsewhere: as inputs, or in its head.
PINNED = ("modules", "module", "start", "examples", "held_out", "gold", "datasets")
ELSEWHERE = ("result", "base", "prompt", *PINNED)


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
    asked = {"kind": kind, "state": state, "namespace": namespace}
    found = job_queries.listing(
        session, viewer, kind=kind, state=state, namespace=namespace, before=before, limit=PAGE + 1
    )
    shown = found[:PAGE]
    return page(
        "jobs/list.html",
        viewer,
        jobs=shown,
        last={job.id: _last(session, job) for job, _ in shown if job.state == "running"},
        outcomes={
            job.id: summarize_report(job.result["report"]).headline
            for job, _ in shown
            if job.result and job.result.get("report")
        },
        asked=asked,
        kinds=JOB_KINDS,
        states=JOB_STATES,
        namespaces=[namespace.name for namespace, _ in users.namespaces(session, viewer)],
        following={**asked, "before": shown[-1][0].id} if len(found) > PAGE else None,
        first=before is None,
        title=title,
        taken=_taken,
    )


@router.get("/jobs/{job_id}")
def job(session: SessionDep, viewer: ViewerDep, job_id: uuid.UUID) -> Response:
    if viewer is None:
        raise NotSignedIn("Sign in to see your jobs.")
    found = job_queries.find(session, viewer, job_id)
    result = job_queries.result_commit(session, found)
    live = found.state not in FINISHED
    return page(
        "jobs/job.html",
        viewer,
        job=found,
        title=title(found),
        devices=usage.devices(session, found),
        owner=session.get_one(User, found.owner_id).name,
        repo=result[0].full_name if result else None,
        commit=result[1].id if result else None,
        log=job_queries.newest_events(session, found.id, LOG),
        live=_live(session, viewer, found) if live else None,
        taken=_taken(found),
        inputs=list(_inputs(found.params)),
        asked=sorted(_asked(found.params)),
        request=json.dumps(found.params, indent=1, ensure_ascii=False),
        again=f"/new/{found.kind}?again={found.id}",
        metrics=METRICS,
        **_pictures(found.result or {}),
    )


@router.post("/jobs/{job_id}/cancel")
def cancel(session: SessionDep, permit: CanUseJobs, job_id: uuid.UUID) -> Response:
    queueing.cancel(session, permit.viewer, job_id)
    return RedirectResponse(f"/jobs/{job_id}", status_code=303)


def title(job: Job) -> str:
    """What a person would call it: its kind, and what it makes or looks at."""
    name = TITLES.get(job.kind, job.kind.capitalize())
    if "result" in job.params:
        return f"{name} {job.params['result']}"
    if job.kind == "evaluate":
        modules, datasets = len(job.params["modules"]), len(job.params["datasets"])
        things = f"{modules} module{'s' * (modules != 1)}" if modules else "a base"
        return f"{name} {things} on {datasets} data set{'s' * (datasets != 1)}"
    module = job.params.get("module")
    return f"{name} with {module['repo']}" if module else name


# --- while it runs ----------------------------------------------------------------------------------------------------


def _live(session: Session, viewer: Viewer, job: Job) -> dict[str, Any]:
    """How far it is; what was reported so far, for a plot that scripts carry on; and for a queued one what is before it."""
    events = job_queries.sampled_events(session, job.id, POINTS)
    points = [
        {"seq": event.seq, "phase": event.phase, "step": event.step, **_drawn(event)}
        for event in events
        if event.attempt == job.attempt and (event.step == 0 or _drawn(event))
    ]
    last = events[-1] if events else None
    phases = [point["phase"] for point in points if point["step"]]
    part = [point for point in points if phases and point["phase"] == phases[-1] and point["step"]]
    return {
        "last": last,
        "left": _seconds_left(events) if job.state == "running" else None,
        "points": points,
        "phase": phases[-1] if phases else None,
        "plot": progress_curve(part),
        "wait": usage.wait(session, job) if job.state == "queued" else None,
        "may_cancel": queueing.may_cancel(session, viewer, job),
    }


def _drawn(event: JobEvent) -> dict[str, float]:
    return {name: event.numbers[name] for name in DRAWN if name in event.numbers}


def _seconds_left(events: Sequence[JobEvent]) -> float | None:
    """Of the part that runs now: what the worker says, or else what its steps so far have taken."""
    if not events:
        return None
    last = events[-1]
    if "seconds_left" in last.numbers:
        return last.numbers["seconds_left"]
    begun = next(event for event in events if (event.phase, event.attempt) == (last.phase, last.attempt))
    if last.step <= begun.step:
        return None
    return (last.at - begun.at).total_seconds() / (last.step - begun.step) * (last.total - last.step)


def _last(session: Session, job: Job) -> JobEvent | None:
    newest = job_queries.newest_events(session, job.id, 1)
    return newest[0] if newest else None


def _taken(job: Job) -> float | None:
    """Seconds from its first start to its end, or until now."""
    if job.started_at is None:
        return None
    return ((job.finished_at or datetime.now(UTC)) - job.started_at).total_seconds()


# --- what was asked ---------------------------------------------------------------------------------------------------


def _inputs(params: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """What the job pinned: the part it plays, its name, its page at that commit."""
    for role in PINNED:
        given = params.get(role) or []
        for pinned in given if isinstance(given, list) else [given]:
            kind = "adapters" if role in ("modules", "module", "start") else "datasets"
            inner = pinned.get("path") or pinned.get("folder") or ""
            yield {
                "role": {"modules": "module", "start": "starts from", "datasets": "data set"}.get(role, role),
                "name": pinned["repo"],
                "inner": inner,
                "commit": pinned["commit"],
                "href": f"/{kind}/{pinned['repo']}?revision={pinned['commit']}",
            }


def _asked(params: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    """Parameters in words, without what is not set or shown elsewhere; what has parts is told part by part."""
    for name, value in params.items():
        label = f"{within} {name}".strip().replace("_", " ")
        if name in ELSEWHERE and not within:
            continue
        if isinstance(value, Mapping):
            yield from _asked(value, "" if name in ("recipe", "changes") else label)
        elif text := _words(value):
            yield label, text


def _words(value: Any) -> str:
    if value is None or value in ([], {}):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(_words(each) for each in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_words(each)}" for name, each in value.items())
    return str(value)


# --- when it has ended ------------------------------------------------------------------------------------------------


def _pictures(result: Mapping[str, Any]) -> dict[str, Any]:
    partition = result.get("partition")
    return {
        "judged": summarize_report(result["report"]) if result.get("report") else None,
        "weights": _weights(result.get("weights") or {}),
        "plot": loss_trace(result.get("trace", [])),
        "curves": {name: training_curve(curve) for name, curve in _ours_first(result.get("curve", {}))},
        "rewards": {name: reward_curve(curve) for name, curve in _ours_first(result.get("rewards", {}))},
        "searches": _ours_first(result.get("search") or {}),
        "maps": partition_maps(partition["matrices"]) if partition else None,
        "gains": _gains(result),
        "spectra": [_spectrum(each) for each in result.get("spectra", [])],
    }


def _ours_first(each: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """By name: the result, then what it is compared with."""
    return sorted(each.items(), key=lambda item: (item[0] not in ("module", "par"), item[0]))


def _weights(weights: Mapping[str, float]) -> list[tuple[str, str, float]]:
    """(name, address, weight), the largest first. A module's name says its commit: `starter/plurals@0123abcd`."""
    found = []
    for name, weight in sorted(weights.items(), key=lambda item: -abs(item[1])):
        path, _, commit = name.partition("@")
        repo = "/".join(path.split("/")[:2])
        found.append((path, f"/adapters/{repo}?revision={commit}", weight))
    return found


def _gains(result: Mapping[str, Any]) -> Markup:
    """The picture of a reduction's predicted gains, whose text the drawing escapes."""
    if not result.get("matrices"):
        return Markup()
    return Markup(svg.gains(result["matrices"], [cut["path"] for cut in result["cuts"]]))  # noqa: S704


def _spectrum(each: Mapping[str, Any]) -> Markup:
    return Markup(svg.spectrum(each["path"], each["values"], each["kept"]))  # noqa: S704 - the drawing escapes its text
