"""LoRA-PAR as a user sees it: labelled examples, one request to a running instance, and an adapter with what each stage brought."""

import json
from collections.abc import Iterable

import pytest

from hub.starter.tasks import TASKS, TextPair
from tests.e2e.conftest import Running

pytestmark = pytest.mark.e2e


def test_one_request_gives_a_module_with_its_partition(instance: Running) -> None:
    (task,) = [task for task in TASKS if task.name == "number-words"]

    def rows(count: int, pairs: Iterable[TextPair]) -> list[dict[str, object]]:
        labelled = [
            {"input": pair.input, "target": pair.target, "system": 1 + (int(pair.input.split()[-1]) >= 100)}
            for pair in pairs
        ]
        return [row for system in (1, 2) for row in [each for each in labelled if each["system"] == system][:count]]

    body = {
        "kind": "par",
        "name": "admin/two-systems",
        "base": "loraloom/SmolLM2-135M-Instruct-Q4_1",
        "examples": {"inline": rows(24, task.train)},
        "held_out": {"inline": rows(6, task.held_out)},
        "partition": {"start": "probe", "sample": 4, "theta": 0.5},
        "sft": {"steps": 4, "target_modules": ["q_proj", "v_proj"], "learning_rate": 1e-3},
        "grpo": {"steps": 2, "prompts": 2, "generations": 4, "batch_size": 8, "max_answer": 8},
        "template": "plain",
    }
    with instance.client() as client:
        job = instance.finished(client, client.post("/v1/jobs", json=body).json())
        assert job["state"] == "succeeded", job["error"]
        manifest = json.loads(client.get("/v1/adapters/admin/two-systems/files/loraloom.json").text)
    result = job["result"]
    assert result["split"] == {"by": "labels", "system1": 24, "system2": 24, "validated": 2}
    assert 0 < result["partition"]["stage1"] < 0.2, "half of the importance lies in few elements"
    assert result["optimizer_bytes"]["par"]["sft"] < 0.25 * 8 * result["partition"]["elements"]
    assert [arm["name"] for arm in result["report"]["arms"]] == ["base", "sft", "module"]
    assert manifest["partition"] == result["partition"]
