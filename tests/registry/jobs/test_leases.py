"""The life of a job in the database: fenced claims, events in order, cancel, what the sweep settles."""

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from hub.registry.access.permissions import UseJobs, authorize
from hub.registry.jobs import job_queries, leases, queueing
from hub.registry.jobs.leases import Lease
from hub.registry.jobs.queueing import Submission
from hub.registry.models.jobs import Job, JobEvent
from hub.registry.operations import sweep
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.published import WORKER, AnyParams

Submit = Callable[..., uuid.UUID]


@pytest.fixture
def submit(services: Services, ann: Person) -> Submit:
    def submit(key: str | None = None, request: Mapping[str, Any] | None = None) -> uuid.UUID:
        submission = Submission("generate", "interactive", AnyParams(prompt="hi"), [], ann.name, "private")
        with transaction(services.sessions) as session:
            return queueing.submit(
                session,
                services.queue,
                ann.viewer,
                submission,
                idempotency_key=key,
                request=request or {"prompt": "hi"},
            ).id

    return submit


def claim(services: Services, job_id: uuid.UUID) -> Lease | None:
    with transaction(services.sessions) as session:
        return leases.claim(session, job_id, WORKER, 30)


def expire(services: Services, job_id: uuid.UUID) -> None:
    with transaction(services.sessions) as session:
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=text("now() - interval '1 second'")))


def state(services: Services, job_id: uuid.UUID) -> Job:
    with transaction(services.sessions) as session:
        return session.get_one(Job, job_id)


def test_a_job_is_claimed_once(services: Services, submit: Submit) -> None:
    job_id = submit()
    first = claim(services, job_id)
    assert first is not None
    assert first.attempt == 1
    assert claim(services, job_id) is None


def test_a_lease_that_is_over_can_be_claimed_and_the_old_holder_writes_nothing(
    services: Services, submit: Submit
) -> None:
    job_id = submit()
    old = claim(services, job_id)
    expire(services, job_id)
    new = claim(services, job_id)
    assert old is not None
    assert new is not None
    assert new.attempt == 2
    with transaction(services.sessions) as session:
        assert not leases.renew(session, old, 30)
        leases.fail(session, old, "late", "too late")
    with pytest.raises(leases.LeaseLost), transaction(services.sessions) as session:
        leases.record(session, old, 1, "search", 1, 2, {})
    with pytest.raises(leases.LeaseLost), transaction(services.sessions) as session:
        leases.succeed(session, old, {})
    with transaction(services.sessions) as session:
        leases.succeed(session, new, {"by": "the new holder"})
    assert state(services, job_id).result == {"by": "the new holder"}


def test_events_go_on_where_the_attempt_before_stopped(services: Services, submit: Submit) -> None:
    job_id = submit()
    first = claim(services, job_id)
    assert first is not None
    with transaction(services.sessions) as session:
        leases.record(session, first, first.next_seq, "search", 1, 2, {"loss": 1.5})
        leases.record(session, first, first.next_seq + 1, "search", 2, 2, {"loss": 1.25})
    expire(services, job_id)
    second = claim(services, job_id)
    assert second is not None
    assert second.next_seq == 3
    with transaction(services.sessions) as session:
        assert [event.seq for event in job_queries.events(session, job_id, after=1)] == [2]


def test_the_same_key_gives_the_same_job_and_another_request_is_refused(services: Services, submit: Submit) -> None:
    first = submit("key")
    assert submit("key") == first
    with pytest.raises(queueing.IdempotencyMismatch):
        submit("key", {"prompt": "something else"})
    assert submit() != submit()


def test_a_queued_job_is_cancelled_at_once(services: Services, submit: Submit, ann: Person) -> None:
    job_id = submit()
    with transaction(services.sessions) as session:
        assert queueing.cancel(session, authorize(ann.viewer, UseJobs), job_id).state == "cancelled"
    assert claim(services, job_id) is None


def test_a_running_job_learns_of_its_cancellation_at_its_next_step(
    services: Services, submit: Submit, ann: Person
) -> None:
    job_id = submit()
    lease = claim(services, job_id)
    assert lease is not None
    with transaction(services.sessions) as session:
        assert queueing.cancel(session, authorize(ann.viewer, UseJobs), job_id).state == "running"
    with pytest.raises(leases.CancelRequested), transaction(services.sessions) as session:
        leases.record(session, lease, 1, "search", 1, 2, {})
    with transaction(services.sessions) as session:
        leases.end_cancelled(session, lease)
    assert state(services, job_id).state == "cancelled"


