"""How a job enters the queue, and how its owner cancels it."""

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from hub.registry.access import audit, permissions, quota
from hub.registry.access.permissions import UseJobs
from hub.registry.access.viewer import Viewer
from hub.registry.jobs import webhooks
from hub.registry.jobs.contracts.common import Params
from hub.registry.jobs.job_queries import JobNotFound, find
from hub.registry.models.jobs import Job, JobInput
from hub.registry.platform.errors import Conflict, Forbidden
from hub.registry.platform.job_queue import Queue
from hub.vocabulary import InputRole, JobKind, QueueName, Visibility


class IdempotencyMismatch(Conflict):
    code = "idempotency_key_reused"


class AlreadyFinished(Conflict):
    code = "job_finished"


@dataclass(frozen=True)
class Input:
    commit_id: str
    role: InputRole


@dataclass(frozen=True)
class Submission:
    """A checked request: its inputs exist, its owner may read them, and they fit together. `Request.resolve` makes it."""

    kind: JobKind
    queue: QueueName
    params: Params
    inputs: Sequence[Input]
    namespace: str
    visibility: Visibility
    time_limit: float = 86_400.0  # seconds from its first start


def submit(
    session: Session,
    queue: Queue,
    viewer: Viewer,
    submission: Submission,
    *,
    idempotency_key: str | None,
    request: Mapping[str, JsonValue],
) -> Job:
    """Queue a job and wake a worker once it is committed.

    The same key with the same request returns the first job. With another request it raises IdempotencyMismatch.
    """
    request_hash = hash_request(request)
    values = {
        "kind": submission.kind,
        "queue": submission.queue,
        "params": submission.params.model_dump(mode="json"),
        "owner_id": viewer.id,
        "namespace": submission.namespace,
        "visibility": submission.visibility,
        "time_limit": submission.time_limit,
        "idempotency_key": idempotency_key,
        "request_hash": request_hash,
    }
    quota.require_slot(session, submission.namespace)
    insertion = insert(Job).values(**values).on_conflict_do_nothing(index_elements=["owner_id", "idempotency_key"])
    job_id = session.scalar(insertion.returning(Job.id))
    if job_id is None:
        return existing(session, viewer, idempotency_key or "", request) or _vanished()
    for commit_id, role in {(item.commit_id, item.role) for item in submission.inputs}:
        session.add(JobInput(job_id=job_id, commit_id=commit_id, role=role))
    audit.record(
        session, viewer.name, "job.submitted", str(job_id), namespace=submission.namespace, kind=submission.kind
    )
    queue.send_after_commit(session, submission.queue, job_id)
    return session.get_one(Job, job_id)


def _vanished() -> Job:
    raise JobNotFound("A job with this Idempotency-Key was there a moment ago and is gone; send the request again.")


def hash_request(request: Mapping[str, JsonValue]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def existing(session: Session, viewer: Viewer, idempotency_key: str, request: Mapping[str, JsonValue]) -> Job | None:
    """The job already submitted with this key, if any. Raises IdempotencyMismatch if its request differs."""
    job = session.scalar(select(Job).where(Job.owner_id == viewer.id, Job.idempotency_key == idempotency_key))
    if job is not None and job.request_hash != hash_request(request):
        raise IdempotencyMismatch(
            f"The Idempotency-Key {idempotency_key!r} was used for another request; use a new key for a new job."
        )
    return job


def may_cancel(session: Session, viewer: Viewer, job: Job) -> bool:
    return job.owner_id == viewer.id or permissions.role(session, viewer, job.namespace) in ("write", "admin")


def cancel(session: Session, permit: UseJobs, job_id: uuid.UUID) -> Job:
    """Cancel a job: a queued one ends at once, a running one at its next step. Raises AlreadyFinished after success or failure."""
    job = find(session, permit.viewer, job_id)
    if not may_cancel(session, permit.viewer, job):
        raise Forbidden(f"Only its owner and those who may write in {job.namespace!r} may cancel this job.")
    job = session.get_one(Job, job.id, with_for_update=True, populate_existing=True)
    if job.state == "cancelled":
        return job
    if job.state == "queued":
        job.state, job.finished_at = "cancelled", func.now()
        webhooks.jobs_ended(session, job.id)
    elif job.state == "running":
        job.cancel_requested = True
    else:
        raise AlreadyFinished(f"The job has {job.state} already; there is nothing to cancel.")
    permit.record(session, "job.cancelled", str(job.id), namespace=job.namespace, kind=job.kind)
    session.flush()
    session.refresh(job)
    return job
