"""What a job measured of its own result opens an alias gate on the same examples, whichever kind it is; no evaluation is needed."""

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from hub.vocabulary import ENOUGH_EXAMPLES
from tests.conftest import Person
from tests.support.http import upload
from tests.workers.jobs import Submit, composition
from tests.workers.two_systems import two_systems
from workers.runner import Runner

EXAM = [{"input": f"count {number}", "target": f"{number}"} for number in range(ENOUGH_EXAMPLES)]
GATE = {"metric": "exact_match", "dataset": "ann/exam", "path": "train.jsonl", "template": "plain", "tolerance": 0.05}


@pytest.mark.parametrize("kind", ["compose", "par"])
def test_a_results_own_measurement_opens_a_gate(
    client: TestClient, ann: Person, library: list[str], submit: Submit, runner: Runner, kind: str
) -> None:
    files = {"train.jsonl": "".join(json.dumps(row) + "\n" for row in EXAM).encode()}
    assert upload(client, ann.headers, "ann/exam", files, kind="datasets").status_code == 201
    changes: dict[str, Any] = {"name": "ann/x", "held_out": {"dataset": "ann/exam"}}
    commits = []
    for seed in (1, 2):
        body = (
            composition(library, budget=4 + seed, **changes) if kind == "compose" else two_systems(seed=seed, **changes)
        )
        job_id = submit(body)
        runner.run(job_id)
        job = client.get(f"/v1/jobs/{job_id}", headers=ann.headers).json()
        assert job["state"] == "succeeded", job["error"]
        commits.append(job["result_commit"])
    alias = "/v1/adapters/ann/x/aliases/prod"
    assert client.put(alias, headers=ann.headers, json={"revision": commits[0]}).status_code == 200
    assert client.put(f"{alias}/gate", headers=ann.headers, json=GATE).status_code == 200
    moved = client.put(alias, headers=ann.headers, json={"revision": commits[1]})
    assert moved.status_code == 200, moved.text
    assert moved.json()["commit"] == commits[1] != commits[0]
