"""Conversions from the request to the adapter that stock PEFT loads; what they refuse, and that a pickle runs nothing."""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load, load_file, save
from sqlalchemy import select
from starlette.testclient import TestClient
from transformers import AutoModelForCausalLM

from hub.lora.core.bases import Base
from hub.registry.library.publishing import publish_model
from hub.registry.models.adapters import Lineage
from hub.registry.models.content import Commit
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.vocabulary import Visibility
from tests.conftest import Person
from tests.lora.conftest import MakeAdapter
from tests.support.http import json_of
from tests.support.published import incoming
from tests.workers.jobs import Submit, download, job_of
from workers.runner import Runner

CARD = b"---\nlicense: mit\ntags: [mine]\n---\n# Mine\n\nIt says things.\n"


@pytest.fixture
def folder(library: list[str], make_adapter: MakeAdapter) -> Path:
    """An adapter that PEFT wrote; its base is registered."""
    return make_adapter("source", seed=7)


def plain(
    services: Services, person: Person, name: str, files: Mapping[str, bytes], visibility: Visibility = "internal"
) -> Commit:
    return publish_model(services, person.viewer, name, incoming(files), visibility=visibility, message="Upload")[1]


def pickled(folder: Path, **more: Any) -> dict[str, bytes]:
    torch.save({**load_file(folder / "adapter_model.safetensors"), **more}, folder / "x")
    return {
        "adapter_model.bin.pickle": (folder / "x").read_bytes(),
        "adapter_config.json": (folder / "adapter_config.json").read_bytes(),
        "README.md": CARD,
    }


def as_mlx(folder: Path, base: str) -> dict[str, bytes]:
    config = json.loads((folder / "adapter_config.json").read_text())
    theirs = {}
    for name, tensor in load_file(folder / "adapter_model.safetensors").items():
        name = name.removeprefix("base_model.model.").removesuffix(".weight")
        theirs[name.replace("lora_A", "lora_a").replace("lora_B", "lora_b")] = tensor.T.contiguous()
    settings = {
        "fine_tune_type": "lora",
        "model": base,
        "lora_parameters": {"scale": config["lora_alpha"] / config["r"]},
    }
    return {
        "adapters.safetensors": save(theirs),
        "0000100_adapters.safetensors": save(theirs),
        "adapter_config.json": json.dumps(settings).encode(),
    }


def converted(client: TestClient, person: Person, runner: Runner, submit: Submit, **body: Any) -> dict[str, Any]:
    job_id = submit({"kind": "convert", **body})
    runner.run(job_id)
    return json_of(client.get(f"/v1/jobs/{job_id}", headers=person.headers))


def test_a_pickle_becomes_an_adapter_that_peft_loads_without_a_base_in_the_worker(
    client: TestClient,
    services: Services,
    ann: Person,
    folder: Path,
    submit: Submit,
    runner: Runner,
    tiny_folder: Path,
    tmp_path: Path,
) -> None:
    source = plain(services, ann, "ann/old", pickled(folder))
    job = converted(client, ann, runner, submit, name="ann/new", source={"repo": "ann/old"})
    assert job["state"] == "succeeded", job["error"]
    assert job["result"]["converted"] == {
        "from": "peft",
        "pickle": True,
        "tensors": len(load_file(folder / "adapter_model.safetensors")),
    }
    assert runner.bases.loads == 0
    made = download(client, ann, "ann/new", tmp_path / "made")
    assert {path.name for path in made.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "loraloom.json",
    }
    before, after = (load_file(each / "adapter_model.safetensors") for each in (folder, made))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys.*")
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), made)
    card = (made / "README.md").read_text()
    assert "license: mit" in card
    assert "## The source's own card\n\n# Mine\n\nIt says things." in card
    found = client.get("/v1/adapters/ann/new", headers=ann.headers).json()
    assert found["adapters"][0]["method"] == "lora"
    assert {item["code"] for item in found["adapters"][0]["findings"]} == set()
    with transaction(services.sessions) as session:
        lineage = session.scalars(select(Lineage).where(Lineage.child == job["result_commit"])).all()
    assert [(line.parent, line.role) for line in lineage] == [(source.id, "module")]


