"""Submitting: inline examples become a data set, the job is queued once however often it is sent, and a refusal leaves nothing."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import func, select

from hub.registry.access.permissions import UseJobs, authorize
from hub.registry.access.users import BadName
from hub.registry.content import repo_visibility, repos
from hub.registry.content.repo_visibility import MoreVisible
from hub.registry.jobs import queueing
from hub.registry.jobs.requests import common as requests
from hub.registry.jobs.submit import submit
from hub.registry.models.content import Commit, Repo
from hub.registry.models.jobs import Job, JobInput
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import Forbidden, RepoNotFound
from hub.registry.platform.services import Services
from hub.vocabulary import Visibility
from tests.conftest import Person
from tests.support.published import adapter, base, dataset
from tests.support.requests import REQUESTS
from tests.support.statements import statements

ROWS = [{"input": "Oslo is in", "target": "Norway"}, {"input": "2 + 2", "target": "4", "choices": ["4", "fünf"]}]
Send = Callable[..., Job]


@pytest.fixture
def send(services: Services, ann: Person) -> Send:
    """Submit a request, written as the JSON that a client would send, for Ann or somebody else."""
    base(services)
    adapter(services, ann, "ann/a")

    def send(body: dict[str, Any], person: Person = ann, key: str | None = None) -> Job:
        return submit(services, authorize(person.viewer, UseJobs), REQUESTS.validate_python(body), idempotency_key=key)

    return send


def compose(**more: Any) -> dict[str, Any]:
    body = {"kind": "compose", "name": "ann/result", "modules": [{"repo": "ann/a"}], "examples": {"inline": ROWS}}
    return {**body, **more}


def count(services: Services, table: Any) -> int:
    with transaction(services.sessions) as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def rows(services: Services, pinned: dict[str, str]) -> list[Any]:
    """The examples that a job pinned, read as its worker would."""
    with transaction(services.sessions) as session:
        entry = repos.file(session, session.get_one(Commit, pinned["commit"]), pinned["path"])
    return [json.loads(line) for line in services.storage.read(entry.sha256, 0, entry.size).splitlines()]


def test_a_job_is_queued_with_its_inputs_and_a_worker_is_woken(services: Services, ann: Person, send: Send) -> None:
    job = send(compose())
    assert (job.state, job.kind, job.queue, job.namespace) == ("queued", "compose", "gpu", "ann")
    assert services.queue.depth("gpu") == 1
    with transaction(services.sessions) as session:
        pinned = {(item.commit_id, item.role) for item in session.scalars(select(JobInput))}
    module, examples = job.params["modules"][0]["commit"], job.params["examples"]["commit"]
    assert pinned == {(module, "module"), (examples, "dataset")}


def test_inline_examples_become_a_data_set_beside_the_result(services: Services, ann: Person, send: Send) -> None:
    held_out = [{"input": "Rome is in", "target": "Italy"}]
    job = send(compose(held_out={"inline": held_out}))
    assert rows(services, job.params["examples"]) == ROWS
    assert rows(services, job.params["held_out"]) == held_out
    assert {job.params[role]["repo"] for role in ("examples", "held_out")} == {"ann/result-examples"}
    assert "Norway" not in json.dumps(job.params)


def test_inline_examples_of_an_evaluation_are_their_owner_s_alone(
    services: Services, ann: Person, bob: Person, send: Send
) -> None:
    body = {"kind": "evaluate", "modules": [{"repo": "ann/a"}], "datasets": [{"inline": ROWS}, {"inline": ROWS[:1]}]}
    job = send(body, bob)
    first, second = job.params["datasets"]
    assert (rows(services, first), rows(services, second)) == (ROWS, ROWS[:1])
    assert first["repo"].startswith("bob/evaluate-")
    with transaction(services.sessions) as session:
        assert repos.find(session, bob.viewer, "dataset", first["repo"]).visibility == "private"
        with pytest.raises(RepoNotFound):
            repos.find(session, ann.viewer, "dataset", first["repo"])
    assert send(body, bob).params["datasets"] == job.params["datasets"]  # the same examples make no second data set


@pytest.mark.parametrize(
    ("module", "wanted", "given"),
    [
        ("public", None, "internal"),
        ("public", "public", "public"),
        ("public", "private", "private"),
        ("internal", None, "internal"),
        ("private", None, "private"),
    ],
)
def test_inline_examples_are_as_visible_as_the_result(
    services: Services, ann: Person, send: Send, module: Visibility, wanted: str | None, given: str
) -> None:
    with transaction(services.sessions) as session:
        repo_visibility.change_visibility(
            session, repos.writable(session, ann.viewer, "model", "ann/a"), module, reveal=False
        )
    job = send(compose(visibility=wanted))
    assert job.visibility == given
    with transaction(services.sessions) as session:
        assert repos.find(session, ann.viewer, "dataset", "ann/result-examples").visibility == given


def test_hidden_examples_do_not_go_into_a_data_set_that_more_can_see(
    services: Services, ann: Person, send: Send
) -> None:
    shown = dataset(services, ann, "ann/result-examples")
    with pytest.raises(MoreVisible, match="ann/result-examples is internal"):
        send(compose(visibility="private"))
    with transaction(services.sessions) as session:
        assert repos.resolve(session, session.get_one(Repo, shown.repo_id)).id == shown.id


def test_a_refused_request_leaves_neither_a_job_nor_a_data_set(
    services: Services, ann: Person, bob: Person, send: Send
) -> None:
    repos_before = count(services, Repo)
    for error, body, person in (
        (RepoNotFound, compose(modules=[{"repo": "ann/absent"}]), ann),
        (requests.IncompatibleModules, compose(modules=[{"repo": "ann/a"}] * 2), ann),
        (Forbidden, compose(), bob),
        (BadName, compose(name="ann/a b"), ann),
    ):
        with pytest.raises(error):
            send(body, person)
    assert count(services, Repo) == repos_before
    assert count(services, Job) == 0
    assert services.queue.depth("gpu") == 0


def test_the_same_key_and_request_give_the_same_job_and_one_message(
    services: Services, ann: Person, bob: Person, send: Send
) -> None:
    first = send(compose(), key="k")
    assert send(compose(), key="k").id == first.id
    assert services.queue.depth("gpu") == 1
    with pytest.raises(queueing.IdempotencyMismatch):
        send(compose(seed=1), key="k")
    assert send(compose(name="bob/result"), bob, key="k").id != first.id  # keys are each user's own
    assert send(compose()).id != first.id


def test_a_repeated_request_means_what_it_meant_then(services: Services, ann: Person, send: Send) -> None:
    """A client that sends again after a lost answer gets its job, though the module it names has gone since."""
    first = send(compose(), key="k")
    with transaction(services.sessions) as session:
        repos.delete(session, repos.writable(session, ann.viewer, "model", "ann/a"))
    assert send(compose(), key="k").id == first.id


def test_many_at_once_with_one_key_are_one_job(services: Services, send: Send) -> None:
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda _: send(compose(), key="k").id, range(6)))
    assert len(set(made)) == 1
    assert count(services, Job) == 1
    assert services.queue.depth("gpu") == 1


def test_modules_are_pinned_once(services: Services, ann: Person) -> None:
    """Also where inline examples are published, which need to know how visible the modules are."""
    base(services)
    adapter(services, ann, "ann/a")
    with statements(services) as sent:
        submit(services, authorize(ann.viewer, UseJobs), REQUESTS.validate_python(compose(modules=[{"repo": "ann/a"}])))
    assert sum("FROM adapter_facts" in statement for statement in sent) == 1
