"""A job may run for so long and no longer: ended by its worker at the next step, or by the sweep where that is gone."""

import uuid
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from hub.registry.jobs import leases
from hub.registry.models.jobs import Job
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.files import TINY
from tests.support.published import WORKER, base

ASK: dict[str, Any] = {"kind": "generate", "prompt": "hi", "base": TINY}


def submit(client: TestClient, person: Person, **more: Any) -> uuid.UUID:
    answer = client.post("/v1/jobs", headers=person.headers, json={**ASK, **more})
    assert answer.status_code == 202, answer.text
    return uuid.UUID(answer.json()["id"])


def limit(services: Services, job_id: uuid.UUID) -> float:
    with transaction(services.sessions) as session:
        return session.get_one(Job, job_id).time_limit


def started_ago(services: Services, job_id: uuid.UUID, seconds: int, *, dead: bool = False) -> None:
    change = f"started_at = now() - interval '{seconds} seconds'" + (", lease_until = now()" if dead else "")
    with transaction(services.sessions) as session:
        session.execute(text(f"UPDATE jobs SET {change} WHERE id = :id"), {"id": job_id})  # noqa: S608 - our own words


def test_the_hub_s_own_limit_is_the_longest(client: TestClient, services: Services, ann: Person) -> None:
    base(services)
    assert limit(services, submit(client, ann)) == 86_400
    assert limit(services, submit(client, ann, time_limit_minutes=90)) == 5_400
    assert limit(services, submit(client, ann, time_limit_minutes=100_000)) == 86_400
    for wrong in (0, -1, "soon"):
        answer = client.post("/v1/jobs", headers=ann.headers, json={**ASK, "time_limit_minutes": wrong})
        assert answer.status_code == 422


def test_a_job_over_its_limit_ends_at_its_next_step(client: TestClient, services: Services, ann: Person) -> None:
    base(services)
    job_id = submit(client, ann, time_limit_minutes=1)
    with transaction(services.sessions) as session:
        lease = leases.claim(session, job_id, WORKER, 300)
    assert lease is not None
    started_ago(services, job_id, 50)
    with transaction(services.sessions) as session:
        leases.record(session, lease, 1, "search", 1, 40, {})
    started_ago(services, job_id, 61)
    with (
        pytest.raises(leases.TimeLimitReached, match=r"limit of 1 minutes\. It had reached step 2 of 40 of 'search'"),
        transaction(services.sessions) as session,
    ):
        leases.record(session, lease, 2, "search", 2, 40, {})


def test_a_dead_worker_s_job_over_its_limit_does_not_run_again(
    client: TestClient, services: Services, ann: Person
) -> None:
    base(services)
    ids = [submit(client, ann, time_limit_minutes=minutes) for minutes in (1, 2)]
    for job_id in ids:
        with transaction(services.sessions) as session:
            assert leases.claim(session, job_id, WORKER, 300)
        started_ago(services, job_id, 70, dead=True)
    with transaction(services.sessions) as session:
        assert leases.end_dead(session) == 2
    late, again = (client.get(f"/v1/jobs/{job_id}", headers=ann.headers).json() for job_id in ids)
    assert (late["state"], late["error"]["code"]) == ("failed", "time_limit")
    assert "its limit of 1 minutes" in late["error"]["message"]
    assert again["state"] == "queued"
