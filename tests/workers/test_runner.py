"""A job from its claim to its result: registered once, however often it runs and whatever is killed meanwhile."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from sqlalchemy import func, select, text, update
from starlette.testclient import TestClient
from transformers import AutoModelForCausalLM

from hub import supervisor
from hub.registry.jobs import leases
from hub.registry.models.adapters import Lineage, Score
from hub.registry.models.jobs import Attempt, Job, JobEvent
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.files import examples_file
from tests.support.http import upload
from tests.support.published import WORKER
from tests.workers.jobs import (
    EXAMPLES,
    HELD_OUT,
    RUN_ONE,
    Submit,
    composition,
    download,
    job_of,
    lease_is_over,
    results,
    steps,
    wait_for,
)
from workers.kinds import compose
from workers.runner import Runner


def test_a_composition_becomes_an_adapter_that_peft_loads(
    client: TestClient,
    services: Services,
    ann: Person,
    library: list[str],
    submit: Submit,
    runner: Runner,
    tiny_folder: Path,
    tmp_path: Path,
) -> None:
    job_id = submit(composition(library, held_out={"inline": HELD_OUT}))
    runner.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}", headers=ann.headers).json()
    assert job["state"] == "succeeded", job["error"]
    assert job["result_repo"] == "ann/woven"
    assert len(job["result"]["trace"]) == 6
    report = job["result"]["report"]
    assert [arm["name"] for arm in report["arms"]] == ["base", "best_single", "average", "fresh_lora", "composition"]
    assert report["held_out"] == 4
    assert report["verdict"].startswith("No claim"), "four examples allow none"

    folder = download(client, ann, "ann/woven", tmp_path / "woven")
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "loraloom.json",
    }
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), folder)
    manifest = json.loads((folder / "loraloom.json").read_text())
    pinned = {entry["commit"] for entry in manifest["inputs"]["modules"]}
    assert manifest["weights"] == job["result"]["weights"]
    with transaction(services.sessions) as session:
        lineage = session.scalars(select(Lineage).where(Lineage.child == job["result_commit"])).all()
    assert {line.parent for line in lineage if line.role == "module"} == pinned
    assert {line.weight for line in lineage if line.role == "module"} == set(manifest["weights"].values())
    assert sum(line.role == "dataset" for line in lineage) == 1

    found = client.get("/v1/adapters/ann/woven", headers=ann.headers).json()
    assert found["adapters"][0]["method"] == "lorahub"
    assert {finding["code"] for finding in found["adapters"][0]["findings"]} <= {"zero_b", "no_licence"}


def test_events_are_numbered_without_gaps(
    client: TestClient, ann: Person, library: list[str], submit: Submit, runner: Runner
) -> None:
    job_id = submit(composition(library))
    runner.run(job_id)
    events = client.get(f"/v1/jobs/{job_id}/events", headers=ann.headers).json()
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["step"] for event in events if event["phase"] == "search" and event["total"]] == [1, 2, 3, 4, 5, 6]


def test_the_same_request_gives_the_same_bytes(
    client: TestClient, ann: Person, library: list[str], submit: Submit, runner: Runner, tmp_path: Path
) -> None:
    for name in ("ann/one", "ann/two"):
        runner.run(submit(composition(library, name=name, optimizer="OnePlusOne", seed=5)))
    one, two = (download(client, ann, name, tmp_path / name[4:]) for name in ("ann/one", "ann/two"))
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_a_second_job_on_the_same_base_does_not_load_it_again(
    services: Services, library: list[str], submit: Submit, runner: Runner
) -> None:
    first, second = submit(composition(library)), submit(composition(library, name="ann/second"))
    runner.run(first)
    warm = runner.bases.get(Path(job_of(services, first).params["base"]["path"]), id="tests/tiny")
    runner.run(second)
    assert job_of(services, second).state == "succeeded"
    assert runner.bases.loads == 1
    assert runner.bases.get(Path(job_of(services, second).params["base"]["path"]), id="tests/tiny") is warm


def test_a_message_that_comes_twice_does_nothing(
    services: Services, library: list[str], submit: Submit, runner: Runner
) -> None:
    job_id = submit(composition(library))
    runner.run(job_id)
    runner.run(job_id)
    assert results(services, job_id) == 1
    assert job_of(services, job_id).attempt == 1


def test_a_worker_killed_in_the_middle_loses_nothing_and_registers_once(
    services: Services, library: list[str], submit: Submit
) -> None:
    settings = services.settings.model_copy(update={"lease_seconds": 2.0})
    job_id = submit(composition(library, budget=400))
    command = [sys.executable, "-c", RUN_ONE, str(job_id)]
    with subprocess.Popen(
        command, cwd=supervisor.ROOT, env={**os.environ, **supervisor.environment(settings)}
    ) as worker:
        wait_for(lambda: steps(services, job_id) > 20 and seconds(services, job_id)[0] > 0)
        started = job_of(services, job_id).started_at
        assert started is not None
        spent = (datetime.now(UTC) - started).total_seconds()
        worker.send_signal(signal.SIGKILL)
    assert job_of(services, job_id).state == "running", "nobody knows yet"
    runner = Runner(settings)
    runner.run(job_id)
    assert job_of(services, job_id).attempt == 1, "the lease still held"
    wait_for(lambda: lease_is_over(services, job_id))
    runner.run(job_id)
    job = job_of(services, job_id)
    assert (job.state, job.attempt) == ("succeeded", 2)
    assert results(services, job_id) == 1
    with transaction(services.sessions) as session:
        seqs = session.scalars(select(JobEvent.seq).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)).all()
    assert list(seqs) == list(range(1, len(seqs) + 1)), "the second attempt goes on counting"
    of_the_killed, of_the_other = seconds(services, job_id)
    assert spent - 1.5 < of_the_killed < spent + 0.5, "all that it did but what came after its last heartbeat"
    assert of_the_other > 0
    runner.services.close()


def seconds(services: Services, job_id: Any) -> list[float]:
    """Of each attempt, in order."""
    spent = func.extract("epoch", Attempt.heartbeat_at - Attempt.started_at)
    with transaction(services.sessions) as session:
        found = session.scalars(select(spent).where(Attempt.job_id == job_id).order_by(Attempt.attempt))
        return [float(each) for each in found]


def test_a_worker_that_lost_its_lease_publishes_nothing(
    services: Services, library: list[str], submit: Submit, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(composition(library))
    original = runner._work

    def work_while_another_takes_over(*args: Any) -> Any:
        outcome = original(*args)
        with transaction(services.sessions) as session:
            session.execute(update(Job).values(lease_until=text("now() - interval '1 second'")))
            assert leases.claim(session, job_id, WORKER, 30) is not None
        return outcome

    monkeypatch.setattr(runner, "_work", work_while_another_takes_over)
    runner.run(job_id)
    assert results(services, job_id) == 0
    assert job_of(services, job_id).state == "running", "it is the other's now"


def test_a_job_over_its_time_limit_fails_and_publishes_nothing(
    client: TestClient, ann: Person, library: list[str], submit: Submit, runner: Runner
) -> None:
    job_id = submit(composition(library, time_limit_minutes=1e-4))
    runner.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}", headers=ann.headers).json()
    assert (job["state"], job["error"]["code"]) == ("failed", "time_limit")
    assert job["result_commit"] is None


def test_cancel_ends_a_running_job_within_one_evaluation(
    client: TestClient,
    services: Services,
    ann: Person,
    library: list[str],
    submit: Submit,
    runner: Runner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = submit(composition(library, budget=50))
    record = leases.record

    def record_and_cancel(session: Any, lease: Any, seq: int, phase: str, step: int, *rest: Any) -> None:
        record(session, lease, seq, phase, step, *rest)
        if (phase, step) == ("search", 3):
            session.execute(update(Job).values(cancel_requested=True))

    with monkeypatch.context() as patch:
        patch.setattr(leases, "record", record_and_cancel)
        runner.run(job_id)
    assert job_of(services, job_id).state == "cancelled"
    with transaction(services.sessions) as session:
        assert session.scalar(select(func.max(JobEvent.step)).where(JobEvent.job_id == job_id)) == 3
    assert client.post(f"/v1/jobs/{job_id}/cancel", headers=ann.headers).status_code == 200, "cancelling twice is fine"
    assert results(services, job_id) == 0
    again = submit(composition(library, name="ann/again"))
    runner.run(again)
    assert job_of(services, again).state == "succeeded", "the worker goes on"


def test_an_input_that_is_gone_fails_the_job_with_its_name(
    client: TestClient, services: Services, ann: Person, library: list[str], submit: Submit, runner: Runner
) -> None:
    job_id = submit(composition(library))
    assert client.delete("/v1/adapters/ann/module1", headers=ann.headers).status_code == 204
    runner.run(job_id)
    job = job_of(services, job_id)
    assert (job.state, job.error_code) == ("failed", "input_gone")


def test_bad_examples_fail_the_job_with_file_and_line(
    client: TestClient, services: Services, ann: Person, library: list[str], submit: Submit, runner: Runner
) -> None:
    rows = b'{"input": "a", "target": "b"}\n{"input": "a"}\n'
    assert upload(client, ann.headers, "ann/rows", {"rows.jsonl": rows}, kind="datasets").status_code == 201
    job_id = submit(composition(library, examples={"dataset": "ann/rows"}))
    runner.run(job_id)
    job = job_of(services, job_id)
    assert (job.state, job.error_code) == ("failed", "bad_example")
    assert job.error_message is not None
    assert "ann/rows, rows.jsonl: Line 2: target" in job.error_message
    assert job.attempt == 1, "a bad input is not tried three times"


def test_held_out_examples_that_the_search_would_see_are_refused_before_it(
    client: TestClient, services: Services, ann: Person, library: list[str], submit: Submit, runner: Runner
) -> None:
    job_id = submit(composition(library, held_out={"inline": [*HELD_OUT, EXAMPLES[0]]}))
    runner.run(job_id)
    job = job_of(services, job_id)
    assert (job.state, job.error_code) == ("failed", "held_out_unusable")
    assert steps(services, job_id) == 1, "the base was loaded, and no more"


@pytest.mark.parametrize("visibility", ["private", "internal", "public"])
def test_a_result_is_as_visible_as_its_least_visible_input(
    client: TestClient,
    ann: Person,
    bob: Person,
    library: list[str],
    submit: Submit,
    runner: Runner,
    visibility: str,
) -> None:
    change = {"visibility": visibility}
    assert client.patch("/v1/adapters/ann/module2", headers=ann.headers, json=change).status_code == 200
    runner.run(submit(composition(library)))
    found = client.get("/v1/adapters/ann/woven", headers=ann.headers).json()
    # module1 is internal, the default.
    assert found["visibility"] == ("private" if visibility == "private" else "internal")
    seen_by_bob = client.get("/v1/adapters/ann/woven", headers=bob.headers).status_code
    assert seen_by_bob == (404 if visibility == "private" else 200)


def test_evaluate_keeps_scores_with_their_commits(
    client: TestClient, ann: Person, bob: Person, library: list[str], submit: Submit, runner: Runner
) -> None:
    assert upload(client, ann.headers, "ann/rows", {"a.jsonl": examples_file()}, kind="datasets").status_code == 201
    metrics = ["exact_match", "contains", "numeric", "target_loss"]
    body = {
        "kind": "evaluate",
        "modules": [{"repo": name} for name in library],
        "datasets": [{"dataset": "ann/rows"}],
        "metrics": metrics,
        "template": "plain",
        "max_new_tokens": 4,
    }
    job_id = submit(body)
    runner.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}", headers=ann.headers).json()
    assert job["state"] == "succeeded", job["error"]
    scores = client.get("/v1/adapters/ann/module1", headers=ann.headers).json()["scores"]
    assert {score["metric"] for score in scores} == set(metrics)
    assert all(score["low"] <= score["value"] <= score["high"] for score in scores)
    table = client.get("/v1/scores", headers=ann.headers).json()
    assert len(table) == 3 * 4, "base and two adapters, four metrics"
    assert {score["repo"] for score in table} == {None, "ann/module1", "ann/module2"}
    client.patch("/v1/adapters/ann/module1", headers=ann.headers, json={"visibility": "private"})
    assert "ann/module1" not in {s["repo"] for s in client.get("/v1/scores", headers=bob.headers).json()}
    runner.run(submit(body))
    assert len(client.get("/v1/scores", headers=ann.headers).json()) == 12, "measured again, kept once"
    with transaction(runner.services.sessions) as session:
        kept = session.execute(select(Score.value, Score.per_example, Score.examples)).all()
    for value, per_example, examples in kept:
        assert per_example is not None
        assert len(per_example) == examples
        assert sum(per_example) / examples == pytest.approx(value)


def test_choices_are_scored_by_likelihood(
    client: TestClient, ann: Person, library: list[str], submit: Submit, runner: Runner
) -> None:
    rows = [{**row, "choices": [row["target"], "something else"]} for row in EXAMPLES]
    body = {
        "kind": "evaluate",
        "modules": [{"repo": library[0]}],
        "datasets": [{"inline": rows}],
        "metrics": ["choice"],
    }
    job_id = submit(body)
    runner.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}", headers=ann.headers).json()
    assert job["state"] == "succeeded", job["error"]
    assert {score["metric"] for score in job["result"]["scores"]} == {"choice"}


def test_generate_answers_side_by_side_and_publishes_nothing(
    client: TestClient, services: Services, ann: Person, library: list[str], submit: Submit, runner: Runner
) -> None:
    job_id = submit({"kind": "generate", "prompt": "say 1", "module": {"repo": library[0]}, "max_new_tokens": 6})
    runner.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}", headers=ann.headers).json()
    assert job["state"] == "succeeded", job["error"]
    answers = job["result"]["answers"]
    assert set(answers) == {"base", "adapter"}
    assert answers["base"] != answers["adapter"], "with weights of 0.2 the adapter changes what is said"
    assert results(services, job_id) == 0


def test_an_internal_error_has_its_own_code_and_the_worker_goes_on(
    services: Services, library: list[str], submit: Submit, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(work: Any) -> None:
        raise RuntimeError("a bug")

    job_id = submit(composition(library))
    with monkeypatch.context() as patch:
        patch.setattr(compose, "run", break_down)
        runner.run(job_id)
    job = job_of(services, job_id)
    assert (job.state, job.error_code) == ("failed", "internal_error")
    assert job.error_message is not None
    assert "a bug" not in job.error_message, "details are for the log"
    next_id = submit(composition(library, name="ann/next"))
    runner.run(next_id)
    assert job_of(services, next_id).state == "succeeded"


def test_a_stalled_worker_ends_itself_so_that_another_can_take_over(
    services: Services, library: list[str], submit: Submit
) -> None:
    settings = services.settings.model_copy(update={"lease_seconds": 0.6})
    job_id = submit(composition(library))
    stuck = (
        "import time; from dataclasses import replace; from hub.registry.jobs.kinds import KINDS; "
        "from workers.kinds import compose; compose.run = lambda work: time.sleep(60); "
        "KINDS['compose'] = replace(KINDS['compose'], stall_seconds=1.0); " + RUN_ONE
    )
    command = [sys.executable, "-c", stuck, str(job_id)]
    done = subprocess.run(
        command, cwd=supervisor.ROOT, env={**os.environ, **supervisor.environment(settings)}, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL
    wait_for(lambda: lease_is_over(services, job_id))
    runner = Runner(settings)
    runner.run(job_id)
    assert job_of(services, job_id).state == "succeeded"
    runner.services.close()
