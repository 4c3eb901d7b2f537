"""Device-seconds are counted over all attempts, whatever became of them; and the system's page tells who is there and what waits."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text, update
from starlette.testclient import TestClient

from hub.registry.jobs import leases, queueing, usage
from hub.registry.jobs.leases import Lease, Worker
from hub.registry.jobs.queueing import Submission
from hub.registry.models.jobs import Attempt, Job, WorkerProcess
from hub.registry.operations import sweep
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.vocabulary import JobKind, QueueName
from tests.conftest import Person
from tests.support import published
from tests.support.published import AnyParams

CPU, CARD = Worker("gpu@one", "cpu"), Worker("gpu@two", "cuda NVIDIA H100 80GB HBM3")


def submit(services: Services, person: Person, kind: JobKind = "train", queue: QueueName = "gpu") -> uuid.UUID:
    submission = Submission(kind, queue, AnyParams(), [], person.name, "private")
    with transaction(services.sessions) as session:
        job = queueing.submit(session, services.queue, person.viewer, submission, idempotency_key=None, request={})
        return job.id


def claim(services: Services, job_id: uuid.UUID, worker: Worker = CPU, *, ago: float = 0) -> Lease:
    """Claimed so many seconds ago, as far as the counting of seconds is concerned."""
    with transaction(services.sessions) as session:
        lease = leases.claim(session, job_id, worker, 30)
        assert lease is not None
        session.flush()
        long_ago = text(f"now() - interval '{ago} seconds'")
        ours = update(Attempt).where(Attempt.job_id == job_id, Attempt.attempt == lease.attempt)
        session.execute(ours.values(started_at=long_ago, heartbeat_at=long_ago))
    return lease


def die(services: Services, job_id: uuid.UUID) -> None:
    with transaction(services.sessions) as session:
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=text("now() - interval '1 second'")))


def used(client: TestClient, person: Person, path: str = "/v1/namespaces/ann/usage", **params: Any) -> list[Any]:
    answer = client.get(path, headers=person.headers, params=params)
    assert answer.status_code == 200, answer.text
    return list(answer.json())


@pytest.mark.parametrize("ending", ["succeed", "fail", "cancel", "renew"])
def test_an_attempt_counts_to_its_end_whatever_that_is_or_to_its_last_heartbeat(
    client: TestClient, services: Services, ann: Person, ending: str
) -> None:
    lease = claim(services, submit(services, ann), ago=100)
    with transaction(services.sessions) as session:
        if ending == "succeed":
            leases.succeed(session, lease, {})
        elif ending == "fail":
            leases.fail(session, lease, "out_of_memory", "no")
        elif ending == "cancel":
            leases.end_cancelled(session, lease)
        else:
            assert leases.renew(session, lease, 30)
    (row,) = used(client, ann)
    month = datetime.now(UTC) - timedelta(seconds=100)
    assert row.pop("seconds") == pytest.approx(100, abs=2)
    assert row == {
        "namespace": "ann", "month": f"{month:%Y-%m}", "device": "cpu", "kind": "train", "attempts": 1
    }  # fmt: skip


def test_a_worker_that_died_is_counted_to_its_last_heartbeat_and_the_next_attempt_beside_it(
    client: TestClient, services: Services, ann: Person
) -> None:
    job_id = submit(services, ann)
    first = claim(services, job_id, ago=60)
    with transaction(services.sessions) as session:
        assert leases.renew(session, first, 30)
    die(services, job_id)
    with transaction(services.sessions) as session:
        leases.end_dead(session)
    second = claim(services, job_id, CARD, ago=5)
    with transaction(services.sessions) as session:
        assert not leases.renew(session, first, 30)  # it wakes up again, and counts no further
    with transaction(services.sessions) as session:
        leases.succeed(session, second, {})
    by_device = {row["device"]: (row["attempts"], row["seconds"]) for row in used(client, ann)}
    assert by_device == {"cpu": (1, pytest.approx(60, abs=2)), CARD.device: (1, pytest.approx(5, abs=2))}


def test_one_that_died_before_its_first_heartbeat_counts_as_an_attempt_of_no_length(
    client: TestClient, services: Services, ann: Person
) -> None:
    job_id = submit(services, ann)
    for _ in range(leases.MAX_ATTEMPTS):
        claim(services, job_id, ago=10)
        die(services, job_id)
        sweep.sweep(services)
    (row,) = used(client, ann)
    assert (row["attempts"], row["seconds"]) == (3, 0)


def test_sums_are_by_month_device_and_kind_and_each_namespace_sees_its_own(
    client: TestClient, services: Services, ann: Person, bob: Person, admin: Person
) -> None:
    ran: list[tuple[Person, JobKind, int]] = [(ann, "train", 2), (ann, "compose", 1), (bob, "train", 1)]
    for person, kind, count in ran:
        for _ in range(count):
            lease = claim(services, submit(services, person, kind), ago=10)
            with transaction(services.sessions) as session:
                leases.succeed(session, lease, {})
    with transaction(services.sessions) as session:
        old = text("started_at - interval '400 days'")
        one = select(Attempt.job_id).where(Attempt.namespace == "ann", Attempt.kind == "train").limit(1)
        session.execute(
            update(Attempt)
            .where(Attempt.job_id == one.scalar_subquery())
            .values(started_at=old, heartbeat_at=text("last_at - interval '400 days'"))
        )
    rows = [(row["kind"], row["attempts"], round(row["seconds"])) for row in used(client, ann)]
    assert rows == [("compose", 1, 10), ("train", 1, 10)]
    long_ago = used(client, ann, months=24)
    assert [(row["kind"], row["attempts"]) for row in long_ago] == [("compose", 1), ("train", 1), ("train", 1)]
    assert long_ago[-1]["month"] < long_ago[0]["month"]
    everything = used(client, admin, "/v1/usage")
    assert [(row["namespace"], row["kind"]) for row in everything] == [
        ("ann", "compose"), ("ann", "train"), ("bob", "train")
    ]  # fmt: skip
    assert client.get("/v1/namespaces/ann/usage", headers=bob.headers).status_code == 404


def test_the_system_tells_what_waits_what_runs_and_on_which_worker(
    client: TestClient, services: Services, ann: Person, admin: Person
) -> None:
    running, first = submit(services, ann), submit(services, ann, "compose")
    submit(services, ann, "compose")
    submit(services, ann, "generate", "interactive")
    claim(services, running, CARD)
    idle = Worker("interactive@one", "cpu")
    with transaction(services.sessions) as session:
        usage.announce(session, CARD, ["gpu"])
        usage.announce(session, idle, ["interactive"])
        usage.announce(session, idle, ["interactive"])
        usage.announce(session, Worker("gpu@gone", "cpu"), ["gpu"])
        gone = update(WorkerProcess).where(WorkerProcess.name == "gpu@gone")
        session.execute(gone.values(seen_at=text("now() - interval '61 seconds'")))
    system = client.get("/v1/system", headers=admin.headers).json()
    gpu, interactive = system["queues"]
    with transaction(services.sessions) as session:
        since = session.get_one(Job, first).created_at
    assert datetime.fromisoformat(gpu.pop("oldest_waiting")) == since
    assert gpu == {"name": "gpu", "waiting": {"compose": 2}, "running": {"train": 1}}
    assert (interactive["waiting"], interactive["running"]) == ({"generate": 1}, {})
    workers = [(each["name"], each["queues"], each["device"], each["jobs"]) for each in system["workers"]]
    assert workers == [
        ("gpu@two", ["gpu"], CARD.device, [str(running)]),
        ("interactive@one", ["interactive"], "cpu", []),
    ]
    assert [(row["namespace"], row["device"], row["attempts"]) for row in system["used"]] == [("ann", CARD.device, 1)]


def test_the_system_tells_what_is_stored_once_and_what_each_namespace_holds(
    client: TestClient, services: Services, ann: Person, bob: Person, admin: Person
) -> None:
    published.dataset(services, ann, "ann/a", {"train.jsonl": b'{"input": "a", "target": "b"}\n'})
    published.dataset(services, bob, "bob/a", {"train.jsonl": b'{"input": "a", "target": "b"}\n'})
    published.dataset(services, bob, "bob/b", {"train.jsonl": b'{"input": "aa", "target": "b"}\n'})
    system = client.get("/v1/system", headers=admin.headers).json()
    assert (system["blobs"], system["bytes"]) == (2, 61)
    assert system["held"] == [{"namespace": "bob", "bytes": 61}, {"namespace": "ann", "bytes": 30}]


def test_a_worker_that_has_said_nothing_for_a_day_is_forgotten(services: Services) -> None:
    with transaction(services.sessions) as session:
        usage.announce(session, Worker("gpu@old", "cpu"), ["gpu"])
        session.execute(update(WorkerProcess).values(seen_at=text("now() - interval '25 hours'")))
        usage.announce(session, CPU, ["gpu"])
        assert session.scalars(select(WorkerProcess.name)).all() == ["gpu@one"]


def test_an_administrator_s_limited_token_sees_neither(client: TestClient, admin: Person) -> None:
    body = {"name": "t", "repos": ["admin/*"]}
    secret = client.post("/v1/tokens", headers=admin.headers, json=body).json()["secret"]
    for path in ("/v1/usage", "/v1/system"):
        refused = client.get(path, headers={"Authorization": f"Bearer {secret}"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "scope_missing")
