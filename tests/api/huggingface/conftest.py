"""The hub as a real server, and stock clients of it as a user's own programs: processes that know its address and a token."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from hub.lora.core.built_in import BUILT_IN_SHA256, convert_built_in
from hub.registry.platform.services import Services, connect
from tests.conftest import Person
from tests.support.serving import serving


@pytest.fixture(scope="session")
def built_in_folder(pytestconfig: pytest.Config) -> Path:
    """The built-in base, converted once and kept between runs in pytest's cache."""
    return convert_built_in(pytestconfig.cache.mkdir("built-in") / BUILT_IN_SHA256[:12])


@pytest.fixture
def second(services: Services) -> Iterator[TestClient]:
    """Another server of the same instance."""
    other = connect(services.settings)
    with TestClient(create_app(other), base_url="http://testserver") as client:
        yield client
    other.close()


@pytest.fixture
def hub_url(services: Services) -> Iterator[str]:
    """The address of the application on a port of its own, served by uvicorn in a thread."""
    with serving(create_app(services)) as url:
        yield url


# `make test-clients` names the Python of each client that the tests in test_clients.py are run with.
CLIENT_PYTHON = os.environ.get("CLIENT_PYTHON", sys.executable)
_versions = subprocess.run(
    [CLIENT_PYTHON, "-c", "from importlib.metadata import version as v; print(v('huggingface_hub'), v('hf-xet'))"],
    capture_output=True,
    text=True,
    check=True,
).stdout.split()
CLIENT_VERSION, XET_VERSION = (tuple(int(part) for part in each.split(".")[:2]) for each in _versions)

Program = str | list[str]  # the text of a Python program, or a command
RunClient = Callable[..., str]
StartClient = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(params=["xet", "lfs"])
def transport(request: pytest.FixtureRequest) -> str:
    """How clients send large files: as they come, which since 1.20 means by Xet, and with Xet switched off."""
    return str(request.param)


@pytest.fixture
def start_client(hub_url: str, ann: Person, tmp_path: Path, transport: str) -> StartClient:
    """start_client(program, token=..., home=...): a process that knows the hub's address, with its output on one pipe."""

    def start(program: Program, *, token: str | None = ann.token, home: str = "home") -> "subprocess.Popen[str]":
        argv = [CLIENT_PYTHON, "-c", textwrap.dedent(program)] if isinstance(program, str) else program
        env = {
            "PATH": f"{Path(CLIENT_PYTHON).parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "HF_HOME": str(tmp_path / home),
            "HF_ENDPOINT": hub_url,
            **({"HF_HUB_DISABLE_XET": "1"} if transport == "lfs" else {}),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "OMP_WAIT_POLICY": "passive",
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            **({"HF_TOKEN": token} if token else {}),
        }
        return subprocess.Popen(
            argv,
            env=env,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.fixture
def run_client(start_client: StartClient) -> RunClient:
    """run_client(program, ..., fails=False): what it says. It fails the test unless the client fails as expected."""

    def run(program: Program, *, fails: bool = False, **options: Any) -> str:
        with start_client(program, **options) as process:
            said, _ = process.communicate(timeout=200)
        assert (process.returncode != 0) == fails, said
        return said

    return run
