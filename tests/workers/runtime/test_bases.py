"""Which bases a worker keeps warm, through jobs."""

import json
import shutil
import struct
import uuid
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.http import upload
from tests.workers.jobs import Submit, composition, job_of
from workers.runner import Runner


def register(client: TestClient, admin: Person, base_id: str, folder: Path) -> None:
    answer = client.post("/v1/bases", headers=admin.headers, json={"id": base_id, "path": str(folder)})
    assert answer.status_code == 201, answer.text


@pytest.fixture
def three(client: TestClient, admin: Person, tiny_folder: Path, tmp_path: Path) -> list[str]:
    names = []
    for number in range(3):
        folder = tmp_path / f"base{number}"
        shutil.copytree(tiny_folder, folder)
        names.append(f"tests/base{number}")
        register(client, admin, names[-1], folder)
    return names


def answered(services: Services, runner: Runner, submit: Submit, base: str) -> int:
    """How often the worker had to load a base to answer on this one."""
    before = runner.bases.loads
    job_id = submit({"kind": "generate", "prompt": "say 1", "base": base, "max_new_tokens": 2})
    runner.run(job_id)
    assert job_of(services, job_id).state == "succeeded", job_of(services, job_id).error_message
    return runner.bases.loads - before


def failed(services: Services, runner: Runner, job_id: uuid.UUID) -> str | None:
    runner.run(job_id)
    assert job_of(services, job_id).state == "failed"
    return job_of(services, job_id).error_code


def test_bases_that_fit_are_tried_in_turn_without_loading_them_again(
    services: Services, runner: Runner, submit: Submit, three: list[str]
) -> None:
    assert [answered(services, runner, submit, base) for base in three * 2] == [1, 1, 1, 0, 0, 0]


def test_a_failure_costs_the_base_it_happened_on_and_no_other(
    client: TestClient, services: Services, runner: Runner, submit: Submit, ann: Person, three: list[str]
) -> None:
    for base in three:
        answered(services, runner, submit, base)
    upload(client, ann.headers, "ann/rows", {"rows.jsonl": b'{"input": "a"}\n'}, kind="datasets")
    bad = {"kind": "evaluate", "base": three[1], "datasets": [{"dataset": "ann/rows"}], "metrics": ["exact_match"]}
    assert failed(services, runner, submit(bad)) == "bad_example"
    assert [answered(services, runner, submit, base) for base in three] == [0, 1, 0]


def test_a_base_that_does_not_fit_is_refused_when_all_others_have_gone(
    client: TestClient, services: Services, runner: Runner, submit: Submit, admin: Person, three: list[str]
) -> None:
    folder = Path(services.settings.cache_dir) / "huge"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    values = 1 << 38
    header = {"model.embed_tokens.weight": {"dtype": "F32", "shape": [values, 1], "data_offsets": [0, 4 * values]}}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:  # a terabyte, none of which is on the disk
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + 4 * values)
    register(client, admin, "tests/huge", folder)
    answered(services, runner, submit, three[0])
    job_id = submit({"kind": "generate", "prompt": "say 1", "base": "tests/huge"})
    assert failed(services, runner, job_id) == "out_of_memory"
    assert "free on this worker" in (job_of(services, job_id).error_message or "")
    assert answered(services, runner, submit, three[0]) == 1


def test_a_search_has_the_memory_to_itself(
    services: Services, runner: Runner, submit: Submit, library: list[str], three: list[str]
) -> None:
    answered(services, runner, submit, three[0])
    job_id = submit(composition(library))
    runner.run(job_id)
    assert job_of(services, job_id).state == "succeeded"
    assert answered(services, runner, submit, "tests/tiny") == 0
    assert answered(services, runner, submit, three[0]) == 1