def test_a_job_that_succeeded_cannot_be_cancelled(services: Services, submit: Submit, ann: Person) -> None:
    job_id = submit()
    lease = claim(services, job_id)
    assert lease is not None
    with transaction(services.sessions) as session:
        leases.succeed(session, lease, {})
    with pytest.raises(queueing.AlreadyFinished) as refused, transaction(services.sessions) as session:
        queueing.cancel(session, authorize(ann.viewer, UseJobs), job_id)
    assert refused.value.status == 409


def test_others_neither_see_nor_cancel_a_job(services: Services, submit: Submit, bob: Person) -> None:
    job_id = submit()
    with transaction(services.sessions) as session:
        with pytest.raises(job_queries.JobNotFound):
            job_queries.find(session, bob.viewer, job_id)
        with pytest.raises(job_queries.JobNotFound):
            queueing.cancel(session, authorize(bob.viewer, UseJobs), job_id)


def test_three_dead_attempts_fail_the_job(services: Services, submit: Submit) -> None:
    job_id = submit()
    for attempt in (1, 2, 3):
        lease = claim(services, job_id)
        assert lease is not None
        assert lease.attempt == attempt
        expire(services, job_id)
        sweep.sweep(services)
    ended = state(services, job_id)
    assert (ended.state, ended.error_code) == ("failed", "worker_lost")
    assert "memory" in (ended.error_message or "")


def test_a_dead_worker_s_job_is_queued_again(services: Services, submit: Submit) -> None:
    job_id = submit()
    claim(services, job_id)
    expire(services, job_id)
    sweep.sweep(services)
    assert state(services, job_id).state == "queued"


def test_a_dead_worker_s_job_that_was_to_be_cancelled_is(services: Services, submit: Submit, ann: Person) -> None:
    job_id = submit()
    claim(services, job_id)
    with transaction(services.sessions) as session:
        queueing.cancel(session, authorize(ann.viewer, UseJobs), job_id)
    expire(services, job_id)
    sweep.sweep(services)
    assert state(services, job_id).state == "cancelled"


def test_a_job_that_is_rolled_back_is_never_sent(services: Services, ann: Person) -> None:
    submission = Submission("generate", "interactive", AnyParams(), [], ann.name, "private")
    session: Session
    with services.sessions() as session:
        queueing.submit(session, services.queue, ann.viewer, submission, idempotency_key=None, request={})
        session.rollback()
    assert services.queue.depth("interactive") == 0


def test_a_broker_that_forgets_everything_costs_a_delay(services: Services, submit: Submit) -> None:
    """A message that is gone while its job waits is sent again; one that still waits is not doubled."""
    job_id = submit()
    assert services.queue.depth("interactive") == 1
    assert sweep.resend(services) == 0
    services.queue.purge("interactive")
    assert services.queue.depth("interactive") == 0
    with transaction(services.sessions) as session:
        session.execute(update(Job).where(Job.id == job_id).values(sent_at=text("now() - interval '1 minute'")))
    assert sweep.resend(services) == 1
    assert services.queue.depth("interactive") == 1
    assert sweep.resend(services) == 0


def test_prompts_and_answers_are_gone_after_a_day(services: Services, submit: Submit) -> None:
    job_id = submit()
    lease = claim(services, job_id)
    assert lease is not None
    with transaction(services.sessions) as session:
        leases.record(session, lease, 1, "answer", 1, 1, {})
        leases.succeed(session, lease, {"answers": {"base": "secret"}})
    sweep.sweep(services)
    assert state(services, job_id).result is not None
    with transaction(services.sessions) as session:
        session.execute(update(Job).where(Job.id == job_id).values(finished_at=text("now() - interval '25 hours'")))
    sweep.sweep(services)
    assert state(services, job_id).result is None
    assert state(services, job_id).params == {}
    with transaction(services.sessions) as session:
        assert session.scalars(select(JobEvent).where(JobEvent.job_id == job_id)).all() == []
