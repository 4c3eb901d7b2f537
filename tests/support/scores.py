"""Figures of adapters as an `evaluate` job registers them, and the values of single answers."""

import random
from typing import Any

from hub.registry.jobs import queueing
from hub.registry.library import scores
from hub.registry.models.content import Commit
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.files import TINY
from tests.support.published import AnyParams


def measure(services: Services, person: Person, commit: Commit, exam: Commit, values: list[float], **what: Any) -> None:
    """Keep the figures that an `evaluate` job of the module would register."""
    with transaction(services.sessions) as session:
        made = queueing.Submission("evaluate", "interactive", AnyParams(), [], person.name, "private")
        job = queueing.submit(session, services.queue, person.viewer, made, idempotency_key=None, request={})
        figure = scores.Measurement(
            **{"metric": "exact_match", "dataset_path": "train.jsonl", "template": "plain", **what},
            value=sum(values) / len(values),
            low=0.0,
            high=1.0,
            examples=len(values),
            per_example=values,
            base_id=TINY,
            dataset_commit=exam.id,
        )
        scores.keep(session, figure, commit_id=commit.id, job_id=job.id)


def answers(right: int, count: int = 400, seed: int = 0) -> list[float]:
    values = [1.0] * right + [0.0] * (count - right)
    random.Random(seed).shuffle(values)
    return values
