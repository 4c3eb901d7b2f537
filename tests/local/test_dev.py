"""`make dev`: a process starts again when a file that it is made of changes, and sample data is made once."""

import os
import sys
import time
from pathlib import Path

import pytest

from hub import dev, supervisor
from hub.dev import Reloader
from hub.local.stack import Stack

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree in which every folder that a process is made of has one file."""
    for paths in dev.SOURCES.values():
        for path in paths:
            file = tmp_path / path if path.endswith(".py") else tmp_path / path / "code.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("")
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    return tmp_path


def test_a_change_starts_again_what_is_made_of_it(root: Path, tmp_path: Path) -> None:
    said: list[str] = []
    with Stack(tmp_path / "data") as stack:
        for name in dev.SOURCES:
            stack.spawn(name, SLEEP)
        before = {name: process.pid for name, process in stack.processes.items()}
        reloader = Reloader(stack, said.append)
        reloader.look()
        assert said == []
        page = root / "hub/web/templates/home.html"
        page.parent.mkdir(parents=True)
        page.write_text("<p>")
        os.utime(root / "workers/code.py", (time.time() + 5, time.time() + 5))
        reloader.look()
        after = {name: process.pid for name, process in stack.processes.items()}
    assert {name for name in before if before[name] != after[name]} == {"api", "worker"}
    assert said == [
        "hub/web/templates/home.html changed: starting api again",
        "workers/code.py changed: starting worker again",
    ]


@pytest.mark.usefixtures("root")
def test_what_ends_by_itself_says_why_once(tmp_path: Path) -> None:
    said: list[str] = []
    with Stack(tmp_path / "data") as stack:
        stack.spawn("api", [sys.executable, "-c", "import sys; sys.exit('no such module')"])
        stack.processes["api"].wait()
        reloader = Reloader(stack, said.append)
        reloader.look()
        reloader.look()
    assert len(said) == 1
    assert "no such module" in said[0]


def test_the_worker_serves_both_queues() -> None:
    worker = dev.commands("127.0.0.1", 8000)["worker"]
    assert worker[-2:] == ["--queues", "gpu,interactive"]
    assert worker[:-2] == supervisor.commands("127.0.0.1", 8000)["worker-gpu"][: len(worker) - 2]
