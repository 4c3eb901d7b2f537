"""Jobs for tests of workers: their requests, what the database holds of them, and the files of their results."""

import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from starlette.testclient import TestClient

from hub.registry.models.content import Commit
from hub.registry.models.jobs import Job, JobEvent
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from workers.runner import Runner

EXAMPLES = [{"input": f"say {number}", "target": f"it is {number}"} for number in range(6)]
HELD_OUT = [{"input": f"tell {number}", "target": f"it is {number}"} for number in range(4)]


def composition(library: list[str], **changes: Any) -> dict[str, Any]:
    """The body of a small composition."""
    body = {
        "kind": "compose",
        "name": "ann/woven",
        "modules": [{"repo": name} for name in library],
        "examples": {"inline": EXAMPLES},
        "search": "nevergrad",
        "budget": 6,
        "tune": None,
        "template": "plain",
    }
    return body | changes


Submit = Callable[[Mapping[str, Any]], uuid.UUID]


def close(runner: Runner) -> None:
    """Release what the end of its process would release."""
    runner.files.release([])
    runner.services.close()


def job_of(services: Services, job_id: uuid.UUID) -> Job:
    with transaction(services.sessions) as session:
        return session.get_one(Job, job_id)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


RUN_ONE = (
    "import sys, uuid; from hub.registry.platform.settings import load_settings; from workers.runner import Runner; \
Runner(load_settings()).run(uuid.UUID(sys.argv[1]))"
)


def download(client: TestClient, person: Person, name: str, folder: Path, revision: str = "main") -> Path:
    answer = client.get(f"/v1/adapters/{name}", headers=person.headers, params={"revision": revision})
    folder.mkdir()
    for file in answer.json()["files"]:
        address = f"/v1/adapters/{name}/files/{file['path']}"
        (folder / file["path"]).write_bytes(client.get(address, headers=person.headers).content)
    return folder


def results(services: Services, job_id: Any) -> int:
    with transaction(services.sessions) as session:
        return session.scalar(select(func.count()).select_from(Commit).where(Commit.job_id == job_id)) or 0


def steps(services: Services, job_id: Any) -> int:
    with transaction(services.sessions) as session:
        return session.scalar(select(func.count()).select_from(JobEvent).where(JobEvent.job_id == job_id)) or 0


def lease_is_over(services: Services, job_id: Any) -> bool:
    with transaction(services.sessions) as session:
        return bool(session.scalar(select(Job.lease_until < func.now()).where(Job.id == job_id)))
