"""Claims go round the namespaces, and no job is lost on the way."""

import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from hub.registry.jobs import leases, queueing
from hub.registry.jobs.leases import Lease
from hub.registry.jobs.queueing import Submission
from hub.registry.models.jobs import Job
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.vocabulary import QueueName
from tests.conftest import Person
from tests.support.published import WORKER, AnyParams


def submit(services: Services, person: Person, count: int = 1, queue: QueueName = "gpu") -> list[uuid.UUID]:
    submission = Submission("train", queue, AnyParams(), [], person.name, "private")
    ids = []
    for _ in range(count):
        with transaction(services.sessions) as session:
            job = queueing.submit(session, services.queue, person.viewer, submission, idempotency_key=None, request={})
            ids.append(job.id)
    return ids


def claim(services: Services, message: uuid.UUID) -> Lease | None:
    with transaction(services.sessions) as session:
        return leases.claim_fairly(session, message, WORKER, 30)


def namespace(services: Services, lease: Lease | None) -> str:
    assert lease is not None
    with transaction(services.sessions) as session:
        return session.get_one(Job, lease.job_id).namespace


def finish(services: Services, lease: Lease | None) -> None:
    assert lease is not None
    with transaction(services.sessions) as session:
        leases.succeed(session, lease, {})


def test_one_job_does_not_wait_for_twenty_of_another_namespace(services: Services, ann: Person, bob: Person) -> None:
    messages = [*submit(services, ann, 20), *submit(services, bob)]
    served = []
    for message in messages[:4]:
        lease = claim(services, message)
        served.append(namespace(services, lease))
        finish(services, lease)
    assert served == ["ann", "bob", "ann", "ann"]


def test_those_with_fewer_running_jobs_come_first(services: Services, ann: Person, bob: Person) -> None:
    messages = [*submit(services, ann, 5), *submit(services, bob, 5)]
    served = [namespace(services, claim(services, message)) for message in messages]
    assert served == ["ann", "bob"] * 5


def test_within_a_namespace_the_oldest_comes_first(services: Services, ann: Person) -> None:
    ids = submit(services, ann, 4)
    taken = [claim(services, message) for message in reversed(ids)]
    assert [lease.job_id for lease in taken if lease] == ids


def test_a_queue_s_worker_takes_jobs_of_that_queue(services: Services, ann: Person, bob: Person) -> None:
    (slow,) = submit(services, ann)
    (fast,) = submit(services, bob, queue="interactive")
    lease = claim(services, fast)
    assert lease is not None
    assert lease.job_id == fast
    lease = claim(services, slow)
    assert lease is not None
    assert lease.job_id == slow


def test_a_message_of_a_job_that_runs_already_takes_another_one_or_nothing(services: Services, ann: Person) -> None:
    first, second = submit(services, ann, 2)
    assert claim(services, second) is not None  # takes the first, as it is older
    again = claim(services, first)
    assert again is not None
    assert again.job_id == second
    assert claim(services, first) is None
    assert claim(services, second) is None


def test_of_many_workers_each_message_finds_a_job_and_none_finds_it_twice(
    services: Services, ann: Person, bob: Person, admin: Person
) -> None:
    messages = [*submit(services, ann, 12), *submit(services, bob, 3), *submit(services, admin, 3)]
    taken: Counter[uuid.UUID] = Counter()
    lock = Lock()

    def work(message: uuid.UUID) -> None:
        lease = claim(services, message) or claim(services, message)
        if lease is not None:
            with lock:
                taken[lease.job_id] += 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, messages))
    # A worker may lose a race twice; the sweep sends what is left again.
    with transaction(services.sessions) as session:
        left = leases.unsent(session, "gpu", -1)
    for message in left:
        work(message)
    assert set(taken) == set(messages)
    assert set(taken.values()) == {1}
