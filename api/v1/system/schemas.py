"""Requests and responses of the routes in api/v1/system; /v1/openapi.json is made from them."""

import uuid
from datetime import datetime

from pydantic import BaseModel, Field


class DeviceSeconds(BaseModel):
    namespace: str
    month: str = Field(description="in which the attempts began, by UTC")
    device: str = Field(description='"cpu", or "cuda" and the card\'s name')
    kind: str
    attempts: int
    seconds: float = Field(description="from each claim to its end or, where the worker died, to its last heartbeat")


class QueueState(BaseModel):
    name: str
    waiting: dict[str, int] = Field(description="by kind of job")
    running: dict[str, int]
    oldest_waiting: datetime | None


class WorkerState(BaseModel):
    name: str
    queues: list[str]
    device: str
    seen_at: datetime
    jobs: list[uuid.UUID]


class NamespaceBytes(BaseModel):
    namespace: str
    bytes: int


class System(BaseModel):
    queues: list[QueueState]
    workers: list[WorkerState] = Field(description="those seen within the last minute")
    blobs: int = Field(description="files stored, each counted once, however many namespaces hold it")
    bytes: int
    held: list[NamespaceBytes] = Field(description="the hundred namespaces that hold most")
    used: list[DeviceSeconds] = Field(description="this month")
