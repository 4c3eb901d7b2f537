"""`python -m hub demo`: the main job, end to end, as a user of the REST API would do it, on a stack that is gone afterwards."""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub import supervisor
from hub.local.children import LocalError
from hub.local.stack import Stack
from hub.starter.tasks import DEMO, Task

EXAMPLES = 8
HELD_OUT = 120

Say = Callable[[str], None]


@dataclass(frozen=True)
class Client:
    """What the demo needs of HTTP: JSON in, JSON out, and one stream of events."""

    url: str
    token: str

    def request(self, method: str, path: str, body: Any = None) -> urllib.request.Request:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        return urllib.request.Request(f"{self.url}{path}", data, headers, method=method)  # noqa: S310 - our own address

    def call(self, method: str, path: str, body: Any = None) -> Any:
        try:
            with urllib.request.urlopen(self.request(method, path, body), timeout=60) as reply:  # noqa: S310
                return json.load(reply)
        except urllib.error.HTTPError as error:
            with closing(error):
                raise LocalError(f"{method} {path} answered {error.code}: {error.read().decode()}") from None

    def events(self, path: str) -> Iterator[tuple[str, Any]]:
        """Server-sent events: (event, data)."""
        with urllib.request.urlopen(self.request("GET", path), timeout=60) as stream:  # noqa: S310
            event = ""
            for line in stream:
                key, _, value = line.decode().rstrip("\n").partition(": ")
                if key == "event":
                    event = value
                elif key == "data":
                    yield event, json.loads(value)


def run(say: Say) -> None:
    """Start, do the job, print the report, stop. Raises LocalError if anything does not work."""
    with supervisor.interruptible(), tempfile.TemporaryDirectory(prefix="loraloom-demo-") as scratch:
        began = time.monotonic()
        say("starting PostgreSQL, Valkey, SeaweedFS, the API and two workers ...")
        name = f"loraloom-demo-{secrets.token_hex(4)}"
        with supervisor.instance(Path(scratch), "127.0.0.1", free_port(), say, scratch=name) as (stack, running):
            client = Client(running.url, running.token_file.read_text().strip())
            await_seed(stack, say)
            say(f"ready after {time.monotonic() - began:.0f} s")
            job = compose(client, stack, say)
            show(job["result"]["report"], say)
            pull(client, job, Path(scratch), say)
        say("everything is stopped and removed; `make run` starts an instance that lasts")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_seed(stack: Stack, say: Say) -> None:
    """Wait for the first start's work, showing what it does."""
    shown = 0
    while "seed" in stack.processes:
        lines = (stack.data / "logs" / "seed.log").read_text().splitlines()
        for line in lines[shown:]:
            say(f"  {line}")
        shown = len(lines)
        if stack.ended().get("seed", 0) != 0:
            raise LocalError("the first start failed; its last lines are above")
        if "seed" in stack.ended():
            stack.forget("seed")
        time.sleep(0.2)


def compose(client: Client, stack: Stack, say: Say) -> Any:
    """Submit the job and follow it to its end."""
    task: Task = DEMO
    modules = [item["repo"] for item in client.call("GET", "/v1/adapters?owner=starter&limit=100")["items"]]
    held_out = task.held_out[:HELD_OUT]
    say(f"\nnew task: {task.title}; {EXAMPLES} examples, {len(held_out)} held out, {len(modules)} adapters to weave:")
    say("  " + ", ".join(name.partition("/")[2] for name in modules))
    for example in task.train[:3]:
        say(f"  {example.input!r} -> {example.target!r}")
    body = {
        "kind": "compose",
        "name": f"{supervisor.ADMIN}/demo",
        "modules": [{"repo": name} for name in modules],
        "examples": {"inline": [vars_of(example) for example in task.train[:EXAMPLES]]},
        "held_out": {"inline": [vars_of(example) for example in held_out]},
    }
    job = client.call("POST", "/v1/jobs", body)
    say(f"\njob {job['id']}")
    began = said = time.monotonic()
    for event, data in client.events(f"/v1/jobs/{job['id']}/stream"):
        now = time.monotonic()
        if event == "progress" and data["total"] and (now - said > 1 or data["step"] == data["total"]):
            numbers = "  ".join(f"{name} {value:.3g}" for name, value in data["numbers"].items())
            say(f"  {now - began:5.1f} s  {data['phase']} {data['step']}/{data['total']}  {numbers}")
            said = now
    job = client.call("GET", f"/v1/jobs/{job['id']}")
    if job["state"] != "succeeded":
        log = stack.log_tail("worker-gpu")
        raise LocalError(f"the job has {job['state']}: {job['error']}\n{log}")
    say(f"the job took {time.monotonic() - began:.0f} s\n")
    return job


def vars_of(example: Any) -> dict[str, Any]:
    return {"input": example.input, "target": example.target}


def show(report: Any, say: Say) -> None:
    """The report as a table: what each way of doing the task gives on examples that none of them has seen."""
    say(f"on {report['held_out']} held-out examples (95% intervals):")
    say(f"  {'':24}{'exact match':26}{'target loss'}")
    for arm in report["arms"]:
        exact, loss = (interval(arm[metric]) for metric in ("exact_match", "target_loss"))
        say(f"  {arm['name'].replace('_', ' '):24}{exact:26}{loss}")
    say("\ncomposition minus each:")
    for line in report["comparisons"]:
        exact, loss = (interval(line[metric], sign="+") for metric in ("exact_match", "target_loss"))
        say(f"  {line['against'].replace('_', ' '):24}{exact:26}{loss}")
    say(f"\n{report['verdict']}\n")


def interval(estimate: Any, sign: str = "") -> str:
    mean, low, high = (f"{estimate[key]:{sign}.3f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def pull(client: Client, job: Any, scratch: Path, say: Say) -> None:
    """Let stock huggingface_hub, transformers and PEFT fetch base and result by their names, in a process that knows only HF_ENDPOINT."""
    name = job["result_repo"]
    program = [sys.executable, "-c", STOCK_CLIENTS, job["params"]["base"]["id"], name, DEMO.held_out[0].input]
    env = {
        **os.environ,
        "HF_ENDPOINT": client.url,
        "HF_TOKEN": client.token,
        "HF_HOME": str(scratch / "huggingface"),
    }
    done = subprocess.run(program, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LocalError(f"the stock clients did not load {name}:\n{done.stderr}")
    files, answer = done.stdout.strip().split("\n", 1)
    say(f"HF_ENDPOINT={client.url}, huggingface_hub pulls {name}: {files}")
    say(f"PeftModel.from_pretrained({name!r}) answers {DEMO.held_out[0].input!r}: {answer!r}\n")


STOCK_CLIENTS = """
import os, sys
from huggingface_hub import snapshot_download
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base, name, prompt = sys.argv[1:]
print(", ".join(sorted(os.listdir(snapshot_download(name)))))
tokenizer = AutoTokenizer.from_pretrained(base)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), name)
inputs = tokenizer(prompt + "\\nAnswer:", return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=24, do_sample=False)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True).strip())
"""
