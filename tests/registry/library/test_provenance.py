"""Ancestors, descendants and figures: everybody sees the shape of the family, and only the names that they may read."""

from datetime import timedelta
from typing import Any

import pytest

from hub.registry.access.permissions import AdministerHub, authorize
from hub.registry.access.viewer import Viewer
from hub.registry.content import repo_visibility, repos
from hub.registry.content.history import Parent
from hub.registry.jobs import leases, queueing
from hub.registry.jobs.queueing import Input, Submission
from hub.registry.library import provenance
from hub.registry.library.provenance import PRIVATE
from hub.registry.library.scores import Measurement
from hub.registry.library.scores import keep as keep_score
from hub.registry.models.content import Commit
from hub.registry.operations import expiry
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.files import TINY
from tests.support.published import AnyParams, adapter, dataset, woven


def parents(services: Services, viewer: Viewer | None, commit: Commit) -> list[tuple[Any, ...]]:
    with transaction(services.sessions) as session:
        found = provenance.parents(session, viewer, commit)
    return [(relative.repo, relative.commit, relative.role, relative.weight) for relative in found]


def children(services: Services, viewer: Viewer | None, commit: Commit) -> list[str]:
    with transaction(services.sessions) as session:
        return [relative.repo for relative in provenance.children(session, viewer, commit)]


def test_parents_that_one_may_not_see_keep_their_part_and_lose_their_name(
    services: Services, ann: Person, bob: Person
) -> None:
    open_, secret = adapter(services, ann, "ann/open", seed=1), adapter(services, ann, "ann/secret", seed=2)
    with transaction(services.sessions) as session:
        repo_visibility.change_visibility(
            session, repos.writable(session, ann.viewer, "model", "ann/secret"), "private", reveal=False
        )
    task = dataset(services, ann, "ann/task")
    made = woven(
        services,
        ann,
        "ann/made",
        "internal",
        Parent(open_.id, "module", 0.25),
        Parent(secret.id, "module", 0.75),
        Parent(task.id, "dataset"),
    )
    assert parents(services, ann.viewer, made) == [
        ("ann/task", task.id, "dataset", None),
        ("ann/secret", secret.id, "module", 0.75),
        ("ann/open", open_.id, "module", 0.25),
    ]
    assert parents(services, bob.viewer, made) == [
        ("ann/task", task.id, "dataset", None),
        (PRIVATE, None, "module", 0.75),
        ("ann/open", open_.id, "module", 0.25),
    ]
    assert {name for name, *_ in parents(services, None, made)} == {PRIVATE}


def test_a_deleted_parent_is_nameless_for_all(services: Services, ann: Person, admin: Person) -> None:
    gone = adapter(services, ann, "ann/gone")
    made = woven(services, ann, "ann/made", "internal", Parent(gone.id, "module", 1.0))
    with transaction(services.sessions) as session:
        repos.delete(session, repos.writable(session, ann.viewer, "model", "ann/gone"))
    for person in (ann, admin):
        assert parents(services, person.viewer, made) == [(PRIVATE, None, "module", 1.0)]


def test_what_lost_an_input_cannot_be_made_again_until_that_is_restored(
    services: Services, ann: Person, admin: Person
) -> None:
    left, gone = adapter(services, ann, "ann/left", seed=1), adapter(services, ann, "ann/gone", seed=2)
    made = woven(services, ann, "ann/made", "internal", Parent(left.id, "module"), Parent(gone.id, "module"))

    def lost() -> int:
        with transaction(services.sessions) as session:
            return provenance.missing_inputs(session, made)

    assert lost() == 0
    with transaction(services.sessions) as session:
        repos.delete(session, repos.writable(session, ann.viewer, "model", "ann/gone"))
    assert lost() == 1
    with transaction(services.sessions) as session:
        repos.restore(session, authorize(admin.viewer, AdministerHub), "model", "ann/gone", 7)
    assert lost() == 0
    with transaction(services.sessions) as session:
        repos.delete(session, repos.writable(session, ann.viewer, "model", "ann/gone"))
        expiry.purge(session, timedelta(0))
    assert lost() == 1


