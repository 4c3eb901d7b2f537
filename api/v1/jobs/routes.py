"""/v1/jobs: submit, read, watch, cancel. /v1/scores: the figures of evaluations."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Body, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from api.v1.adapters.routes import score_infos
from api.v1.adapters.schemas import ScoreInfo
from api.v1.jobs import schemas
from api.v1.jobs.watch import Watcher
from hub.http.identity import ServicesDep, SessionDep, SignedIn, ViewerDep
from hub.http.permissions import CanUseJobs
from hub.registry.jobs import job_queries, queueing
from hub.registry.jobs.job_queries import Published
from hub.registry.jobs.kinds import JobRequest
from hub.registry.jobs.submit import submit
from hub.registry.library import provenance
from hub.registry.models.jobs import Job, JobEvent
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import InvalidInput
from hub.vocabulary import FINISHED, JobKind, JobState

router = APIRouter(prefix="/v1", tags=["jobs"])


@router.post("/jobs", status_code=202)
def submit_job(
    services: ServicesDep,
    permit: CanUseJobs,
    body: Annotated[JobRequest, Body()],
    response: Response,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> schemas.Job:
    """Queue a job. Sending the same request again with the same Idempotency-Key returns the same job."""
    job = submit(services, permit, body, idempotency_key=idempotency_key)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    with transaction(services.sessions) as session:
        return describe(session, session.get_one(Job, job.id))


@router.get("/jobs")
def list_jobs(
    session: SessionDep,
    viewer: SignedIn,
    kind: JobKind | None = None,
    state: JobState | None = None,
    namespace: str | None = None,
    before: Annotated[uuid.UUID | None, Query(description="the last job of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[schemas.Job]:
    """Your jobs and those of your organizations, newest first."""
    rows = job_queries.listing(session, viewer, kind=kind, state=state, namespace=namespace, before=before, limit=limit)
    jobs = [job for job, _ in rows]
    results = job_queries.results(session, jobs)
    return [_described(job, results.get(job.id)) for job in jobs]


@router.get("/jobs/{job_id}")
def get_job(session: SessionDep, viewer: SignedIn, job_id: uuid.UUID) -> schemas.Job:
    return describe(session, job_queries.find(session, viewer, job_id))


@router.post("/jobs/{job_id}/cancel")
def cancel_job(session: SessionDep, permit: CanUseJobs, job_id: uuid.UUID) -> schemas.Job:
    """A queued job ends at once, a running one within one evaluation. 409 once it has succeeded or failed."""
    return describe(session, queueing.cancel(session, permit, job_id))


@router.get("/jobs/{job_id}/events")
def list_events(
    session: SessionDep, viewer: SignedIn, job_id: uuid.UUID, after: Annotated[int, Query(ge=0)] = 0
) -> list[schemas.JobEvent]:
    """Events with a sequence number above `after`, up to a thousand."""
    job = job_queries.find(session, viewer, job_id)
    return [_event(event) for event in job_queries.events(session, job.id, after)]


@router.get("/jobs/{job_id}/stream", response_class=StreamingResponse)
async def stream_events(
    request: Request,
    services: ServicesDep,
    viewer: SignedIn,
    job_id: uuid.UUID,
    after: Annotated[int, Query(ge=0)] = 0,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Server-sent events. Each `progress` has its sequence number as id, so that a lost connection resumes; `state` ends the stream."""
    if last_event_id is not None:
        if not (last_event_id.isascii() and last_event_id.isdigit()):
            raise InvalidInput(f"Last-Event-ID {last_event_id!r} is not a sequence number.")
        after = int(last_event_id)

    def check() -> None:
        with transaction(services.sessions) as session:
            job_queries.find(session, viewer, job_id)

    await run_in_threadpool(check)
    watcher: Watcher = request.app.state.watcher
    return StreamingResponse(
        _stream(watcher, viewer, job_id, after),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _stream(watcher: Watcher, viewer: SignedIn, job_id: uuid.UUID, after: int) -> AsyncIterator[str]:
    with watcher.subscribe(job_id, viewer, after) as news:
        while True:
            try:
                item = await asyncio.wait_for(news.get(), timeout=15)
            except TimeoutError:
                yield ": still here\n\n"  # keeps proxies from closing a quiet stream
                continue
            if isinstance(item, JobEvent):
                yield f"id: {item.seq}\nevent: progress\ndata: {_event(item).model_dump_json()}\n\n"
            else:
                yield f"event: state\ndata: {json.dumps({'state': item})}\n\n"
                if item in (*FINISHED, "gone"):
                    return


@router.get("/scores")
def list_scores(session: SessionDep, viewer: ViewerDep) -> list[ScoreInfo]:
    """Figures that evaluations measured, newest first: adapters by data set, with 95% intervals."""
    return score_infos(provenance.scores(session, viewer))


def describe(session: Session, job: Job) -> schemas.Job:
    return _described(job, job_queries.results(session, [job]).get(job.id))


def _described(job: Job, result: Published | None) -> schemas.Job:
    error = {"code": job.error_code, "message": job.error_message or ""} if job.error_code else None
    return schemas.Job(
        id=job.id,
        kind=job.kind,
        state=job.state,
        namespace=job.namespace,
        params=job.params,
        attempt=job.attempt,
        cancel_requested=job.cancel_requested,
        result=job.result,
        result_repo=result.repo if result else None,
        result_commit=result.commit if result else None,
        error=error,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def _event(event: JobEvent) -> schemas.JobEvent:
    return schemas.JobEvent.model_validate(event, from_attributes=True)
