"""Job kind `reduce`: from examples to the reduced base as an adapter, which stock PEFT loads on the untouched one."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from sqlalchemy import select
from starlette.testclient import TestClient
from transformers import AutoModelForCausalLM

from hub.lora.core.bases import Base
from hub.lora.reduce import factored
from hub.lora.reduce.gains import Cut, edited, matrices
from hub.registry.models.adapters import Lineage
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.files import examples_file
from tests.support.http import upload
from tests.tiny_models import likely_letters
from tests.workers.jobs import EXAMPLES, HELD_OUT, Submit, download
from workers.runner import Runner


def reduction(**changes: Any) -> dict[str, Any]:
    """The body of a small reduction; `library` has registered its base."""
    body = {
        "kind": "reduce",
        "name": "ann/cut",
        "base": "tests/tiny",
        "examples": {"inline": EXAMPLES},
        "budget": 6,
        "template": "plain",
    }
    return body | changes


@pytest.mark.usefixtures("library")
def test_the_reduced_base_is_an_adapter_that_peft_loads_on_the_untouched_one(
    client: TestClient,
    services: Services,
    ann: Person,
    submit: Submit,
    runner: Runner,
    tiny_base: Base,
    tiny_folder: Path,
    tmp_path: Path,
) -> None:
    assert upload(client, ann.headers, "ann/rows", {"a.jsonl": examples_file(30)}, kind="datasets").status_code == 201
    job_id = submit(reduction(examples={"dataset": "ann/rows"}, held_out={"inline": HELD_OUT}))
    runner.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}", headers=ann.headers).json()
    assert job["state"] == "succeeded", job["error"]
    result = job["result"]
    assert result["loss"]["after"] < result["loss"]["before"]
    assert len(result["matrices"]) == 14
    assert [arm["name"] for arm in result["report"]["arms"]] == ["base", "reduction"]
    assert "Only 30 examples decide what goes; the paper takes 100." in result["warnings"]
    losses = {arm["name"]: arm["target_loss"]["mean"] for arm in result["report"]["arms"]}
    assert losses["base"] != losses["reduction"]

    folder = download(client, ann, "ann/cut", tmp_path / "cut")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), folder)
    tokens = torch.arange(1, 41).view(2, 20)
    cuts = [Cut(cut["path"], cut["share"], cut["blocks"]) for cut in result["cuts"]]
    with torch.inference_mode():
        theirs = model(tokens).logits
        with edited(matrices(tiny_base), cuts):
            ours = tiny_base.model(tokens).logits
        untouched = tiny_base.model(tokens).logits
    assert float((theirs - ours).abs().max()) < 1e-5 * float(ours.abs().max())
    assert float((ours - untouched).abs().max()) > 1e-2 * float(ours.abs().max()), "the cuts change something"

    manifest = json.loads((folder / "loraloom.json").read_text())
    figures = {name: value for name, value in result.items() if name != "spectra"}  # for the page alone
    assert {**manifest, "inputs": 0} == {**manifest, **figures, "inputs": 0}, "the job says what the manifest says"
    stored = load_file(folder / "adapter_model.safetensors")
    for cut in result["cuts"]:
        assert len(stored[f"base_model.model.{cut['path']}.lora_A.weight"]) == cut["adapter_rank"]
    card = (folder / "README.md").read_text()
    for said in ("prompt_template: plain", "ann/rows", "## Cuts", f"| {result['cuts'][0]['path']} |"):
        assert said in card
    with transaction(services.sessions) as session:
        lineage = session.scalars(select(Lineage).where(Lineage.child == job["result_commit"])).all()
    assert sorted(line.role for line in lineage) == ["dataset", "dataset"]
    page = client.get(f"/jobs/{job_id}", headers=ann.headers).text
    assert f'<th scope="row">{result["cuts"][0]["path"]}</th>' in page
    assert f"Singular values of {result['cuts'][0]['path']}: " in page
    assert all(each["values"] == sorted(each["values"], reverse=True) for each in result["spectra"])
    assert [each["path"] for each in result["spectra"]] == [cut["path"] for cut in result["cuts"]]


@pytest.mark.usefixtures("library")
def test_where_examples_have_choices_the_choice_between_them_is_what_counts(
    client: TestClient, ann: Person, submit: Submit, runner: Runner, tmp_path: Path
) -> None:
    def rows(start: int) -> list[dict[str, Any]]:
        return [
            {"input": f"is {n} odd?", "target": "ny"[n % 2], "choices": ["n", "y"]} for n in range(start, start + 20)
        ]

    job_id = submit(reduction(examples={"inline": rows(0)}, held_out={"inline": rows(100)}))
    runner.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}", headers=ann.headers).json()
    assert job["state"] == "succeeded", job["error"]
    loss = job["result"]["loss"]
    assert loss["unit"] == "nats per choice between answers"
    assert loss["after"] < loss["before"]
    report = job["result"]["report"]
    assert set(report["arms"][0]) == {"name", "made_by", "choice", "exact_match", "target_loss"}
    assert {"choice", "exact_match", "target_loss"} < set(report["comparisons"][0])
    card = (download(client, ann, "ann/cut", tmp_path / "cut") / "README.md").read_text()
    assert "| | exact match | choice | target loss |" in card
    assert "nats per choice between answers" in card
    page = client.get(f"/jobs/{job_id}", headers=ann.headers).text
    assert re.findall(r'<th scope="col">(\w+ ?\w*)<br>', page) == ["Exact match", "Choice", "Target loss"]


@pytest.mark.usefixtures("library")
def test_where_no_cut_helps_there_is_no_adapter_and_the_job_says_so(
    client: TestClient, ann: Person, submit: Submit, runner: Runner, tiny_base: Base
) -> None:
    rows = [{"input": text, "target": likely_letters(tiny_base, text, 3)} for text in ("one", "another", "last")]
    job_id = submit(reduction(examples={"inline": rows}, budget=1, top=1))
    runner.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}", headers=ann.headers).json()
    assert job["state"] == "succeeded", job["error"]
    assert job["result"]["cuts"] == []
    assert job["result"]["loss"]["after"] == job["result"]["loss"]["before"]
    assert any("it is best as it is" in warning for warning in job["result"]["warnings"])
    assert job["result_commit"] is None
    assert client.get("/v1/adapters/ann/cut", headers=ann.headers).status_code == 404


@pytest.mark.parametrize("subject", ["base", "module"])
def test_a_module_is_made_smaller_or_merged_into_the_base_that_is_reduced(
    client: TestClient,
    services: Services,
    ann: Person,
    submit: Submit,
    runner: Runner,
    library: list[str],
    tiny_folder: Path,
    tmp_path: Path,
    subject: str,
) -> None:
    more = {"loss_budget": 0.5} if subject == "module" else {"budget": 20, "top": 14}
    body = {
        "kind": "reduce",
        "name": "ann/result",
        "subject": subject,
        "module": {"repo": library[0]},
        "examples": {"inline": EXAMPLES},
        "held_out": {"inline": HELD_OUT},
        "template": "plain",
        **more,
    }
    job_id = submit(body)
    runner.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}", headers=ann.headers).json()
    assert job["state"] == "succeeded", job["error"]
    result = job["result"]
    assert [arm["name"] for arm in result["report"]["arms"]] == ["base", "module", "reduction"]
    folder = download(client, ann, "ann/result", tmp_path / "result")
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), folder)
    card = (folder / "README.md").read_text()
    if subject == "module":
        assert result["components"]["kept"] < result["components"]["given"] == 16
        assert result["loss"]["after"] <= result["loss"]["before"] + 0.5
        assert sum(result["ranks"].values()) == result["components"]["kept"]
        assert f"{library[0]} made smaller: {result['components']['kept']} of 16 components" in card
    else:
        assert result["loss"]["after"] < result["loss"]["before"]
        assert f"with {library[0]} merged" in card
    with transaction(services.sessions) as session:
        lineage = session.scalars(select(Lineage).where(Lineage.child == job["result_commit"])).all()
    assert sorted(line.role for line in lineage) == ["dataset", "module"]
    found = client.get("/v1/adapters/ann/result", headers=ann.headers).json()
    assert {score["metric"] for score in found["scores"]} == {"exact_match", "target_loss"}
    assert client.get(f"/jobs/{job_id}", headers=ann.headers).status_code == 200


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("form", ["model", "factors"])
def test_the_whole_model_and_its_factors_compute_what_the_reduced_base_does(
    client: TestClient,
    ann: Person,
    submit: Submit,
    runner: Runner,
    tiny_base: Base,
    tiny_folder: Path,
    tmp_path: Path,
    form: str,
) -> None:
    job_id = submit(reduction(form=form, variant="laser", held_out={"inline": HELD_OUT}))
    runner.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}", headers=ann.headers).json()
    assert job["state"] == "succeeded", job["error"]
    result = job["result"]
    cuts = [Cut(cut["path"], cut["share"], cut["blocks"]) for cut in result["cuts"]]
    folder = Path(snapshot(client, ann, "ann/cut", tmp_path))
    if form == "model":
        model = AutoModelForCausalLM.from_pretrained(folder)
    else:
        model = AutoModelForCausalLM.from_pretrained(tiny_folder)
        factored.load(model, folder)
        assert result["size"]["after"] <= result["size"]["before"]
    tokens = torch.arange(1, 41).view(2, 20)
    with torch.inference_mode():
        theirs = model(tokens).logits
        with edited(matrices(tiny_base), cuts):
            ours = tiny_base.model(tokens).logits
    assert float((theirs - ours).abs().max()) < 1e-5 * float(ours.abs().max())
    assert (folder / "spectrum1.svg").read_text().startswith("<svg")
    assert (
        f"as {'a whole model' if form == 'model' else 'the factors of what was cut'}"
        in (folder / "README.md").read_text()
    )
    assert client.get(f"/jobs/{job_id}", headers=ann.headers).status_code == 200


def snapshot(client: TestClient, person: Person, name: str, folder: Path) -> Path:
    """Every file of a repo that is no adapter, by the Hugging Face protocol."""
    answer = client.get(f"/api/models/{name}", headers=person.headers).json()
    for file in answer["siblings"]:
        place = folder / "snapshot" / file["rfilename"]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(client.get(f"/{name}/resolve/main/{file['rfilename']}", headers=person.headers).content)
    return folder / "snapshot"
