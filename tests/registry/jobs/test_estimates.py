"""Estimates of time: from jobs that succeeded, those nearest in size, and nothing where there are none."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, update

from hub.registry.access.permissions import UseJobs, authorize
from hub.registry.jobs.estimates import Estimate, estimate, scaled
from hub.registry.jobs.kinds import KINDS
from hub.registry.jobs.submit import submit
from hub.registry.models.jobs import Job
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.vocabulary import JobKind
from tests.conftest import Person
from tests.support.files import TINY
from tests.support.published import adapter, base
from tests.support.requests import REQUESTS


def test_the_estimate_is_the_quartiles_of_the_jobs_nearest_in_size() -> None:
    assert scaled(100, []) is None
    assert scaled(100, [(50, 10)]) == Estimate(10, 20, 1), "all of it grows with the size, or nothing does"
    assert scaled(1, [(50, 100)]) == Estimate(2, 100, 1), "a small job is loaded like a large one"
    # Eight of its size, and far smaller ones that say little.
    done = [(100.0, 100.0 + index) for index in range(8)] + [(1, 60.0)] * 20
    assert scaled(100, done) == Estimate(101.75, 105.25, 8)


@pytest.mark.parametrize(
    ("kind", "less", "more"),
    [
        ("compose", {"search": "gradient"}, {"search": "nevergrad"}),
        ("compose", {"budget": "5"}, {"budget": "50"}),
        ("compose", {"tune": None}, {"tune": {"steps": "20"}}),
        ("compose", {}, {"choose": 1, "modules": range(100)}),
        ("train", {"epochs": 1}, {"epochs": 5}),
        ("train", {"steps": 10}, {"steps": "1000"}),
        ("train", {}, {"compare": ["lora"]}),
        ("train", {"rates": []}, {"lr_search": {}}),
        ("par", {}, {"compare": ["random"]}),
        ("reduce", {"budget": 1}, {"budget": 50}),
        ("evaluate", {"include_base": False, "modules": [1]}, {"include_base": True, "modules": [1, 2]}),
    ],
)
def test_more_is_more_work(kind: JobKind, less: dict[str, Any], more: dict[str, Any]) -> None:
    size = KINDS[kind].size
    assert size(less, 1_000, 0) < size(more, 1_000, 0)
    if "steps" not in less:  # which say by themselves how much is learnt
        assert size(less, 1_000, 0) < size(less, 9_000, 0)
    if kind != "evaluate":
        assert size(less, 1_000, 0) < size(less, 1_000, 9_000)


def test_what_is_typed_and_no_number_yet_counts_as_the_default() -> None:
    typed = {"budget": "many", "search": "gradient"}
    size = KINDS["compose"].size
    assert size(typed, 1_000, 0) == size({"search": "gradient"}, 1_000, 0)


def test_jobs_that_succeeded_on_the_base_are_what_it_is_from(services: Services, ann: Person) -> None:
    base(services)
    adapter(services, ann, "ann/a")
    rows = [{"input": "x" * 100, "target": "y"}] * 4
    body = {"kind": "compose", "name": "ann/w", "modules": [{"repo": "ann/a"}], "examples": {"inline": rows}}
    jobs = [
        submit(services, authorize(ann.viewer, UseJobs), REQUESTS.validate_python({**body, "seed": seed}))
        for seed in range(3)
    ]
    asked = {"search": "gradient", "tune": {"steps": 20}}

    def now(base_id: str = TINY) -> Estimate | None:
        with transaction(services.sessions) as session:
            return estimate(session, "compose", base_id, asked, examples=4 * 130, held_out=0)

    assert now() is None, "none has run"
    with transaction(services.sessions) as session:
        ends = func.now() + timedelta(seconds=30)
        ran = {"state": "succeeded", "attempt": 1, "started_at": func.now(), "finished_at": ends}
        session.execute(update(Job).where(Job.id == jobs[0].id).values(**ran))
        session.execute(update(Job).where(Job.id == jobs[1].id).values(**{**ran, "state": "failed"}))
    found = now()
    assert found is not None
    assert found.jobs == 1
    assert found.low == pytest.approx(30, rel=0.1), "asked for the same, it takes about as long"
    assert now("no/such") is None
