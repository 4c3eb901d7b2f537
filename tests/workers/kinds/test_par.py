"""Job kind `par`: from labelled examples to an adapter that stock PEFT loads, through a kill in either stage, with its report."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from peft import PeftModel
from sqlalchemy import func, select
from starlette.testclient import TestClient
from transformers import AutoModelForCausalLM

from hub import supervisor
from hub.lora.core.adapter import write
from hub.lora.core.bases import Base, load
from hub.lora.core.batches import split
from hub.lora.core.examples import Example
from hub.lora.par.grpo import Reinforcement
from hub.lora.par.method import PRESETS, Settings, Systems, changed, run_arm
from hub.lora.train.loop import Recipe
from hub.registry.jobs.contracts import par as module
from hub.registry.jobs.requests.par import ParRequest
from hub.registry.models.adapters import Lineage
from hub.registry.models.jobs import JobEvent
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.vocabulary import PAR_ARMS, REWARDS, ParControl, PartitionStart, Reward
from tests.conftest import Person
from tests.workers.jobs import RUN_ONE, Submit, download, job_of, lease_is_over, results, wait_for
from tests.workers.two_systems import FAST, HELD_OUT, SLOW, two_systems
from workers.runner import Runner


@pytest.mark.usefixtures("library")
def test_labelled_examples_become_a_module_with_its_partition_and_what_each_stage_brought(
    client: TestClient,
    services: Services,
    ann: Person,
    submit: Submit,
    runner: Runner,
    tiny_folder: Path,
    tmp_path: Path,
) -> None:
    job_id = submit(two_systems(held_out={"inline": HELD_OUT}, compare=["random", "lora"]))
    runner.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}", headers=ann.headers).json()
    assert job["state"] == "succeeded", job["error"]
    result = job["result"]
    assert result["split"] == {"by": "labels", "system1": 24, "system2": 12, "validated": 2}
    assert result["settings"]["supervised"]["rank"] == 8, "what is not asked for is the named settings'"
    assert result["settings"]["reinforced"]["max_prompt"] == 512
    partition = result["partition"]
    assert 0 < partition["jaccard"] < 1
    assert partition["active"] < 1
    assert [row["matrix"] for row in partition["matrices"]][:2] == [
        "model.layers.0.self_attn.q_proj A",
        "model.layers.0.self_attn.q_proj B",
    ]
    for row in partition["matrices"]:
        assert row["system1"] + row["system2"] + row["common"] + row["none"] == pytest.approx(1)
    assert len(result["curve"]["module"]["losses"]) == 8
    assert result["rewards"].keys() == {"par", "random"}
    assert len(result["rewards"]["par"]["steps"]) == 3
    kept = result["optimizer_bytes"]
    assert kept["par"] == kept["random"]
    assert kept["par"]["sft"] < 0.75 * kept["lora"]["sft"] == 0.75 * 8 * partition["elements"]

    assert [arm["name"] for arm in result["report"]["arms"]] == ["base", "sft", "module", "random", "lora"]
    assert result["accuracy"]["measure"] == "exact_match"
    for parts in result["accuracy"]["arms"].values():
        assert parts.keys() == {"all", "system1", "system2"}
        assert all(part["low"] <= part["mean"] <= part["high"] for part in parts.values())
    assert not any("could be scored" in warning for warning in result["warnings"]), "there were more than six of each"

    folder = download(client, ann, "ann/two", tmp_path / "two")
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), folder)
    manifest = json.loads((folder / "loraloom.json").read_text())
    assert {**manifest, "inputs": 0} == {**manifest, **result, "inputs": 0}, "the job says what the manifest says"
    assert manifest["versions"]["trl"]
    card = (folder / "README.md").read_text()
    for text in (
        "prompt_template: plain",
        "lora-par",
        "## Partition",
        "q_proj A",
        "By system",
        "| stage 2 kl | 0.04 |",
    ):
        assert text in card
    with transaction(services.sessions) as session:
        lineage = session.scalars(select(Lineage).where(Lineage.child == job["result_commit"])).all()
    assert [line.role for line in lineage] == ["dataset"]
    found = client.get("/v1/adapters/ann/two", headers=ann.headers).json()
    assert found["adapters"][0]["method"] == "lora-par"
    assert again(manifest, load(tiny_folder, id="tests/tiny"), tmp_path / "again") == {
        name: (folder / name).read_bytes() for name in ("adapter_model.safetensors", "adapter_config.json")
    }
    page = client.get(f"/jobs/{job_id}", headers=ann.headers).text
    assert "Jaccard" in page
    assert page.count('aria-label="Mean reward at each step"') == 2, "of the adapter and of the random control"
    assert '<th scope="row">model.layers.0.self_attn.q_proj A</th>' in page


def again(manifest: dict[str, Any], base: Base, folder: Path) -> dict[str, bytes]:
    """The adapter made anew by the library from what the manifest says and the examples alone."""
    given = dict(manifest["settings"])
    named, share = given.pop("named"), given.pop("validation_share")
    assert named == "today"
    supervised, reinforced = Recipe(**given.pop("supervised")), Reinforcement(**given.pop("reinforced"))
    settings = Settings(**given, supervised=supervised, reinforced=reinforced)
    first, second = ([Example(str(row["input"]), str(row["target"])) for row in rows] for rows in (FAST, SLOW))
    learnt, validated = split(first, share, settings.seed, 200)
    systems = Systems(learnt, second, validated)
    arm = run_arm(base, systems, settings, "par", template=manifest["template"], on_progress=lambda *_: None)
    write(arm.adapter, folder, dtype=torch.float32)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("library")
def test_a_worker_killed_in_either_stage_goes_on_at_its_step_and_ends_with_the_same_bytes(
    client: TestClient, services: Services, ann: Person, submit: Submit, tmp_path: Path
) -> None:
    settings = services.settings.model_copy(update={"lease_seconds": 3.0, "checkpoint_seconds": 0.0})
    body = two_systems()
    body["sft"]["steps"], body["grpo"]["steps"] = 40, 12
    runner = Runner(settings)
    runner.run(submit(body | {"name": "ann/whole"}))
    job_id = submit(body | {"name": "ann/killed"})
    reached = {}
    for attempt, stage in enumerate(("par sft", "par grpo"), 1):
        command = [sys.executable, "-c", RUN_ONE, str(job_id)]
        with subprocess.Popen(
            command, cwd=supervisor.ROOT, env={**os.environ, **supervisor.environment(settings)}
        ) as worker:
            reach = lambda: steps_of(services, job_id, stage, attempt)[1] >= 3  # noqa: B023, E731 - waited for at once
            wait_for(reach, seconds=120)
            worker.send_signal(signal.SIGKILL)
        assert job_of(services, job_id).state == "running", "nobody knows yet"
        reached[stage] = steps_of(services, job_id, stage, attempt)[1]
        wait_for(lambda: lease_is_over(services, job_id))
    runner.run(job_id)
    job = job_of(services, job_id)
    assert (job.state, job.attempt) == ("succeeded", 3), job.error_message
    assert results(services, job_id) == 1
    for attempt, stage, last in ((2, "par sft", 40), (3, "par grpo", 12)):
        first, until = steps_of(services, job_id, stage, attempt)
        assert reached[stage] <= first <= reached[stage] + 2, "give or take one being written"
        assert until == last
    assert steps_of(services, job_id, "par score", 2) == (0, 0), "the partition was kept"
    assert steps_of(services, job_id, "par sft", 3) == (0, 0), "a stage that was finished is only read"
    one, two = (download(client, ann, name, tmp_path / name[4:]) for name in ("ann/whole", "ann/killed"))
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    said = [json.loads((folder / "loraloom.json").read_text()) | {"inputs": None} for folder in (one, two)]
    assert said[0] == said[1], "curves, optimiser bytes and all"
    runner.services.close()


def steps_of(services: Services, job_id: Any, phase: str, attempt: int) -> tuple[int, int]:
    """The first and the last step that an attempt has reported for a phase; 0 where it has reported none."""
    with transaction(services.sessions) as session:
        found = select(func.min(JobEvent.step), func.max(JobEvent.step)).where(
            JobEvent.job_id == job_id, JobEvent.phase == phase, JobEvent.attempt == attempt, JobEvent.total > 0
        )
        first, last = session.execute(found).one()
        return first or 0, last or 0


@pytest.mark.usefixtures("library")
def test_the_random_split_needs_no_labels_and_what_is_wrong_is_said(
    client: TestClient, services: Services, ann: Person, submit: Submit, runner: Runner
) -> None:
    bare = [{key: row[key] for key in ("input", "target")} for row in FAST]
    held_out = {"inline": [{"input": "say 77", "target": "77"}]}
    job_id = submit(two_systems(examples={"inline": bare}, split="random", measure="numeric", held_out=held_out))
    runner.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}", headers=ann.headers).json()
    assert job["state"] == "succeeded", job["error"]
    assert (job["result"]["split"]["system1"], job["result"]["split"]["system2"]) == (12, 12)
    assert job["result"]["accuracy"]["measure"] == "numeric"
    assert job["result"]["accuracy"]["arms"]["module"].keys() == {"all"}, "there are no labels to tell them apart"

    chosen = {"inline": [{"input": "which?", "target": "b", "choices": ["a", "b"], "system": 2}]}
    choosing = submit(two_systems(name="ann/choosing", measure="choice", held_out=chosen))
    runner.run(choosing)
    found = client.get(f"/v1/jobs/{choosing}", headers=ann.headers).json()["result"]["accuracy"]
    assert found["measure"] == "choice"
    assert found["arms"]["module"]["system2"]["mean"] in (0.0, 1.0)

    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "bad_example": ({"examples": {"inline": [*FAST, *bare]}}, "24 of 48 examples have no `system`"),
        "nothing_to_partition": ({"examples": {"inline": FAST}}, "no example of System 2"),
        "held_out_unusable": ({"held_out": {"inline": FAST[:1]}}, "also among the examples"),
        "not_reinforceable": ({"grpo": {"prompts": 1, "generations": 3, "batch_size": 2}}, "divides 3"),
    }
    for code, (changes, words) in wrong.items():
        failing = submit(two_systems(name=f"ann/{code.replace('_', '-')}", **changes))
        runner.run(failing)
        failed = job_of(services, failing)
        assert (failed.state, failed.error_code) == ("failed", code)
        assert words in (failed.error_message or "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sft": {"steps": 3, "epochs": 2}}, "steps or epochs"),
        ({"compare": ["lora", "lora"]}, "once"),
        ({"grpo": {"rewards": {"length": 0}}}, "a weight above 0"),
        ({"grpo": {"rewards": {"run_the_code": 1}}}, "rewards"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(
    client: TestClient, ann: Person, changes: dict[str, Any], words: str
) -> None:
    answer = client.post("/v1/jobs", headers=ann.headers, json=two_systems(**changes))
    assert answer.status_code == 422
    assert words in answer.text


@pytest.mark.usefixtures("library")
def test_a_target_that_the_base_does_not_have_is_refused(client: TestClient, ann: Person) -> None:
    answer = client.post("/v1/jobs", headers=ann.headers, json=two_systems(sft={"target_modules": ["qkv"]}))
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "unknown_target")


def test_the_request_asks_for_what_the_method_knows() -> None:
    """The registry may not import torch, so the choices stand in both places; here they are held together."""
    assert get_args(Reward) == REWARDS
    assert {"par", *get_args(ParControl)} == set(PAR_ARMS)
    assert set(get_args(get_args(module.PartitionSettings.model_fields["start"].annotation)[0])) == set(
        get_args(PartitionStart)
    )
    assert get_args(ParRequest.model_fields["settings"].annotation)[::-1] == tuple(PRESETS)
    request = ParRequest.model_validate(two_systems())
    asked = changed("paper", request.changes().model_dump(), seed=7)
    assert (asked.supervised.steps, asked.supervised.accumulation, asked.seed) == (8, 32, 7)
    assert (asked.reinforced.kl, asked.reinforced.temperature, asked.sample) == (0.04, 0.9, 6)
    nothing: dict[str, dict[str, Any]] = {"partition": {}, "supervised": {}, "reinforced": {}}
    assert changed("paper", nothing, seed=0) == PRESETS["paper"]
    for fields, method in ((module.SupervisedSettings, Recipe), (module.ReinforcedSettings, Reinforcement)):
        assert fields.model_fields.keys() <= vars(method()).keys()
