"""The sweep finishes what was interrupted, and takes away only what nobody needs: every step can be killed and run again."""

import threading
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from hub.registry.access.permissions import AdministerHub, authorize
from hub.registry.content import blobs, history, lfs, repos
from hub.registry.content.lfs import Grant
from hub.registry.jobs import leases, queueing
from hub.registry.jobs.queueing import Input, Submission
from hub.registry.library.publishing import entries
from hub.registry.models.content import Blob, Commit, Holding, Ref, Repo, Tree, TreeEntry
from hub.registry.models.jobs import Job
from hub.registry.operations import expiry, garbage, sweep
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import NotFound
from hub.registry.platform.services import Services, connect
from hub.registry.platform.storage import Storage
from hub.vocabulary import JobKind, QueueName
from tests.conftest import Person
from tests.support.files import peft_folder
from tests.support.published import WORKER, AnyParams, adapter, incoming

GRACE = timedelta(hours=48)
Submit = Callable[..., uuid.UUID]


@pytest.fixture
def submit(services: Services, ann: Person) -> Submit:
    def submit(*inputs: Commit, kind: JobKind = "generate", queue: QueueName = "interactive") -> uuid.UUID:
        pinned = [Input(commit.id, "module") for commit in inputs]
        submission = Submission(kind, queue, AnyParams(prompt="what Ann asked"), pinned, ann.name, "private")
        with transaction(services.sessions) as session:
            return queueing.submit(
                session, services.queue, ann.viewer, submission, idempotency_key=None, request={"prompt": "hi"}
            ).id

    return submit


def job(services: Services, job_id: uuid.UUID) -> Job:
    with transaction(services.sessions) as session:
        return session.get_one(Job, job_id)


def change(services: Services, job_id: uuid.UUID, **values: Any) -> None:
    with transaction(services.sessions) as session:
        session.execute(update(Job).where(Job.id == job_id).values(**values))


def claim(services: Services, job_id: uuid.UUID) -> leases.Lease:
    with transaction(services.sessions) as session:
        lease = leases.claim(session, job_id, WORKER, 30)
    assert lease is not None
    return lease


def age(services: Services, what: str = "3 days") -> None:
    """Make every blob as old as this, as far as its last touch is concerned."""
    with transaction(services.sessions) as session:
        session.execute(update(Blob).values(touched_at=text(f"now() - interval '{what}'")))


def rows(services: Services, table: Any) -> int:
    with transaction(services.sessions) as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


# Messages


def test_a_lost_message_is_sent_again_once_it_is_late(services: Services, submit: Submit) -> None:
    job_id = submit()
    services.queue.purge("interactive")
    assert sweep.resend(services) == 0  # it may still be on its way
    change(services, job_id, sent_at=text("now() - interval '11 seconds'"))
    assert sweep.resend(services) == 1
    assert services.queue.depth("interactive") == 1
    services.queue.purge("interactive")
    assert sweep.resend(services) == 0  # sent a moment ago


def test_a_queue_with_messages_in_it_is_left_alone_and_the_other_is_not(services: Services, submit: Submit) -> None:
    waiting, lost = submit(), submit(queue="gpu")
    services.queue.purge("gpu")
    for job_id in (waiting, lost):
        change(services, job_id, sent_at=text("now() - interval '1 minute'"))
    assert sweep.resend(services) == 1
    assert (services.queue.depth("interactive"), services.queue.depth("gpu")) == (1, 1)


def test_only_waiting_jobs_are_sent(services: Services, submit: Submit) -> None:
    for state in ("running", "succeeded", "failed", "cancelled"):
        change(services, submit(), state=state, sent_at=text("now() - interval '1 minute'"))
    services.queue.purge("interactive")
    assert sweep.resend(services) == 0


def test_without_a_broker_a_job_is_accepted_and_sent_when_the_broker_is_back(services: Services, ann: Person) -> None:
    cut_off = connect(services.settings.model_copy(update={"broker_url": "redis://127.0.0.1:9/0"}))
    submission = Submission("generate", "interactive", AnyParams(prompt="hi"), [], ann.name, "private")
    try:
        with transaction(cut_off.sessions) as session:
            job_id = queueing.submit(
                session, cut_off.queue, ann.viewer, submission, idempotency_key=None, request={}
            ).id
        change(services, job_id, sent_at=text("now() - interval '1 minute'"))
        assert sweep.resend(cut_off) == 0
    finally:
        cut_off.close()
    assert job(services, job_id).state == "queued"
    assert sweep.resend(services) == 1


