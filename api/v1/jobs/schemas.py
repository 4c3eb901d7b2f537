"""Requests and responses of the routes in api/v1/jobs; /v1/openapi.json is made from them."""

import uuid
from datetime import datetime

from pydantic import BaseModel

from hub.vocabulary import JobKind, JobState


class Job(BaseModel):
    id: uuid.UUID
    kind: JobKind
    state: JobState
    namespace: str
    params: dict[str, object]
    attempt: int
    cancel_requested: bool
    result: dict[str, object] | None
    result_repo: str | None
    result_commit: str | None
    error: dict[str, str] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobEvent(BaseModel):
    seq: int
    attempt: int
    at: datetime
    phase: str
    step: int
    total: int
    numbers: dict[str, float]
