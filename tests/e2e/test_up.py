"""`python -m hub up`: one process that starts everything, keeps its data, and can be killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import psutil
import pytest

from hub import supervisor
from tests.e2e.conftest import free_port, ready, wait_for

pytestmark = pytest.mark.e2e


@contextmanager
def hub_up(data: Path, port: int) -> Iterator[tuple[psutil.Popen, Path]]:
    log = data.with_suffix(".log")
    with log.open("wb") as output:
        argv = [sys.executable, "-m", "hub", "up", "--data", str(data), "--port", str(port)]
        # Its seed would compute for a while beside the other tests; the library has tests of its own.
        env = {**os.environ, "STARTER": "false"}
        process = psutil.Popen(argv, cwd=supervisor.ROOT, env=env, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield process, log
        finally:
            if process.is_running():
                process.send_signal(signal.SIGINT)
                process.wait(timeout=60)


def queues_seen(url: str, headers: dict[str, str]) -> set[str]:
    workers = httpx.get(f"{url}/v1/system", headers=headers, timeout=30).json()["workers"]
    return {queue for worker in workers for queue in worker["queues"]}


def test_an_instance_keeps_its_data_and_can_be_killed(tmp_path: Path) -> None:
    data, port = tmp_path / "data", free_port()
    url = f"http://127.0.0.1:{port}"
    with hub_up(data, port) as (process, log):
        wait_for(lambda: ready(url), 120, "the first start")
        wait_for(lambda: "administrator: admin" in log.read_text(), 30, "its greeting")
        assert f"ready at {url}" in log.read_text()
        assert str(data / "admin.token") in log.read_text()
        wait_for(lambda: "are ready" in log.read_text(), 200, "the seed")
        token = (data / "admin.token").read_text().strip()
        assert (data / "admin.token").stat().st_mode & 0o777 == 0o600
        assert token not in log.read_text()
        headers = {"Authorization": f"Bearer {token}"}
        made = httpx.post(f"{url}/v1/users", headers=headers, json={"name": "carol"}, timeout=30)
        assert made.status_code == 201
        asked = [sys.executable, "-m", "hub", "token", "carol", "--data", str(data)]
        carols = subprocess.run(asked, cwd=supervisor.ROOT, capture_output=True, text=True, check=True).stdout.strip()
        me = httpx.get(f"{url}/v1/me", headers={"Authorization": f"Bearer {carols}"}, timeout=30)
        assert me.json()["name"] == "carol", "commands find the instance by its data directory"
        assert (data / "environment.json").stat().st_mode & 0o777 == 0o600
        wait_for(lambda: queues_seen(url, headers) == {"gpu", "interactive"}, 60, "the workers to say they are there")
        before = process.children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        assert any(child.is_running() for child in before), "nobody was there to end them"

    began = time.monotonic()
    with hub_up(data, port) as (process, log):
        wait_for(lambda: "is ready at" in log.read_text(), 60, "the second start")
        seconds = time.monotonic() - began
        assert not [child for child in before if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        assert httpx.post(f"{url}/v1/users", headers=headers, json={"name": "carol"}, timeout=30).status_code == 409
        assert "first start" not in log.read_text(), "it was seeded already"
        print(f"second start: {seconds:.1f} s")
        children = process.children(recursive=True)
        worker = next(child for child in children if "gpu@%h" in child.cmdline())
        worker.send_signal(signal.SIGKILL)
        wait_for(lambda: "worker-gpu ended" in log.read_text(), 30, "the supervisor to notice")
        wait_for(lambda: sum("gpu@%h" in c.cmdline() for c in live(process)) > 0, 30, "another worker")
        children = process.children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert not [child for child in children if child.is_running()], "interrupting leaves no process behind"


def live(process: psutil.Popen) -> list[psutil.Process]:
    found = []
    for child in process.children(recursive=True):
        try:
            child.cmdline()
            found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def test_interrupting_the_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    with log.open("wb") as output:
        process = psutil.Popen([sys.executable, "-m", "hub", "demo"], cwd=supervisor.ROOT, stdout=output, stderr=output)
    wait_for(lambda: "converting the built-in" in log.read_text(), 120, "the demo to be under way")
    children = process.children(recursive=True)
    assert len(children) > 6
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    assert not [child for child in children if child.is_running()]
    assert "Traceback" not in log.read_text()
