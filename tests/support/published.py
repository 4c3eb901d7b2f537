"""Adapters, data sets and bases published for tests by the functions that the routes call, without HTTP."""

import io
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict

from hub.registry.bases import base_models
from hub.registry.content import blobs, history, repos
from hub.registry.content.blobs import Incoming
from hub.registry.content.history import Parent
from hub.registry.inspection.inspect import inspect
from hub.registry.jobs.contracts.common import Params
from hub.registry.jobs.leases import Worker
from hub.registry.library.publishing import entries, publish_adapter, publish_dataset
from hub.registry.models.content import Commit
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.vocabulary import Visibility
from tests.conftest import Person
from tests.support.files import LAYERS, TINY, WIDTH, examples_file, peft_folder

WORKER = Worker("test", "cpu")


class AnyParams(Params):
    """Of a job that no worker runs: whatever a test wants it to have."""

    model_config = ConfigDict(extra="allow")


def incoming(files: Mapping[str, bytes]) -> list[Incoming]:
    return [blobs.hash_file(path, io.BytesIO(data)) for path, data in files.items()]


def adapter(
    services: Services,
    person: Person,
    name: str,
    *,
    visibility: Visibility | None = None,
    files: Mapping[str, bytes] | None = None,
    **options: Any,
) -> Commit:
    """Publish a sound adapter: these files, or a folder made by `peft_folder(**options)`."""
    sent = incoming(files or peft_folder(**options))
    return publish_adapter(services, person.viewer, name, sent, visibility=visibility, message="Upload").commit


def dataset(
    services: Services,
    person: Person,
    name: str,
    files: Mapping[str, bytes] | None = None,
    *,
    visibility: Visibility | None = None,
) -> Commit:
    sent = incoming(files or {"train.jsonl": examples_file()})
    return publish_dataset(services, person.viewer, name, sent, visibility=visibility, message="Upload")[1]


def base(services: Services, base_id: str = TINY, *aliases: str, width: int = WIDTH) -> None:
    """Register a base whose layers `peft_folder(width=width)` fits."""
    with transaction(services.sessions) as session:
        base_models.register(
            session,
            base_id,
            path="/models/tiny",
            revision=None,
            dtype="float32",
            licence="apache-2.0",
            aliases=aliases,
            shapes=dict.fromkeys(LAYERS, (width, width)),
            fingerprint="f" * 64,
        )


def woven(services: Services, person: Person, name: str, visibility: Visibility, *parents: Parent) -> Commit:
    """A result with these parents, as a finished job publishes it."""
    files = incoming(peft_folder(seed=50))
    blobs.store(services.sessions, services.storage, person.name, files)
    with transaction(services.sessions) as session:
        repo = repos.ensure(session, person.viewer, "model", name, visibility)
        inspection = inspect({file.path: file for file in files}, ())
        return history.publish(
            session,
            repo,
            entries(files),
            author_id=person.viewer.id,
            message="woven",
            inspection=inspection,
            parents=parents,
        )
