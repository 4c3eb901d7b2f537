"""The hub as a real server, and stock clients of it as a user's own programs: processes that know its address and a token."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn

from api.app import create_app
from hub.registry.services import Services
from tests.conftest import Person


class Server(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        """None: pytest has its own."""


@pytest.fixture
def hub_url(services: Services) -> Iterator[str]:
    """The address of the application on a port of its own, served by uvicorn in a thread."""
    config = uvicorn.Config(create_app(services), port=0, log_level="warning", timeout_graceful_shutdown=2)
    server = Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


RunClient = Callable[..., str]


@pytest.fixture
def run_client(hub_url: str, ann: Person, tmp_path: Path) -> RunClient:
    """run_client(argv or program text, token=..., xet=False): what it prints. It fails the test if the client fails."""

    def run(program: str | list[str], *, token: str | None = ann.token, home: str = "home", fails: bool = False) -> str:
        argv = [sys.executable, "-c", textwrap.dedent(program)] if isinstance(program, str) else program
        env = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "HF_HOME": str(tmp_path / home),
            "HF_ENDPOINT": hub_url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "OMP_WAIT_POLICY": "passive",
            "OMP_NUM_THREADS": "1",
            **({"HF_TOKEN": token} if token else {}),
        }
        done = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200)
        assert (done.returncode != 0) == fails, f"{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    return run
