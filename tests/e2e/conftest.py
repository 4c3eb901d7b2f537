"""A whole instance as docker-compose.yml describes it: its very commands, as plain processes, on the run's own services."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import pytest
import yaml

from hub import up
from hub.registry import schema
from hub.registry.settings import Settings
from tests.conftest import RUN

COMPOSE = yaml.safe_load((up.ROOT / "docker-compose.yml").read_text())["services"]
LEASE_SECONDS = 3.0


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
    env = {**os.environ, **up.environment(settings)}
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
                argv, cwd=up.ROOT, env=env, stdout=log, stderr=log, start_new_session=True
            )
        return processes[service]

    try:
        for service in ("migrate", "seed"):
            assert start(service).wait(timeout=200) == 0, (folder / f"{service}.log").read_text()
            del processes[service]
        for service in ("api", "worker-gpu", "worker-interactive", "sweep"):
            start(service)
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: ready(url), 60, "the API")
        token = (folder / "admin.token").read_text().strip()
        running = Running(url, token, processes, folder / "cache" / "bases" / "built-in")
        running.start = start  # type: ignore[attr-defined]
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


def ready(url: str) -> bool:
    try:
        return bool(httpx.get(f"{url}/readyz", timeout=2).status_code == 200)
    except httpx.TransportError:
        return False
