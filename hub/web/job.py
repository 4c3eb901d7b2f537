"""Jobs: the list, and one as it runs and when it has ended."""

import uuid
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse
from markupsafe import Markup

from hub import pictures
from hub.http import SessionDep, ViewerDep
from hub.registry import jobs
from hub.registry.errors import NotSignedIn
from hub.web.plot import loss_trace, reward_curve, training_curve
from hub.web.render import page

router = APIRouter(include_in_schema=False)


@router.get("/jobs")
def list_jobs(session: SessionDep, viewer: ViewerDep) -> Response:
    if viewer is None:
        raise NotSignedIn("Sign in to see your jobs.")
    return page("jobs.html", viewer, jobs=jobs.listing(session, viewer))


@router.get("/jobs/{job_id}")
def job(session: SessionDep, viewer: ViewerDep, job_id: uuid.UUID) -> Response:
    if viewer is None:
        raise NotSignedIn("Sign in to see your jobs.")
    found = jobs.find(session, viewer, job_id)
    result = jobs.result_commit(session, found)
    events = jobs.events(session, found.id)
    return page(
        "job.html",
        viewer,
        job=found,
        result_repo=result[0].full_name if result else None,
        last=events[-1] if events else None,
        plot=loss_trace((found.result or {}).get("trace", [])),
        curves={name: training_curve(curve) for name, curve in (found.result or {}).get("curve", {}).items()},
        rewards={name: reward_curve(curve) for name, curve in (found.result or {}).get("rewards", {}).items()},
        gains=_gains(found.result or {}),
        live=found.state not in jobs.FINISHED,
    )


def _gains(result: Mapping[str, Any]) -> Markup:
    """The picture of a reduction's predicted gains, whose text the drawing escapes."""
    if not result.get("matrices"):
        return Markup()
    return Markup(pictures.gains(result["matrices"], [cut["path"] for cut in result["cuts"]]))  # noqa: S704


@router.post("/jobs/{job_id}/cancel")
def cancel(session: SessionDep, viewer: ViewerDep, job_id: uuid.UUID) -> Response:
    if viewer is None:
        raise NotSignedIn("Sign in to cancel a job.")
    jobs.cancel(session, viewer, job_id)
    return RedirectResponse(f"/jobs/{job_id}", status_code=303)
