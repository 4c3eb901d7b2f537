"""Real services for every test: one embedded stack a run (or the services given by URL), and a fresh database for each test."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from hub import local, up
from hub.registry import credentials, schema, teams
from hub.registry.db import transaction
from hub.registry.jobs import Worker
from hub.registry.services import Services, connect
from hub.registry.settings import Settings
from hub.registry.storage import Storage
from hub.registry.teams import Viewer

RUN = uuid.uuid4().hex[:8]
WORKER = Worker("test", "cpu")


@dataclass(frozen=True)
class Person:
    """A user with his token, and what the domain functions want to know of him."""

    name: str
    token: str
    viewer: Viewer

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch  # noqa: PLC0415 - most tests of the API do without

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.Stack]:
    with local.Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="session")
def base_settings(stack: local.Stack) -> Iterator[Settings]:
    """Where the services are, with a template database of this run and a bucket of its own."""
    settings = up.start_services(stack, scratch=f"loraloom-test-{RUN}")
    schema.upgrade(settings.database_url)
    Storage(settings).ensure_bucket()
    yield settings
    up.drop_scratch(settings)


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
            user = teams.create_user(session, name, is_admin=is_admin)
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