# Workers that died


@pytest.mark.parametrize(
    ("attempt", "cancel", "ends"),
    [
        (1, False, ("queued", None)),
        (2, False, ("queued", None)),
        (3, False, ("failed", "worker_lost")),
        (1, True, ("cancelled", None)),
        (3, True, ("cancelled", None)),
    ],
)
def test_a_dead_worker_s_job_is_settled(
    services: Services, submit: Submit, attempt: int, cancel: bool, ends: tuple[str, str | None]
) -> None:
    job_id = submit()
    claim(services, job_id)
    over = text("now() - interval '1 second'")
    change(services, job_id, attempt=attempt, cancel_requested=cancel, lease_until=over)
    with transaction(services.sessions) as session:
        assert leases.end_dead(session) == 1
        assert leases.end_dead(session) == 0
    ended = job(services, job_id)
    assert (ended.state, ended.error_code) == ends
    assert (ended.finished_at is None) is (ended.state == "queued")


def test_a_worker_that_renews_its_lease_keeps_its_job(services: Services, submit: Submit) -> None:
    job_id = submit()
    lease = claim(services, job_id)
    change(services, job_id, lease_until=text("now() - interval '1 second'"))
    with transaction(services.sessions) as session:
        assert leases.renew(session, lease, 30)
        assert leases.end_dead(session) == 0
    assert job(services, job_id).state == "running"


def test_a_requeued_job_is_sent_in_the_same_round(services: Services, submit: Submit) -> None:
    job_id = submit()
    services.queue.purge("interactive")
    claim(services, job_id)
    change(services, job_id, lease_until=text("now() - interval '1 second'"))
    sweep.sweep(services)
    assert services.queue.depth("interactive") == 1


# Repos whose time is over


def deleted(services: Services, person: Person, name: str, when: str) -> None:
    with transaction(services.sessions) as session:
        repos.delete(session, repos.writable(session, person.viewer, "model", name))
        session.flush()
        session.execute(update(Repo).where(Repo.deleted_at.is_not(None)).values(deleted_at=text(f"now() - {when}")))


def purge(services: Services) -> int:
    with transaction(services.sessions) as session:
        return expiry.purge(session, timedelta(days=7))


def tree(services: Services, commit: Commit) -> str | None:
    with transaction(services.sessions) as session:
        return session.scalar(select(Commit.tree).where(Commit.id == commit.id))


def test_a_repo_that_can_still_be_restored_is_kept_whole(services: Services, ann: Person, admin: Person) -> None:
    commit = adapter(services, ann, "ann/a")
    deleted(services, ann, "ann/a", "interval '6 days 23 hours'")
    age(services)
    assert purge(services) == 0
    assert garbage.collect(services, GRACE) == 0
    with transaction(services.sessions) as session:
        repo = repos.restore(session, authorize(admin.viewer, AdministerHub), "model", "ann/a", days=7)
        assert len(repos.files(session, repos.resolve(session, repo))) == 3
    assert tree(services, commit) is not None


def test_a_purged_repo_gives_up_its_name_and_files_and_stays_an_ancestor(services: Services, ann: Person) -> None:
    commit = adapter(services, ann, "ann/a", seed=1)
    deleted(services, ann, "ann/a", "interval '7 days 1 minute'")
    assert purge(services) == 1
    assert purge(services) == 0
    assert tree(services, commit) is None
    assert rows(services, Ref) == 0
    age(services)
    assert garbage.collect(services, GRACE) == 3
    assert rows(services, Tree) == rows(services, TreeEntry) == rows(services, Blob) == rows(services, Holding) == 0
    anew = adapter(services, ann, "ann/a", seed=1)  # the same bytes, under the same name
    assert anew.id != commit.id
    assert anew.parent is None
    with transaction(services.sessions) as session:
        assert session.get(Commit, commit.id) is not None
        assert repos.version_of(session, anew) == "v1"