def test_children_that_one_may_not_see_are_not_counted(services: Services, ann: Person, bob: Person) -> None:
    parent = adapter(services, ann, "ann/parent", visibility="public")
    woven(services, bob, "bob/secret", "private", Parent(parent.id, "module", 1.0))
    woven(services, bob, "bob/shown", "internal", Parent(parent.id, "module", 1.0))
    assert children(services, bob.viewer, parent) == ["bob/shown", "bob/secret"]
    assert children(services, ann.viewer, parent) == ["bob/shown"]
    assert children(services, None, parent) == []


@pytest.fixture
def job_id(services: Services, ann: Person) -> Any:
    with transaction(services.sessions) as session:
        submission = Submission("evaluate", "interactive", AnyParams(), [], ann.name, "private")
        return queueing.submit(session, services.queue, ann.viewer, submission, idempotency_key=None, request={}).id


def keep(services: Services, job_id: Any, module: Commit | None, task: Commit, value: float) -> None:
    with transaction(services.sessions) as session:
        interval = (value, value - 0.1, value + 0.1)
        figure = Measurement("exact_match", *interval, 9, TINY, task.id, "train.jsonl", "chat")
        keep_score(session, figure, commit_id=module.id if module else None, job_id=job_id)


def scores(services: Services, viewer: Viewer | None, *commits: Commit) -> set[tuple[str | None, float]]:
    with transaction(services.sessions) as session:
        found = provenance.scores(session, viewer, commit_ids=[c.id for c in commits] if commits else None)
    return {(score.repo, score.value) for score in found}


def test_a_newer_measurement_of_the_same_thing_takes_the_older_one_s_place(
    services: Services, ann: Person, job_id: Any
) -> None:
    module, task = adapter(services, ann, "ann/a"), dataset(services, ann, "ann/task")
    for value in (0.5, 0.625):
        keep(services, job_id, module, task, value)
        keep(services, job_id, None, task, value / 2)
    assert scores(services, ann.viewer) == {("ann/a", 0.625), (None, 0.3125)}
    assert scores(services, ann.viewer, module) == {("ann/a", 0.625)}


def test_a_figure_is_seen_by_who_may_read_both_module_and_data_set(
    services: Services, ann: Person, bob: Person, job_id: Any
) -> None:
    shown, task = adapter(services, ann, "ann/shown", seed=1), dataset(services, ann, "ann/task")
    secret = adapter(services, ann, "ann/secret", seed=2, visibility="private")
    hidden = dataset(services, ann, "ann/hidden", visibility="private")
    keep(services, job_id, shown, task, 0.1)
    keep(services, job_id, secret, task, 0.2)
    keep(services, job_id, shown, hidden, 0.3)
    keep(services, job_id, None, hidden, 0.4)
    keep(services, job_id, None, task, 0.5)
    assert len(scores(services, ann.viewer)) == 5
    assert scores(services, bob.viewer) == {("ann/shown", 0.1), (None, 0.5)}
    assert scores(services, None) == set()
    with transaction(services.sessions) as session:
        repos.delete(session, repos.writable(session, ann.viewer, "model", "ann/shown"))
    assert scores(services, bob.viewer) == {(None, 0.5)}


def test_an_input_that_its_owner_may_no_longer_read_stops_a_job(services: Services, ann: Person, bob: Person) -> None:
    """Asked anew when the job starts: it may have waited for long."""
    module = adapter(services, bob, "bob/lent")
    with transaction(services.sessions) as session:
        submission = Submission("generate", "interactive", AnyParams(), [Input(module.id, "module")], "ann", "private")
        job = queueing.submit(session, services.queue, ann.viewer, submission, idempotency_key=None, request={})

    def unreadable() -> bool:
        with transaction(services.sessions) as session:
            return leases.unreadable_input(session, job)

    assert not unreadable()
    with transaction(services.sessions) as session:
        repo_visibility.change_visibility(
            session, repos.writable(session, bob.viewer, "model", "bob/lent"), "private", reveal=False
        )
    assert unreadable()
    with transaction(services.sessions) as session:
        repo_visibility.change_visibility(
            session, repos.writable(session, bob.viewer, "model", "bob/lent"), "internal", reveal=False
        )
    assert not unreadable()
    with transaction(services.sessions) as session:
        repos.delete(session, repos.writable(session, bob.viewer, "model", "bob/lent"))
    assert unreadable()
