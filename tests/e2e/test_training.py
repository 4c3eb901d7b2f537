"""Training as a user sees it: `hf upload` of a data set, one request, and stock PEFT loads the result by its name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hub.starter.tasks import TASKS
from tests.e2e.conftest import Running

pytestmark = pytest.mark.e2e

USE = """
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = "loraloom/SmolLM2-135M-Instruct-Q4_1"
tokenizer = AutoTokenizer.from_pretrained(base)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "admin/spelled-numbers")
prompt = tokenizer("Write in words: 57\\nAnswer:", return_tensors="pt")["input_ids"]
ids = tokenizer("Write in words: 57\\nAnswer: fifty-seven", return_tensors="pt")["input_ids"]
targets = ids.clone()
targets[:, : prompt.shape[1]] = -100

@torch.inference_mode()
def loss():
    return float(model(ids, labels=targets).loss)

adapted = loss()
with model.disable_adapter():
    print(adapted, loss())
"""


def test_from_hf_upload_to_from_pretrained(instance: Running, tmp_path: Path) -> None:
    (task,) = [task for task in TASKS if task.name == "number-words"]
    data = tmp_path / "data"
    data.mkdir()
    for name, pairs in {"train.jsonl": task.train[:200], "held_out.jsonl": task.held_out[:24]}.items():
        rows = [json.dumps({"input": pair.input, "target": pair.target}) + "\n" for pair in pairs]
        (data / name).write_text("".join(rows), encoding="utf-8")

    def stock(*argv: str) -> str:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "HF_ENDPOINT": instance.url,
            "HF_TOKEN": instance.token,
            "OMP_WAIT_POLICY": "passive",
        }
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        return done.stdout

    hf = str(Path(sys.executable).with_name("hf"))
    stock(hf, "upload", "admin/numbers", str(data), ".", "--repo-type", "dataset")
    with instance.client() as client:
        body = {
            "kind": "train",
            "name": "admin/spelled-numbers",
            "base": "loraloom/SmolLM2-135M-Instruct-Q4_1",
            "examples": {"dataset": "admin/numbers", "path": "train.jsonl"},
            "held_out": {"dataset": "admin/numbers", "path": "held_out.jsonl"},
            "template": "plain",
            "steps": 24,
            "learning_rate": 1e-3,
        }
        job = instance.finished(client, client.post("/v1/jobs", json=body).json())
        assert job["state"] == "succeeded", job["error"]
    arms = {arm["name"]: arm for arm in job["result"]["report"]["arms"]}
    assert arms["module"]["target_loss"]["high"] < arms["base"]["target_loss"]["low"]
    adapted, alone = map(float, stock(sys.executable, "-c", USE).split())
    assert adapted < alone
