"""The stream of a job's events: in order, resumable by sequence number, ended by the final state, closed to who may no longer look."""

import json
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from api.v1.jobs.watch import Subscription, Watcher
from hub.registry.access.permissions import UseJobs, authorize
from hub.registry.jobs import leases, queueing
from hub.registry.jobs.leases import Lease
from hub.registry.jobs.queueing import Submission
from hub.registry.models.jobs import Job
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.published import WORKER, AnyParams
from tests.support.statements import statements

Start = Callable[[], Lease]


@pytest.fixture
def start(services: Services, ann: Person) -> Start:
    """A job of Ann's that a worker has just claimed."""

    def start() -> Lease:
        submission = Submission("generate", "interactive", AnyParams(), [], ann.name, "private")
        with transaction(services.sessions) as session:
            job = queueing.submit(session, services.queue, ann.viewer, submission, idempotency_key=None, request={})
            lease = leases.claim(session, job.id, WORKER, 300)
        assert lease is not None
        return lease

    return start


def record(services: Services, lease: Lease, *seqs: int) -> None:
    with transaction(services.sessions) as session:
        for seq in seqs:
            leases.record(session, lease, seq, "search", seq, 9, {"loss": float(seq)})


def succeed(services: Services, lease: Lease) -> None:
    with transaction(services.sessions) as session:
        leases.succeed(session, lease, {"answer": 42})


def parsed(text: str) -> list[dict[str, Any]]:
    """Server-sent events as their fields; comments, which keep a connection open, are left out."""
    events = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            events.append({**fields, "data": json.loads(fields["data"])})
    return events


def test_one_poll_is_two_statements_however_many_watch(
    services: Services, ann: Person, bob: Person, start: Start
) -> None:
    first, second = start(), start()
    for lease in (first, second):
        record(services, lease, 1, 2, 3)
    succeed(services, second)
    streams = [
        Subscription(first.job_id, ann.viewer, 0),
        Subscription(first.job_id, ann.viewer, 2),
        Subscription(second.job_id, ann.viewer, 3),
        Subscription(second.job_id, bob.viewer, 0),
    ]
    with statements(services) as sent:
        news = [
            [item if isinstance(item, str) else item.seq for item in items]
            for _, items in Watcher(services.sessions)._read(streams)
        ]
    assert news == [[1, 2, 3, "running"], [3, "running"], ["succeeded"], ["gone"]]
    assert len(sent) == 2, sent


def watch(client: TestClient, person: Person, job_id: uuid.UUID, **options: Any) -> list[dict[str, Any]]:
    """The whole stream: it ends by itself, once the job has."""
    headers = {**person.headers, **options.pop("headers", {})}
    answer = client.get(f"/v1/jobs/{job_id}/stream", headers=headers, **options)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.headers["Cache-Control"] == "no-store"
    return parsed(answer.text)


def ids(events: list[dict[str, Any]]) -> list[int]:
    return [int(event["id"]) for event in events if event["event"] == "progress"]


def states(events: list[dict[str, Any]]) -> list[str]:
    return [event["data"]["state"] for event in events if event["event"] == "state"]


def test_events_come_in_order_and_the_state_ends_them(
    client: TestClient, services: Services, ann: Person, start: Start
) -> None:
    lease = start()
    record(services, lease, 1, 2, 3)
    succeed(services, lease)
    events = watch(client, ann, lease.job_id)
    assert [event["event"] for event in events] == ["progress"] * 3 + ["state"]
    assert (ids(events), states(events)) == ([1, 2, 3], ["succeeded"])
    first = events[0]["data"]
    assert (first["seq"], first["phase"], first["numbers"]) == (1, "search", {"loss": 1.0})


@pytest.mark.parametrize("how", [{"headers": {"Last-Event-ID": "2"}}, {"params": {"after": 2}}])
def test_a_stream_goes_on_after_the_last_event_that_was_seen(
    client: TestClient, services: Services, ann: Person, start: Start, how: dict[str, Any]
) -> None:
    lease = start()
    record(services, lease, 1, 2, 3, 4)
    succeed(services, lease)
    assert ids(watch(client, ann, lease.job_id, **how)) == [3, 4]


