"""Jobs of every kind for tests in which no worker runs them."""

import uuid
from collections.abc import Mapping
from typing import Any

from hub.registry.jobs import queueing
from hub.registry.jobs.contracts.common import Params
from hub.registry.jobs.kinds import KINDS
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.vocabulary import JobKind, QueueName
from tests.conftest import Person
from tests.support.files import TINY

COMMIT = "0123456789" * 4
BASE = {"base": {"id": TINY, "path": "/models/tiny", "fingerprint": "f" * 64}, "template": "chat"}
EXAMPLES = {"repo": "ann/d", "commit": COMMIT, "path": "train.jsonl"}
RECIPE = {"rank": 8, "alpha": 16, "learning_rate": 0.0005}

SMALLEST: Mapping[JobKind, Mapping[str, Any]] = {
    "compose": {**BASE, "result": "ann/x", "modules": [], "form": "sum", "search": "gradient", "budget": 10},
    "train": {**BASE, "result": "ann/x", "examples": EXAMPLES, "recipe": RECIPE},
    "par": {**BASE, "result": "ann/x", "examples": EXAMPLES},
    "reduce": {**BASE, "result": "ann/x", "examples": EXAMPLES, "subject": "base", "score": "tail_taylor"},
    "evaluate": {**BASE, "modules": [], "datasets": [EXAMPLES], "metrics": ["exact_match"]},
    "convert": {"result": "ann/x", "source": {"repo": "ann/old", "commit": COMMIT, "path": "adapter_model.bin.pickle"}},
    "generate": {**BASE, "prompt": "Hello"},
}


def smallest_params(kind: JobKind, **changes: Any) -> Params:
    return KINDS[kind].params.model_validate({**SMALLEST[kind], **changes})


def queue_job(
    services: Services, person: Person, kind: JobKind = "train", queue: QueueName | None = None, **changes: Any
) -> uuid.UUID:
    """A queued job with the smallest params of its kind, but for these changes."""
    params = smallest_params(kind, **changes)
    submission = queueing.Submission(kind, queue or KINDS[kind].queue, params, [], person.name, "private")
    with transaction(services.sessions) as session:
        return queueing.submit(session, services.queue, person.viewer, submission, idempotency_key=None, request={}).id