@pytest.mark.parametrize("state", ["queued", "running"])
def test_what_an_unfinished_job_pinned_is_kept_until_it_ends(
    services: Services, ann: Person, submit: Submit, state: str
) -> None:
    pinned = adapter(services, ann, "ann/a", seed=1)
    loose = adapter(services, ann, "ann/a", seed=2)
    job_id = submit(pinned)
    change(services, job_id, state=state, lease_until=text("now() + interval '1 hour'"))
    deleted(services, ann, "ann/a", "interval '8 days'")
    age(services)
    assert purge(services) == 1
    garbage.collect(services, GRACE)
    assert tree(services, loose) is None
    assert tree(services, pinned) is not None
    with transaction(services.sessions) as session:
        for entry in repos.files(session, session.get_one(Commit, pinned.id)):
            assert len(services.storage.read(entry.sha256, 0, entry.size)) == entry.size
    change(services, job_id, state="failed")
    purge(services)
    assert tree(services, pinned) is None
    assert garbage.collect(services, GRACE) == 3
    assert rows(services, Blob) == 0


# Bytes


def uploaded(services: Services, *files: blobs.Incoming) -> None:
    blobs.store(services.sessions, services.storage, "ann", files)


def test_bytes_that_no_tree_needs_go_after_their_grace_and_not_before(services: Services, ann: Person) -> None:
    (file,) = incoming({"x": b"nobody needs this"})
    uploaded(services, file)
    age(services, "47 hours")
    assert garbage.collect(services, GRACE) == 0
    assert services.storage.exists(file.sha256)
    age(services, "49 hours")
    assert garbage.collect(services, GRACE) == 1
    assert not services.storage.exists(file.sha256)
    assert rows(services, Blob) == rows(services, Holding) == 0


def test_bytes_that_a_tree_needs_stay_however_old(services: Services, ann: Person) -> None:
    first = adapter(services, ann, "ann/a", seed=1)
    adapter(services, ann, "ann/a", seed=2)  # the first is no longer main's, and still a commit
    age(services, "10 years")
    assert garbage.collect(services, GRACE) == 0
    with transaction(services.sessions) as session:
        assert all(services.storage.exists(entry.sha256) for entry in repos.files(session, first))


def test_naming_bytes_in_a_new_commit_saves_them_from_a_collection_under_way(services: Services, ann: Person) -> None:
    """A publisher that has looked at old bytes, and has not committed yet, keeps the sweep off them."""
    (file,) = incoming({"x": b"old, but wanted again"})
    uploaded(services, file)
    age(services)
    with transaction(services.sessions) as session:
        repo = repos.ensure(session, ann.viewer, "model", "ann/a", None)
        history.publish(session, repo, entries([file]), author_id=ann.viewer.id, message="again")
        assert garbage.collect(services, GRACE) == 0
    with transaction(services.sessions) as session:  # touched: a sweep that chose it before looks again, and leaves it
        assert session.scalar(select(Blob.touched_at > func.now() - timedelta(minutes=1)))
    age(services)
    assert garbage.collect(services, GRACE) == 0
    assert services.storage.exists(file.sha256)


class DyingStorage(Storage):
    """Storage whose process dies when it is to delete, or just afterwards."""

    def __init__(self, services: Services, *, after: bool) -> None:
        super().__init__(services.settings)
        self.after = after

    def delete(self, sha256: str) -> None:
        if self.after:
            super().delete(sha256)
        raise InterruptedError


@pytest.mark.parametrize("after", [False, True])
def test_a_collection_that_was_killed_gives_nobody_bytes_that_are_gone_and_is_finished_later(
    services: Services, ann: Person, after: bool
) -> None:
    (file,) = incoming({"x": f"killed {after}".encode()})
    uploaded(services, file)
    age(services)
    dying = Services(
        services.settings, services.sessions, DyingStorage(services, after=after), services.queue, services.upstream
    )
    with pytest.raises(InterruptedError):
        garbage.collect(dying, GRACE)
    with transaction(services.sessions) as session:
        assert session.scalar(select(Blob.state)) == "deleting"
        assert blobs.held(session, "ann", [file.sha256]) == set()
    assert garbage.collect(services, GRACE) == 1
    assert not services.storage.exists(file.sha256)
    assert rows(services, Blob) == 0