def test_the_last_event_id_of_a_browser_counts_more_than_the_address_it_began_with(
    client: TestClient, services: Services, ann: Person, start: Start
) -> None:
    lease = start()
    record(services, lease, 1, 2, 3)
    succeed(services, lease)
    assert ids(watch(client, ann, lease.job_id, headers={"Last-Event-ID": "2"}, params={"after": 0})) == [3]


def test_a_last_event_id_that_is_no_number_is_refused(client: TestClient, ann: Person, start: Start) -> None:
    for wrong in ("x", "-1", "1.5"):
        headers = {**ann.headers, "Last-Event-ID": wrong}
        answer = client.get(f"/v1/jobs/{start().job_id}/stream", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_input"), wrong


@pytest.mark.parametrize("after", [3, 2**31, 10**30])
def test_a_reader_ahead_of_every_event_hears_the_end_alone_and_disturbs_nobody(
    client: TestClient, services: Services, ann: Person, start: Start, after: int
) -> None:
    lease = start()
    record(services, lease, 1, 2, 3)
    succeed(services, lease)
    events = watch(client, ann, lease.job_id, headers={"Last-Event-ID": str(after)})
    assert (ids(events), states(events)) == ([], ["succeeded"])
    page = client.get(f"/v1/jobs/{lease.job_id}/events?after={after}", headers=ann.headers)
    assert (page.status_code, page.json()) == (200, [])


def test_what_happens_while_one_watches_is_seen_once_and_in_order(
    client: TestClient, services: Services, ann: Person, start: Start
) -> None:
    lease = start()

    def work() -> None:
        for seq in range(1, 7):
            record(services, lease, seq)
            time.sleep(0.2)
        succeed(services, lease)

    worker = threading.Thread(target=work)
    worker.start()
    events = watch(client, ann, lease.job_id)
    worker.join()
    assert ids(events) == [1, 2, 3, 4, 5, 6]
    assert states(events) == ["running", "succeeded"]
    assert events[-1]["event"] == "state"


def test_a_job_with_more_events_than_one_query_reads_is_streamed_whole(
    client: TestClient, services: Services, ann: Person, start: Start
) -> None:
    lease = start()
    record(services, lease, *range(1, 2502))
    succeed(services, lease)
    events = watch(client, ann, lease.job_id)
    assert ids(events) == list(range(1, 2502))
    assert states(events) == ["succeeded"]


def test_a_cancelled_job_ends_its_stream(client: TestClient, services: Services, ann: Person, start: Start) -> None:
    lease = start()
    with transaction(services.sessions) as session:
        queueing.cancel(session, authorize(ann.viewer, UseJobs), lease.job_id)
        leases.end_cancelled(session, lease)
    assert states(watch(client, ann, lease.job_id)) == ["cancelled"]


def test_who_may_no_longer_look_is_cut_off(
    client: TestClient, services: Services, ann: Person, bob: Person, start: Start
) -> None:
    lease = start()
    record(services, lease, 1)

    def hand_over() -> None:
        time.sleep(1)
        with transaction(services.sessions) as session:
            taken = {"owner_id": bob.viewer.id, "namespace": "bob"}
            session.execute(update(Job).where(Job.id == lease.job_id).values(**taken))
        record(services, lease, 2)

    changing = threading.Thread(target=hand_over)
    changing.start()
    events = watch(client, ann, lease.job_id)
    changing.join()
    assert ids(events) == [1]
    assert states(events) == ["running", "gone"]


def test_many_streams_of_many_jobs_each_hear_their_own(
    client: TestClient, services: Services, ann: Person, start: Start
) -> None:
    leases = [start() for _ in range(3)]
    for index, lease in enumerate(leases, start=1):
        record(services, lease, *range(1, index + 1))
    heard: dict[int, list[int]] = {}

    def listen(reader: int) -> None:
        heard[reader] = ids(watch(client, ann, leases[reader % 3].job_id))

    readers = [threading.Thread(target=listen, args=(reader,)) for reader in range(6)]
    for thread in readers:
        thread.start()
    time.sleep(1)
    for lease in leases:
        succeed(services, lease)
    for thread in readers:
        thread.join(20)
    assert heard == {reader: list(range(1, reader % 3 + 2)) for reader in range(6)}
