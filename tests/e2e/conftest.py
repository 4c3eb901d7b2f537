"""A whole instance as docker-compose.yml describes it: its very commands, as plain processes, on the run's own services."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import pytest
import yaml
from playwright.sync_api import Browser, sync_playwright

from hub import supervisor
from hub.registry.platform import schema
from hub.registry.platform.settings import Settings
from tests.conftest import RUN
from tests.support.files import peft_folder
from tests.support.http import upload

COMPOSE = yaml.safe_load((supervisor.ROOT / "docker-compose.yml").read_text())["services"]
LEASE_SECONDS = 3.0
SHOTS = supervisor.ROOT / "shots"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Take a picture of every page that is open when a test fails."""
    report = yield
    browser = getattr(item, "funcargs", {}).get("browser")
    if report.when == "call" and report.failed and browser:
        SHOTS.mkdir(exist_ok=True)
        pages = [page for context in browser.contexts for page in context.pages]
        for number, page in enumerate(pages, 1):
            path = SHOTS / f"failed-{item.name}-{number}.png"
            page.screenshot(path=path, full_page=True)
            report.sections.append(("browser", f"{page.url}: {path}"))
    return report


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], seconds: float = 120, what: str = "it") -> Any:
    """The first true value of the condition."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.1)
    return found


@dataclass
class Running:
    """An instance that answers at `url`, and the processes that make it."""

    url: str
    token: str
    processes: dict[str, psutil.Popen]
    base: Path  # the built-in base as the workers converted it
    start: Callable[[str], psutil.Popen]  # a service of docker-compose.yml, by name

    def client(self, *, signed_in: bool = True) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"} if signed_in else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def finished(self, client: httpx.Client, job: dict[str, Any], seconds: float = 240) -> dict[str, Any]:
        def look() -> Any:
            now = client.get(f"/v1/jobs/{job['id']}").json()
            return now if now["state"] in ("succeeded", "failed", "cancelled") else None

        found: dict[str, Any] = wait_for(look, seconds, f"job {job['id']}")
        return found


@pytest.fixture(scope="session")
def instance(base_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("instance")
    name = f"loraloom_e2e_{RUN}"
    server = schema.server_url(base_settings.database_url)
    settings = base_settings.model_copy(
        update={
            "database_url": schema.create_database(server, name),
            "broker_prefix": f"{name}:",
            "s3_bucket": f"{base_settings.s3_bucket}-e2e",
            "cache_dir": folder / "cache",
            "lease_seconds": LEASE_SECONDS,
            "sweep_seconds": 1.0,
        }
    )
    env = {**os.environ, **supervisor.environment(settings)}
    port = free_port()
    processes: dict[str, psutil.Popen] = {}

    def start(service: str) -> psutil.Popen:
        placed = {
            "python": sys.executable,
            "0.0.0.0": "127.0.0.1",
            "8000": str(port),
            "/data/admin.token": str(folder / "admin.token"),
        }
        argv = [placed.get(word, word) for word in COMPOSE[service]["command"]]
        with (folder / f"{service}.log").open("ab") as log:
            processes[service] = psutil.Popen(
                argv, cwd=supervisor.ROOT, env=env, stdout=log, stderr=log, start_new_session=True
            )
        return processes[service]

    try:
        for service in ("migrate", "seed"):
            assert start(service).wait(timeout=400) == 0, (folder / f"{service}.log").read_text()
            del processes[service]
        for service in ("api", "worker-gpu", "worker-interactive", "sweep"):
            start(service)
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: ready(url), 60, "the API")
        token = (folder / "admin.token").read_text().strip()
        running = Running(url, token, processes, folder / "cache" / "bases" / "built-in", start)
        yield running
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        for process in processes.values():
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
        schema.drop_database(server, name)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For one module: while it is open, its event loop counts as running in this thread, and other tests begin loops of their own."""
    if (found := which_chromium()) is None:
        pytest.skip("no Chromium on this machine; install the package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


def which_chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def filled(instance: Running) -> dict[str, str]:
    """A team and what it works with, so that pages have something to show: names by what they are in the views' addresses."""
    made = {"woven": "weavers/capital-plurals", "odd": "weavers/an-adapter-with-a-long-name-whose-base-nobody-knows"}
    with instance.client() as client:

        def post(path: str, body: Any) -> Any:
            answer = client.post(f"/v1/{path}", json=body)
            assert answer.is_success, answer.text
            return answer.json()

        post("organizations", {"name": "weavers"})
        post("organizations/weavers/invitations", {"role": "write"})
        post("organizations/weavers/services", {"name": "ci", "scopes": ["write"]})
        post(
            "tokens", {"name": "laptop", "scopes": ["read"], "repos": ["weavers/*"], "expires_at": "2099-01-01T00:00Z"}
        )
        odd = peft_folder(base="/mnt/disks/train-7/checkpoints/llama-like-base-before-the-move")
        odd["README.md"] = ODD_CARD.encode()
        assert upload(client, client.headers, made["odd"], odd, visibility="private").status_code == 201
        examples, held_out = (
            {"inline": [{"input": f"Give the plural in capital letters: {one}", "target": many} for one, many in pairs]}
            for pairs in (PLURALS[:4], PLURALS[4:])
        )
        modules = [{"repo": f"starter/{name}"} for name in ("plurals", "past-tense", "upper-case", "antonyms")]
        jobs = {
            "composed": {
                "kind": "compose",
                "name": made["woven"],
                "modules": modules,
                "examples": examples,
                "held_out": held_out,
                "controls": "quick",
                "budget": 4,
                "tune": {"steps": 4},
            },
            "answered": {"kind": "generate", "prompt": "Give the plural: quilt", "module": {"repo": "starter/plurals"}},
            "measured": {
                "kind": "evaluate",
                "modules": [{"repo": f"starter/{name}"} for name in ("plurals", "upper-case")],
                "datasets": [
                    {"dataset": f"starter/{name}-data", "path": "held_out.jsonl"} for name in ("plurals", "upper-case")
                ],
                "limit": 20,
            },
            "failed": {
                "kind": "train",
                "name": "weavers/too-long",
                "base": "loraloom/SmolLM2-135M-Instruct-Q4_1",
                "examples": {"inline": [{"input": "word " * 3_000, "target": "end"}]},
                "max_length": 64,
            },
        }
        sent = {name: post("jobs", body) for name, body in jobs.items()}
        ended = {name: instance.finished(client, job) for name, job in sent.items()}
        assert {name: job["state"] for name, job in ended.items()} == {
            **dict.fromkeys(jobs, "succeeded"),
            "failed": "failed",
        }
        client.put(f"/v1/adapters/{made['woven']}/aliases/prod", json={"revision": "v1"}).raise_for_status()
    return made | {name: job["id"] for name, job in sent.items()}


ODD_CARD = """# What nobody knows

A card with a [link](https://example.org), `code`, a table and a very_long_word_that_does_not_end_where_a_phone_ends_and_goes_on_and_on.

| a | b | c | d | e | f |
|---|---|---|---|---|---|
| 1.000 [0.9, 1.0] | 2.000 [0.9, 1.0] | 3.000 [0.9, 1.0] | 4.000 [0.9, 1.0] | 5.000 [0.9, 1.0] | 6.000 [0.9, 1.0] |
"""
PLURALS = [
    (one, many.upper())
    for one, many in zip(
        "dog city box leaf cat bus baby wolf".split(),
        "dogs cities boxes leaves cats buses babies wolves".split(),
        strict=True,
    )
]


def ready(url: str) -> bool:
    try:
        return bool(httpx.get(f"{url}/readyz", timeout=2).status_code == 200)
    except httpx.TransportError:
        return False
