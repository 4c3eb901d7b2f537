"""Real services for every test: one embedded stack a process (or the services given by URL), a fresh database a test.

Every test pays for what is imported here, the quickest too. So the application is imported inside the fixtures that need it.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from starlette.testclient import TestClient
    from xdist.scheduler import LoadScopeScheduling

    from hub.registry.access.viewer import Viewer
    from hub.registry.platform.services import Services
    from hub.registry.platform.settings import Settings
    from tests.other_hub import Other

RUN = uuid.uuid4().hex[:8]
MEMORY, ROOM = Path("/dev/shm"), 8 << 30
WARM_STACK = os.environ.get("WARM_STACK")  # the folder of a stack that stays up between runs; `make t` names it


@dataclass(frozen=True)
class Person:
    """A user with their token, and the viewer that the domain functions take."""

    name: str
    token: str
    viewer: Viewer

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    from tests.scheduling import ByFile

    return ByFile(config, log)


def pytest_collection_finish() -> None:
    gc.freeze()  # what is imported by now lives to the end, and need not be looked through again and again


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest first, so that none waits for it.
    items.sort(key=lambda item: not item.nodeid.startswith("tests/e2e/"))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def base_settings() -> Iterator[Settings]:
    """Where the services are, with a template database of this run and a bucket of its own."""
    with warm_services(Path(WARM_STACK)) if WARM_STACK else fresh_services() as settings:
        yield settings


@contextmanager
def fresh_services() -> Iterator[Settings]:
    """A stack of this run alone.

    In memory where that has a file system: a database is 300 files, which a disk makes and removes in three times the time.
    """
    from hub import supervisor
    from hub.local.stack import Stack
    from hub.registry.platform import schema
    from hub.registry.platform.storage import Storage

    in_memory = MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM else None
    with (
        tempfile.TemporaryDirectory(prefix="loraloom-test-", dir=in_memory) as folder,
        Stack(Path(folder)) as stack,
    ):
        settings = supervisor.start_services(stack, scratch=f"loraloom-test-{RUN}")
        schema.upgrade(settings.database_url)
        Storage(settings).ensure_bucket()
        yield settings
        supervisor.drop_scratch(settings)


@contextmanager
def warm_services(folder: Path) -> Iterator[Settings]:
    """A database and a bucket of this run on the stack that stays up between runs."""
    from tests import warm_stack

    with warm_stack.scratch(folder, f"loraloom-test-{RUN}") as settings:
        yield settings


@pytest.fixture
def settings(base_settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a fresh database: a copy of the migrated template, which takes a twentieth of a second."""
    from hub.registry.platform import schema

    name = f"loraloom_test_{uuid.uuid4().hex[:12]}"
    url = schema.copy_database(base_settings.database_url, name)
    yield base_settings.model_copy(
        update={"database_url": url, "broker_prefix": f"{name}:", "cache_dir": tmp_path / "cache"}
    )
    schema.drop_database(schema.server_url(base_settings.database_url), name)


@pytest.fixture
def services(settings: Settings) -> Iterator[Services]:
    from hub.registry.platform.services import connect

    services = connect(settings)
    yield services
    services.close()


@pytest.fixture
def client(services: Services) -> Iterator[TestClient]:
    from starlette.testclient import TestClient

    from api.app import create_app

    with TestClient(create_app(services), base_url="http://testserver") as client:
        yield client


@pytest.fixture
def make_user(services: Services) -> Callable[..., Person]:
    from hub.registry.access import credentials, users
    from hub.registry.access.viewer import Viewer
    from hub.registry.platform.db import transaction

    def make(name: str, *, is_admin: bool = False) -> Person:
        with transaction(services.sessions) as session:
            user = users.create_user(session, name, is_admin=is_admin)
            _, secret = credentials.issue_token(session, user.id, "test")
            return Person(name, secret, Viewer(user.id, user.name, is_admin))

    return make


@pytest.fixture
def admin(make_user: Callable[..., Person]) -> Person:
    return make_user("admin", is_admin=True)


@pytest.fixture
def ann(make_user: Callable[..., Person]) -> Person:
    return make_user("ann")


@pytest.fixture
def bob(make_user: Callable[..., Person]) -> Person:
    return make_user("bob")


@pytest.fixture
def other(base_settings: Settings) -> Iterator[Other]:
    from hub.registry.platform import schema
    from tests.other_hub import Other

    name = f"loraloom_other_{uuid.uuid4().hex[:12]}"
    other = Other(base_settings, schema.copy_database(base_settings.database_url, name))
    yield other
    other.services.close()
    schema.drop_database(schema.server_url(base_settings.database_url), name)