def test_a_public_source_gets_its_conversion_as_a_new_commit(
    client: TestClient, services: Services, ann: Person, tiny_base: Base, folder: Path, submit: Submit, runner: Runner
) -> None:
    first = plain(services, ann, "ann/mlx", as_mlx(folder, tiny_base.id), "public")
    job = converted(client, ann, runner, submit, name="ann/mlx", source={"repo": "ann/mlx"})
    assert job["state"] == "succeeded", job["error"]
    found = client.get("/v1/adapters/ann/mlx", headers=ann.headers).json()
    assert (found["visibility"], found["adapters"][0]["base_id"]) == ("public", tiny_base.id)
    answer = client.get("/v1/adapters/ann/mlx/files/adapter_model.safetensors", headers=ann.headers)
    before, after = load_file(folder / "adapter_model.safetensors"), load(answer.content)
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = converted(client, ann, runner, submit, name="ann/mlx", source={"repo": "ann/mlx"})
    assert (again["state"], again["error"]["code"]) == ("failed", "not_convertible")
    assert "repair writes" in again["error"]["message"]
    old = converted(
        client,
        ann,
        runner,
        submit,
        name="ann/again",
        source={"repo": "ann/mlx", "revision": first.id, "file": "0000100_adapters.safetensors"},
    )
    assert old["state"] == "succeeded", old["error"]


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_malicious_pickle_fails_with_a_sentence_and_executes_nothing(
    client: TestClient, services: Services, ann: Person, folder: Path, submit: Submit, runner: Runner, tmp_path: Path
) -> None:
    proof = tmp_path / "pwned"
    plain(services, ann, "ann/evil", pickled(folder, evil=Evil(proof)))
    job = converted(client, ann, runner, submit, name="ann/new", source={"repo": "ann/evil"})
    assert (job["state"], job["error"]["code"]) == ("failed", "unreadable_pickle")
    assert "asks for posix.mkdir, which is not a tensor; nothing of it was run" in job["error"]["message"]
    assert not proof.exists()
    assert client.get("/v1/adapters/ann/new", headers=ann.headers).status_code == 404
    torch.load(folder / "x", weights_only=False)
    assert proof.exists(), "it would have, elsewhere"


def test_what_the_files_do_not_say_is_asked_for_by_name(
    client: TestClient, services: Services, ann: Person, tiny_base: Base, folder: Path, submit: Submit, runner: Runner
) -> None:
    theirs = {
        name.removeprefix("base_model.model.").removesuffix(".weight"): tensor
        for name, tensor in load_file(folder / "adapter_model.safetensors").items()
    }
    plain(services, ann, "ann/lib", {"deep/mine_lora.safetensors": save(theirs), "README.md": CARD})
    source = {"repo": "ann/lib", "folder": "deep"}
    for said, field in (({}, "`base`), nor lora_alpha"), ({"base": tiny_base.id}, "`alpha`")):
        job = converted(client, ann, runner, submit, name="ann/new", source=source, **said)
        assert (job["state"], job["error"]["code"]) == ("failed", "fact_missing")
        assert field in job["error"]["message"]
    job = converted(client, ann, runner, submit, name="ann/new", source=source, base=tiny_base.id, alpha=8)
    assert job["state"] == "succeeded", job["error"]
    assert job["result"]["settings"] == {"base_model": tiny_base.id, "alpha": 8.0}
    facts = client.get("/v1/adapters/ann/new", headers=ann.headers).json()["adapters"][0]
    assert (facts["base_id"], facts["findings"]) == (tiny_base.id, []), "the licence of the top folder's card too"
    config = client.get("/v1/adapters/ann/new/files/adapter_config.json", headers=ann.headers).json()
    assert config["lora_alpha"] == 8


def test_a_registered_base_must_have_the_layers(
    client: TestClient, services: Services, ann: Person, tiny_base: Base, folder: Path, submit: Submit, runner: Runner
) -> None:
    files = as_mlx(folder, tiny_base.id)
    wrong = {
        name.replace("model.layers", "model.h"): tensor for name, tensor in load(files["adapters.safetensors"]).items()
    }
    plain(services, ann, "ann/mlx", {**files, "adapters.safetensors": save(wrong)})
    job = converted(client, ann, runner, submit, name="ann/new", source={"repo": "ann/mlx"})
    assert (job["state"], job["error"]["code"]) == ("failed", "bad_adapter")
    assert f"{tiny_base.id} has none of its layers" in job["error"]["message"]
    assert job_of(services, job["id"]).attempt == 1


def test_which_file_is_meant_must_be_clear(
    client: TestClient, services: Services, ann: Person, bob: Person, folder: Path
) -> None:
    plain(services, ann, "ann/two", {"a.safetensors": b"x", "b.pt": b"x", "c.txt": b"x"})
    plain(services, ann, "ann/hidden", pickled(folder), "private")

    def refused(person: Person, **source: str) -> tuple[int, str, str]:
        body = {"kind": "convert", "name": f"{person.name}/new", "source": source}
        answer = client.post("/v1/jobs", json=body, headers=person.headers)
        return answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["message"]

    assert refused(ann, repo="ann/two") == (
        422,
        "ambiguous_file",
        "ann/two has 2 files of weights (a.safetensors, b.pt); name one as `file`.",
    )
    assert refused(ann, repo="ann/two", file="c.txt")[:2] == (422, "not_an_adapter")
    assert refused(ann, repo="ann/two", folder="deep")[:2] == (422, "not_an_adapter")
    assert refused(bob, repo="ann/hidden")[:2] == (404, "repo_not_found")
