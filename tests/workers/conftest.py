"""A tiny base on disk and registered, modules and examples published for it, and a runner in this process."""

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from hub.lora.core.bases import Base
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.lora.conftest import MakeAdapter, make_adapter, tiny_base  # noqa: F401 - fixtures
from tests.support.http import upload
from tests.workers.jobs import Submit, close
from workers.runner import Runner


@pytest.fixture(scope="session")
def tiny_folder(tiny_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    tiny_base.model.save_pretrained(folder)
    tiny_base.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def library(
    client: TestClient,
    admin: Person,
    ann: Person,
    tiny_base: Base,  # noqa: F811
    tiny_folder: Path,
    make_adapter: MakeAdapter,  # noqa: F811
) -> list[str]:
    """The tiny base registered, and two modules of ann's on it; their names."""
    registered = client.post("/v1/bases", headers=admin.headers, json={"id": tiny_base.id, "path": str(tiny_folder)})
    assert registered.status_code == 201, registered.text
    names = []
    for seed in (1, 2):
        folder = make_adapter(f"module{seed}", seed=seed)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        answer = upload(client, ann.headers, f"ann/module{seed}", files)
        assert answer.status_code == 201, answer.text
        names.append(f"ann/module{seed}")
    return names


@pytest.fixture
def submit(client: TestClient, ann: Person) -> Submit:
    def submit(body: Mapping[str, Any]) -> uuid.UUID:
        answer = client.post("/v1/jobs", headers=ann.headers, json=dict(body))
        assert answer.status_code == 202, answer.text
        return uuid.UUID(answer.json()["id"])

    return submit


@pytest.fixture
def runner(services: Services) -> Iterator[Runner]:
    runner = Runner(services.settings)
    yield runner
    close(runner)