def test_a_tree_that_is_published_again_while_it_is_collected_stays(services: Services, ann: Person) -> None:
    """Its last commit was purged and the sweep is about to take the tree: a publisher of the same files is faster."""
    adapter(services, ann, "ann/a", seed=1)
    deleted(services, ann, "ann/a", "interval '8 days'")
    purge(services)
    files = incoming(peft_folder(seed=1))
    uploaded(services, *files)
    collecting = threading.Thread(target=garbage.collect, args=(services, GRACE))
    with transaction(services.sessions) as session:
        repo = repos.ensure(session, ann.viewer, "model", "ann/b", None)
        commit = history.publish(session, repo, entries(files), author_id=ann.viewer.id, message="again")
        collecting.start()
        time.sleep(0.5)
        assert not collecting.is_alive()  # it waits for nobody: the tree can go in another round
    collecting.join()
    with transaction(services.sessions) as session:
        assert len(repos.files(session, session.get_one(Commit, commit.id))) == 3


# Prompts and answers


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_a_prompt_is_gone_a_day_after_its_job_however_that_ended(
    services: Services, submit: Submit, state: str
) -> None:
    job_id = submit()
    answer = {"result": {"answers": {"base": "what Ann was told"}}} if state == "succeeded" else {}
    change(services, job_id, state=state, finished_at=text("now() - interval '23 hours'"), **answer)
    sweep.sweep(services)
    assert job(services, job_id).params == {"prompt": "what Ann asked"}
    change(services, job_id, finished_at=text("now() - interval '25 hours'"))
    sweep.sweep(services)
    assert job(services, job_id).params == {}
    assert job(services, job_id).result is None


def test_what_other_jobs_were_asked_and_found_is_kept(services: Services, submit: Submit) -> None:
    job_id = submit(kind="evaluate")
    long_ago = text("now() - interval '1 year'")
    change(services, job_id, state="succeeded", result={"scores": [1]}, finished_at=long_ago)
    sweep.sweep(services)
    assert job(services, job_id).result == {"scores": [1]}
    assert job(services, job_id).params == {"prompt": "what Ann asked"}


# One at a time


def test_of_two_sweeps_one_works_and_the_other_takes_over(services: Services, submit: Submit) -> None:
    quick = services.settings.model_copy(update={"sweep_seconds": 0.05})
    first, second = connect(quick), connect(quick)
    leave, end = threading.Event(), threading.Event()
    working = threading.Thread(target=sweep.run, args=(first,), kwargs={"stop": leave.is_set})
    waiting = threading.Thread(target=sweep.run, args=(second,), kwargs={"stop": end.is_set})

    def holder() -> set[int]:
        with transaction(services.sessions) as session:
            query = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = "
            query += "(SELECT oid FROM pg_database WHERE datname = current_database())"
            return set(session.scalars(text(query)))

    def until(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    try:
        working.start()
        until(holder)
        held_by = holder()
        waiting.start()
        time.sleep(0.5)
        assert waiting.is_alive()
        assert holder() == held_by
        leave.set()
        working.join(10)
        until(lambda: holder() and holder() != held_by)
        job_id = submit()
        services.queue.purge("interactive")
        change(services, job_id, sent_at=text("now() - interval '1 minute'"))
        until(lambda: services.queue.depth("interactive"))
    finally:
        leave.set()
        end.set()
        for thread in (working, waiting):
            if thread.ident:
                thread.join(10)
        first.close()
        second.close()
    assert holder() == set()


def test_parts_of_an_upload_that_nobody_completed_go_after_the_grace_period(services: Services) -> None:
    grant = Grant("ann", "0" * 64, 5, 0)
    lfs.receive_part(services, grant, 1, 5, iter([b"12345"]))
    garbage.drop_old(services, lfs.PARTS, timedelta(hours=1))
    assert b"".join(services.storage.stream_key(f"parts/ann/{'0' * 64}/1")) == b"12345"
    garbage.drop_old(services, lfs.PARTS, -timedelta(hours=1))
    with pytest.raises(NotFound):
        services.storage.stream_key(f"parts/ann/{'0' * 64}/1")


def test_a_task_is_due_at_first_and_then_after_its_interval() -> None:
    each_round = sweep.Task("each round", lambda services: None)
    each_minute = sweep.Task("each minute", lambda services: None, every=60.0)
    schedule = sweep.Schedule([each_round, each_minute])
    assert schedule.due(100.0) == [each_round, each_minute]
    assert schedule.due(105.0) == [each_round]
    assert schedule.due(160.0) == [each_round, each_minute]
    assert schedule.due(161.0) == [each_round]


def test_tasks_have_names_of_their_own() -> None:
    assert len({task.name for task in sweep.TASKS}) == len(sweep.TASKS)
