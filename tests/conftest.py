"""Real services for every test: one embedded stack a process (or the services given by URL), a fresh database a test."""

import gc
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from xdist.scheduler import LoadScopeScheduling

from api.app import create_app
from hub import supervisor
from hub.local.stack import Stack
from hub.registry.access import credentials, users
from hub.registry.access.viewer import Viewer
from hub.registry.jobs.leases import Worker
from hub.registry.platform import schema
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services, connect
from hub.registry.platform.settings import Settings
from hub.registry.platform.storage import Storage

RUN = uuid.uuid4().hex[:8]
WORKER = Worker("test", "cpu")
MEMORY, ROOM = Path("/dev/shm"), 8 << 30


@dataclass(frozen=True)
class Person:
    """A user with his token, and what the domain functions want to know of him."""

    name: str
    token: str
    viewer: Viewer

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


class Other:
    """The other hub. Remembers what it was asked, with which token; can be switched off, and made to answer `instead`."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.services = connect(settings.model_copy(update={"database_url": url}))
        self.app = create_app(self.services)
        self.asked: list[tuple[str, str]] = []  # method and path, token
        self.off = False
        self.instead: dict[str, ASGIApp] = {}  # by method and the beginning of the path
        self.sent = 0  # bytes of bodies
        with transaction(self.services.sessions) as session:
            user = users.create_user(session, "labs")
            _, token = credentials.create_token(session, user.id, "the other hub's reader")
        self.labs = Person("labs", token, Viewer(user.id, "labs", False))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            self.sent += len(message.get("body", b""))
            await send(message)

        if scope["type"] == "http":
            token = dict(scope["headers"]).get(b"authorization", b"").decode()
            self.asked.append((f"{scope['method']} {scope['path']}", token))
            told = [app for asked, app in self.instead.items() if self.asked[-1][0].startswith(asked)]
            for app in [Response(status_code=500)] if self.off else told:
                await app(scope, receive, counted)
                return
        await self.app(scope, receive, counted)


class ByFile(LoadScopeScheduling):
    """What a process of the run gets at a time: a file, or all tests of the instance, as that takes long to start."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "instance" if path.startswith("tests/e2e/") and not path.endswith("test_up.py") else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return ByFile(config, log)


def pytest_collection_finish() -> None:
    gc.freeze()  # what is imported by now lives to the end, and need not be looked through again and again


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest first, so that none waits for it.
    items.sort(key=lambda item: not item.nodeid.startswith("tests/e2e/"))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch  # noqa: PLC0415 - most tests of the API do without

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """In memory where that has a file system: a database is 300 files, which a disk makes and removes in three times the time."""
    in_memory = MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM else None
    with (
        tempfile.TemporaryDirectory(prefix="loraloom-test-", dir=in_memory) as folder,
        Stack(Path(folder)) as stack,
    ):
        yield stack


@pytest.fixture(scope="session")
def base_settings(stack: Stack) -> Iterator[Settings]:
    """Where the services are, with a template database of this run and a bucket of its own."""
    settings = supervisor.start_services(stack, scratch=f"loraloom-test-{RUN}")
    schema.upgrade(settings.database_url)
    Storage(settings).ensure_bucket()
    yield settings
    supervisor.drop_scratch(settings)


@pytest.fixture
def settings(base_settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a fresh database: a copy of the migrated template, which takes a twentieth of a second."""
    name = f"loraloom_test_{uuid.uuid4().hex[:12]}"
    url = schema.copy_database(base_settings.database_url, name)
    yield base_settings.model_copy(
        update={"database_url": url, "broker_prefix": f"{name}:", "cache_dir": tmp_path / "cache"}
    )
    schema.drop_database(schema.server_url(base_settings.database_url), name)


@pytest.fixture
def services(settings: Settings) -> Iterator[Services]:
    services = connect(settings)
    yield services
    services.close()


@pytest.fixture
def client(services: Services) -> Iterator[TestClient]:
    with TestClient(create_app(services), base_url="http://testserver") as client:
        yield client


@pytest.fixture
def make_user(services: Services) -> Callable[..., Person]:
    def make(name: str, *, is_admin: bool = False) -> Person:
        with transaction(services.sessions) as session:
            user = users.create_user(session, name, is_admin=is_admin)
            _, secret = credentials.create_token(session, user.id, "test")
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
    name = f"loraloom_other_{uuid.uuid4().hex[:12]}"
    other = Other(base_settings, schema.copy_database(base_settings.database_url, name))
    yield other
    other.services.close()
    schema.drop_database(schema.server_url(base_settings.database_url), name)
