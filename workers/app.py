"""The Celery worker: takes a job's id, runs it in its child process. The parent never imports torch, so that the fork stays clean."""

import importlib
import uuid
from typing import Any

from celery.signals import setup_logging, worker_process_init

from hub.registry.log import configure_logging
from hub.registry.queue import TASK, make_celery
from hub.registry.settings import load_settings

settings = load_settings()
app = make_celery(settings.broker_url, settings.broker_prefix)

# Set in the child only: the runner, with its services and the base model it keeps warm between jobs.
runner: Any = None


@setup_logging.connect  # type: ignore[untyped-decorator]
def set_up_logging(**_: Any) -> None:
    """Celery would install handlers of its own; ours write one JSON object a line."""
    configure_logging()


@worker_process_init.connect  # type: ignore[untyped-decorator]
def start_child(**_: Any) -> None:
    """Import torch and all that after the fork: its threads would not survive one."""
    global runner
    runner = importlib.import_module("workers.runner").Runner(settings)


@app.task(name=TASK)  # type: ignore[untyped-decorator]
def run(job_id: str) -> None:
    runner.run(uuid.UUID(job_id))
