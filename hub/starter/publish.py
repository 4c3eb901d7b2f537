"""Publish a folder of the starter library, or the examples of a task, under any name. Needs no torch."""

import io
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from hub.registry.access.viewer import Viewer
from hub.registry.content import blobs
from hub.registry.library import publishing, scores
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.starter.tasks import TEMPLATE, Task, TextPair
from hub.vocabulary import Visibility

MODULES = Path(__file__).parent / "modules"


def publish_module(services: Services, viewer: Viewer, folder: Path, name: str, visibility: Visibility) -> None:
    """The adapter in a folder of MODULES, with the score that its manifest has."""
    with ExitStack() as stack:
        files = [blobs.hash_file(path.name, stack.enter_context(path.open("rb"))) for path in sorted(folder.iterdir())]
        published = publishing.publish_adapter(
            services, viewer, name, files, visibility=visibility, message="Starter library"
        )
    manifest = json.loads((folder / "loraloom.json").read_text())
    figures = manifest["metrics"]["module"]["exact_match"]
    measured = (figures["mean"], figures["low"], figures["high"])
    figure = scores.Figure("exact_match", *measured, examples=manifest["task"]["held_out"])
    with transaction(services.sessions) as session:
        scores.keep_own(session, published.commit.id, [figure])


def publish_data(services: Services, viewer: Viewer, task: Task, name: str, visibility: Visibility) -> None:
    """The examples of a task as a data set: what the adapter was trained on, and what nobody may train on."""
    texts = {
        "README.md": f"---\nlicense: apache-2.0\nprompt_template: {TEMPLATE}\n---\n\n# {task.title.capitalize()}\n",
        "train.jsonl": jsonl(task.train),
        "held_out.jsonl": jsonl(task.held_out),
    }
    files = [blobs.hash_file(path, io.BytesIO(text.encode())) for path, text in texts.items()]
    publishing.publish_dataset(services, viewer, name, files, visibility=visibility, message="Starter library")


def jsonl(pairs: Sequence[TextPair]) -> str:
    return "".join(json.dumps(vars(pair), ensure_ascii=False) + "\n" for pair in pairs)
