"""The main job on a whole instance: adapters and examples in, an adapter that stock PEFT loads out, whatever is killed meanwhile."""

import io
import signal
import zipfile
from pathlib import Path

import psutil
import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.e2e.conftest import Running, wait_for
from tests.e2e.requests import MODULES, composition

pytestmark = pytest.mark.e2e

DATA = "starter/capital-plurals-data"


def test_the_starter_library_is_there(instance: Running) -> None:
    with instance.client(signed_in=False) as client:
        found = client.get("/v1/adapters", params={"owner": "starter"}).json()["items"]
        assert len(found) >= 8
        assert {item["findings"] for item in found} == {0}
        assert {item["base_id"] for item in found} == {"loraloom/SmolLM2-135M-Instruct-Q4_1"}


def test_a_worker_killed_in_the_middle_of_a_composition_loses_nothing(instance: Running, tmp_path: Path) -> None:
    with instance.client() as client:
        job = client.post("/v1/jobs", json=composition("admin/woven", budget=150)).json()

        def searching() -> bool:
            events = client.get(f"/v1/jobs/{job['id']}/events").json()
            return any(event["phase"] == "search" and event["step"] >= 3 for event in events)

        wait_for(searching, 120, "the search")
        worker = instance.processes["worker-gpu"]
        for process in [worker, *worker.children(recursive=True)]:
            process.send_signal(signal.SIGKILL)
        worker.wait(timeout=10)
        instance.start("worker-gpu")
        job = instance.finished(client, job)
        assert (job["state"], job["attempt"]) == ("succeeded", 2), job["error"]
        found = client.get("/v1/adapters/admin/woven").json()
        assert [ref["name"] for ref in found["refs"] if ref["kind"] == "version"] == ["v1"], "registered once"
        archive = client.get("/v1/adapters/admin/woven/archive").content
    with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
        zipped.extractall(tmp_path)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(instance.base), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(instance.base)
    prompt = tokenizer("Give the plural in capital letters: cat\nAnswer:", return_tensors="pt")
    output = model.generate(**prompt, max_new_tokens=6, do_sample=False)
    assert "CAT" in tokenizer.decode(output[0, prompt["input_ids"].shape[1] :])


def test_an_interactive_worker_evaluates_and_answers(instance: Running) -> None:
    with instance.client() as client:
        evaluation = {
            "kind": "evaluate",
            "modules": MODULES[:1],
            "datasets": [{"dataset": "starter/plurals-data", "path": "held_out.jsonl"}],
            "limit": 16,
            "max_new_tokens": 8,
        }
        job = instance.finished(client, client.post("/v1/jobs", json=evaluation).json())
        assert job["state"] == "succeeded", job["error"]
        exact = {
            score["module"]: score["value"] for score in job["result"]["scores"] if score["metric"] == "exact_match"
        }
        (module,) = (value for name, value in exact.items() if name.startswith("starter/plurals"))
        assert module > 0.7, "its card says 0.97"
        assert exact["loraloom/SmolLM2-135M-Instruct-Q4_1"] < 0.2
        question = {"kind": "generate", "prompt": "Give the plural: mouse", "module": MODULES[0], "max_new_tokens": 8}
        job = instance.finished(client, client.post("/v1/jobs", json=question).json())
        assert set(job["result"]["answers"]) == {"base", "adapter"}


def test_the_sweep_ends_and_another_takes_over(instance: Running) -> None:
    """A job whose message was lost waits for a sweep, any sweep."""
    with instance.client() as client:
        sweep = instance.processes["sweep"]
        sweep.send_signal(signal.SIGTERM)
        assert sweep.wait(timeout=20) == 0
        instance.start("sweep")
        assert psutil.pid_exists(instance.processes["sweep"].pid)
        job = client.post(
            "/v1/jobs",
            json={
                "kind": "generate",
                "prompt": "hello",
                "base": "loraloom/SmolLM2-135M-Instruct-Q4_1",
                "max_new_tokens": 2,
            },
        ).json()
        assert instance.finished(client, job)["state"] == "succeeded"
