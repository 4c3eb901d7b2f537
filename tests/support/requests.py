"""Requests of jobs, written as the JSON that a client would send."""

from pydantic import TypeAdapter

from hub.registry.jobs.kinds import JobRequest

REQUESTS: TypeAdapter[JobRequest] = TypeAdapter(JobRequest)
