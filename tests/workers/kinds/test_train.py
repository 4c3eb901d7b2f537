"""Job kind `train`: from a data set to an adapter that stock PEFT loads, through kills, with what it says about itself."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from peft import PeftModel
from sqlalchemy import func, select, text, update
from starlette.testclient import TestClient
from transformers import AutoModelForCausalLM

from hub import supervisor
from hub.lora.train.loop import Recipe
from hub.registry.jobs import checkpoints, leases
from hub.registry.jobs.requests.train import TrainRequest
from hub.registry.models.adapters import Lineage
from hub.registry.models.jobs import Job, JobEvent
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.vocabulary import INITS, Schedule
from tests.conftest import Person
from tests.support.files import examples_file
from tests.support.http import upload
from tests.support.published import WORKER
from tests.workers.jobs import (
    EXAMPLES,
    HELD_OUT,
    RUN_ONE,
    Submit,
    download,
    job_of,
    lease_is_over,
    results,
    steps,
    wait_for,
)
from workers.runner import Runner


def training(**changes: Any) -> dict[str, Any]:
    """The body of a small training; `library` has registered its base."""
    body = {
        "kind": "train",
        "name": "ann/trained",
        "base": "tests/tiny",
        "examples": {"inline": [{"input": f"say {number}", "target": f"it is {number}"} for number in range(40)]},
        "learning_rate": 5e-3,
        "steps": 12,
        "batch_size": 6,
        "template": "plain",
    }
    return body | changes


@pytest.mark.usefixtures("library")
def test_a_data_set_becomes_a_module_that_peft_loads(
    client: TestClient,
    services: Services,
    ann: Person,
    submit: Submit,
    runner: Runner,
    tiny_folder: Path,
    tmp_path: Path,
) -> None:
    assert upload(client, ann.headers, "ann/rows", {"a.jsonl": examples_file(30)}, kind="datasets").status_code == 201
    job_id = submit(training(examples={"dataset": "ann/rows"}, held_out={"inline": HELD_OUT}, init="pissa"))
    runner.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}", headers=ann.headers).json()
    assert job["state"] == "succeeded", job["error"]
    report = job["result"]["report"]
    assert [arm["name"] for arm in report["arms"]] == ["base", "module"]
    assert report["verdict"].startswith("No claim: 4 held-out examples")
    settings = job["result"]["settings"]
    assert (settings["steps"], settings["ratio"], settings["learnt"], settings["validated"]) == (12, 1.0, 27, 3)
    assert len(job["result"]["curve"]["module"]["losses"]) == 12

    folder = download(client, ann, "ann/trained", tmp_path / "trained")
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), folder)
    manifest = json.loads((folder / "loraloom.json").read_text())
    assert manifest["inputs"]["examples"]["repo"] == "ann/rows"
    assert manifest["settings"] == settings
    card = (folder / "README.md").read_text()
    for said in ("prompt_template: plain", "ann/rows", "## Curve", "| 12 |", "| learning rate | 0.005 |"):
        assert said in card
    with transaction(services.sessions) as session:
        lineage = session.scalars(select(Lineage).where(Lineage.child == job["result_commit"])).all()
    assert sorted(line.role for line in lineage) == ["dataset", "dataset"]
    found = client.get("/v1/adapters/ann/trained", headers=ann.headers).json()
    assert found["adapters"][0]["method"] == "lora", "PiSSA's ratio is 1"
    assert {score["metric"] for score in found["scores"]} == {"exact_match", "target_loss"}
    assert "changed_base" not in {finding["code"] for finding in found["adapters"][0]["findings"]}


@pytest.mark.usefixtures("library")
def test_progress_has_losses_both_rates_speed_and_the_time_left(
    client: TestClient, ann: Person, submit: Submit, runner: Runner
) -> None:
    job_id = submit(training(validate_every=4))
    runner.run(job_id)
    events = client.get(f"/v1/jobs/{job_id}/events", headers=ann.headers).json()
    reported = [event for event in events if event["phase"] == "train module" and event["total"]]
    assert [event["step"] for event in reported] == list(range(1, 13))
    for event in reported:
        numbers = event["numbers"]
        assert {"loss", "learning_rate_a", "learning_rate_b", "tokens_per_second", "seconds_left"} <= numbers.keys()
        assert ("validation_loss" in numbers) == (event["step"] % 4 == 0)
        assert numbers["learning_rate_b"] == pytest.approx(4 * numbers["learning_rate_a"])


@pytest.mark.usefixtures("library")
def test_lora_is_compared_at_the_best_rate_of_its_own(
    client: TestClient, ann: Person, submit: Submit, runner: Runner
) -> None:
    body = training(
        compare=["lora"],
        lr_search={"rates": [1e-4, 5e-3, 1e-2], "steps": 4},
        held_out={"inline": HELD_OUT},
        start_from={"repo": "ann/module1"},
    )
    job_id = submit(body)
    runner.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}", headers=ann.headers).json()
    assert job["state"] == "succeeded", job["error"]
    result = job["result"]
    arms = {arm["name"]: arm for arm in result["report"]["arms"]}
    assert list(arms) == ["base", "start", "module", "lora"]
    assert (arms["module"]["made_by"]["ratio"], arms["lora"]["made_by"]["ratio"]) == (4.0, 1.0)
    for name in ("module", "lora"):
        search = result["search"][name]
        losses = {trial["learning_rate"]: trial["validation_loss"] for trial in search["trials"]}
        assert sorted(losses) == [1e-4, 5e-3, 1e-2]
        assert arms[name]["made_by"]["learning_rate"] == search["best"] == min(losses, key=losses.__getitem__)
    assert [line["against"] for line in result["report"]["comparisons"]] == ["base", "start", "lora"]


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("changes", [{"dropout": 0.2}, {"lr_search": {"rates": [1e-3, 5e-3], "steps": 30}}])
def test_a_worker_killed_in_the_middle_goes_on_and_ends_with_the_same_bytes(
    client: TestClient, services: Services, ann: Person, submit: Submit, tmp_path: Path, changes: dict[str, Any]
) -> None:
    settings = services.settings.model_copy(update={"lease_seconds": 2.0, "checkpoint_seconds": 0.0})
    runner = Runner(settings)
    whole = submit(training(name="ann/whole", steps=60, **changes))
    runner.run(whole)
    job_id = submit(training(name="ann/killed", steps=60, **changes))
    command = [sys.executable, "-c", RUN_ONE, str(job_id)]
    with subprocess.Popen(
        command, cwd=supervisor.ROOT, env={**os.environ, **supervisor.environment(settings)}
    ) as worker:
        wait_for(lambda: steps(services, job_id) > 50)
        worker.send_signal(signal.SIGKILL)
    assert job_of(services, job_id).state == "running", "nobody knows yet"
    done = last_step(services, job_id, attempt=1)
    wait_for(lambda: lease_is_over(services, job_id))
    runner.run(job_id)
    job = job_of(services, job_id)
    assert (job.state, job.attempt) == ("succeeded", 2), job.error_message
    assert results(services, job_id) == 1
    phase, step = done
    with transaction(services.sessions) as session:
        again = select(func.min(JobEvent.step)).where(
            JobEvent.job_id == job_id, JobEvent.attempt == 2, JobEvent.phase == phase, JobEvent.total > 0
        )
        first = session.scalar(again)
    assert first in (None, step, step + 1, step + 2), "it goes on at the step reached, give or take one being written"
    one, two = (download(client, ann, name, tmp_path / name[4:]) for name in ("ann/whole", "ann/killed"))
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    first_curve, second_curve = (json.loads((folder / "loraloom.json").read_text())["curve"] for folder in (one, two))
    assert first_curve == second_curve
    assert list(services.storage.keys_older_than(f"checkpoints/{job_id}/", the_future()))
    checkpoints.remove_ended(services)
    assert not list(services.storage.keys_older_than(f"checkpoints/{job_id}/", the_future()))
    runner.services.close()


def the_future() -> Any:
    """A time after everything that has been stored, whatever S3's clock says."""
    return datetime.now(UTC) + timedelta(days=1)


