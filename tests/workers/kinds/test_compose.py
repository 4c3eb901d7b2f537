"""The kind `compose` beyond its plainest form: modules chosen from a pool, weights by gradient or given, a training after it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from hub.lora.core.adapter import Adapter, read
from tests.conftest import Person
from tests.support.http import upload
from tests.workers.jobs import HELD_OUT, Submit, composition, download
from workers.runner import Runner


@pytest.fixture
def made(client: TestClient, ann: Person, library: list[str], submit: Submit, runner: Runner, tmp_path: Path) -> Any:
    """The job and the files of a composition of the library, with changes to its request."""

    def make(**changes: Any) -> tuple[dict[str, Any], Path]:
        job_id = submit(composition(library, **changes))
        runner.run(job_id)
        job = client.get(f"/v1/jobs/{job_id}", headers=ann.headers).json()
        assert job["state"] == "succeeded", job["error"]
        return job, download(client, ann, job["result_repo"], tmp_path / "result")

    return make


def delta(adapter: Adapter) -> dict[str, torch.Tensor]:
    return {path: pair.scaling * pair.b @ pair.a for path, pair in adapter.pairs.items()}


def test_given_weights_are_a_merge_without_examples(made: Any, make_adapter: Any) -> None:
    job, folder = made(search="none", weights=[0.5, -2.0], examples=None, held_out={"inline": HELD_OUT})
    one, two = (delta(read(make_adapter(f"module{seed}", seed=seed))) for seed in (1, 2))
    found = delta(read(folder))
    assert found.keys() == one.keys() | two.keys()
    for path, each in found.items():
        torch.testing.assert_close(each, 0.5 * one[path] - 2.0 * two[path], rtol=1e-4, atol=1e-6)
    assert [arm["name"] for arm in job["result"]["report"]["arms"]] == ["base", "average", "composition"]
    assert "at given weights" in (folder / "README.md").read_text()


@pytest.mark.parametrize("form", ["ties", "dare_linear_svd"])
def test_a_merge_that_is_not_linear(made: Any, form: str) -> None:
    job, folder = made(search="none", weights=[1.0, 1.0], examples=None, form=form, rank=2 if "svd" in form else None)
    manifest = json.loads((folder / "loraloom.json").read_text())
    assert manifest["settings"]["form"] == form
    assert (manifest["truncation_error"] is None) == (form == "ties")
    if form != "ties":
        assert {pair.rank for pair in read(folder).pairs.values()} == {2}
    assert job["result"]["trace"] == []


def test_the_best_of_a_pool_by_gradient_and_tuned_with_every_control(
    made: Any, client: TestClient, ann: Person, make_adapter: Any
) -> None:
    for seed in (3, 4):
        folder = make_adapter(f"more{seed}", seed=seed)
        answer = upload(
            client, ann.headers, f"ann/more{seed}", {path.name: path.read_bytes() for path in folder.iterdir()}
        )
        assert answer.status_code == 201, answer.text
    job, folder = made(
        modules={"from": ["ann"], "k": 2},
        search="gradient",
        per_layer=True,
        tune={"steps": 3},
        controls="full",
        held_out={"inline": HELD_OUT},
    )
    manifest = json.loads((folder / "loraloom.json").read_text())
    assert len(manifest["weights"]) == len(manifest["inputs"]["modules"]) == 2, "what did not take part is not named"
    losses = events(client, ann, job, "choose")
    best = sorted(sorted(losses)[:2])
    taken = {entry["repo"] for entry in manifest["inputs"]["modules"]}
    pool = ["ann/module1", "ann/module2", "ann/more3", "ann/more4"]
    assert taken == {name for name, loss in zip(pool, losses, strict=True) if loss in best}
    assert {name.partition("@")[0] for name in manifest["weights"]} == taken
    assert all(len(layers) > 1 for layers in manifest["by_layer"].values())
    assert manifest["tune"]["steps"] == len(manifest["tune"]["losses"]) == 3
    assert {arm["name"] for arm in manifest["report"]["arms"]} == {
        "base",
        "five_shot",
        "best_single",
        "average",
        "random_weights",
        "random_modules",
        "fresh_lora",
        "best_single_tuned",
        "untuned",
        "composition",
    }
    assert all("seconds_an_answer" not in arm for arm in manifest["report"]["arms"]), "times differ, manifests may not"
    assert all(arm["seconds_an_answer"] > 0 for arm in job["result"]["report"]["arms"])
    card = (folder / "README.md").read_text()
    assert "by gradient" in card
    assert "trained further" in card
    assert len(job["params"]["modules"]) == 4, "all that were looked at are pinned"


def events(client: TestClient, ann: Person, job: dict[str, Any], phase: str) -> list[float]:
    found = client.get(f"/v1/jobs/{job['id']}/events", headers=ann.headers).json()
    return [event["numbers"]["loss"] for event in found if event["phase"] == phase and event["total"]]