def last_step(services: Services, job_id: Any, attempt: int) -> tuple[str, int]:
    with transaction(services.sessions) as session:
        row = session.execute(
            select(JobEvent.phase, JobEvent.step)
            .where(JobEvent.job_id == job_id, JobEvent.attempt == attempt)
            .order_by(JobEvent.seq.desc())
            .limit(1)
        ).one()
    return row.phase, row.step


@pytest.mark.usefixtures("library")
def test_a_worker_that_lost_its_lease_keeps_no_place(
    services: Services, submit: Submit, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(training())
    work = runner._work

    def lose_the_lease_first(*args: Any) -> Any:
        with transaction(services.sessions) as session:
            session.execute(update(Job).values(lease_until=text("now() - interval '1 second'")))
            assert leases.claim(session, job_id, WORKER, 30) is not None
        return work(*args)

    # The first event would notice too, so it is let through: what is tested is the place itself.
    monkeypatch.setattr(runner, "_work", lose_the_lease_first)
    monkeypatch.setattr(leases, "record", lambda *_: None)
    runner.run(job_id)
    assert job_of(services, job_id).state == "running", "it is the other's now"
    assert not list(services.storage.keys_older_than(f"checkpoints/{job_id}/", the_future()))


@pytest.mark.usefixtures("library")
def test_what_went_wrong_or_was_left_out_is_said(
    client: TestClient, services: Services, ann: Person, submit: Submit, runner: Runner
) -> None:
    rows = [*EXAMPLES, {"input": "long " * 40, "target": "x"}]
    job_id = submit(training(examples={"inline": rows}, max_length=100, validation_share=0.0))
    runner.run(job_id)
    job = job_of(services, job_id)
    assert job.state == "succeeded", job.error_message
    assert job.result is not None
    said = " ".join(job.result["warnings"])
    for words in ("1 examples have more than 100 tokens", "Nothing was validated", "No held-out examples"):
        assert words in said

    wrong: dict[str, dict[str, Any]] = {
        "nothing_to_train": {"max_length": 8},
        "held_out_unusable": {"held_out": {"inline": [{"input": "say 1", "target": "it is 1"}]}},
    }
    for code, changes in wrong.items():
        failing = submit(training(name=f"ann/{code.replace('_', '-')}", **changes))
        runner.run(failing)
        assert (job_of(services, failing).state, job_of(services, failing).error_code) == ("failed", code)
    rows_without = b'{"input": "a", "target": "b"}\n{"input": "c"}\n'
    upload(client, ann.headers, "ann/broken", {"rows.jsonl": rows_without}, kind="datasets")
    failing = submit(training(examples={"dataset": "ann/broken"}))
    runner.run(failing)
    assert job_of(services, failing).error_code == "bad_example"
    assert "Line 2: target" in (job_of(services, failing).error_message or "")


@pytest.mark.usefixtures("library")
def test_cancel_ends_training_within_one_step_and_the_base_serves_the_next_job(
    services: Services, submit: Submit, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(training(steps=50))
    record = leases.record

    def record_and_cancel(session: Any, lease: Any, seq: int, phase: str, step: int, *rest: Any) -> None:
        record(session, lease, seq, phase, step, *rest)
        if (phase, step) == ("train module", 3):
            session.execute(update(Job).values(cancel_requested=True))

    with monkeypatch.context() as patch:
        patch.setattr(leases, "record", record_and_cancel)
        runner.run(job_id)
    assert job_of(services, job_id).state == "cancelled"
    assert last_step(services, job_id, attempt=1) == ("train module", 3)
    again = submit(training(name="ann/again"))
    runner.run(again)
    assert job_of(services, again).state == "succeeded"


def test_the_request_asks_for_what_the_method_knows() -> None:
    """The registry may not import torch, so the choices stand in both places; here they are held together."""
    fields = TrainRequest.model_fields
    assert get_args(fields["init"].annotation) == INITS
    assert get_args(fields["schedule"].annotation) == get_args(Schedule)
    request = TrainRequest.model_validate(training())
    for name, value in vars(Recipe(**dict(request.recipe()))).items():
        if name not in ("steps", "learning_rate", "batch_size"):
            assert value == getattr(Recipe(), name), name
