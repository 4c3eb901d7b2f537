"""The Celery worker: takes a job's id, runs it in its child process. The parent never imports torch, so that the fork stays clean."""

import importlib
import os
import uuid
from typing import Any

from celery.signals import celeryd_after_setup, setup_logging, worker_process_init

from hub.registry.platform.job_queue import TASK, make_celery
from hub.registry.platform.log import configure_logging
from hub.registry.platform.settings import load_settings

# Threads of OpenMP spin while they wait for each other. Two workers that compute on the same cores at once spend nearly all their
# time on that: a search that takes 3 s takes 78 s (two cores). Must be set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

settings = load_settings()
app = make_celery(settings.broker_url, settings.broker_prefix)

# Set in the child only: the runner, with its services and the base model it keeps warm between jobs.
runner: Any = None
name = "unnamed"  # Celery's of this worker, such as gpu@host


@setup_logging.connect  # type: ignore[untyped-decorator]
def set_up_logging(**_: Any) -> None:
    """Celery would install handlers of its own; ours write one JSON object a line."""
    configure_logging()


@celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def know_name(sender: str, **_: Any) -> None:
    """In the parent, before it forks."""
    global name
    name = sender


@worker_process_init.connect  # type: ignore[untyped-decorator]
def start_child(**_: Any) -> None:
    """Import torch and all that after the fork: its threads would not survive one."""
    global runner
    runner = importlib.import_module("workers.runner").Runner(settings, name)
    presence = importlib.import_module("workers.runtime.presence").Presence
    presence(runner.services, runner.worker, list(app.amqp.queues.consume_from)).start()


@app.task(name=TASK)  # type: ignore[untyped-decorator]
def run(job_id: str) -> None:
    runner.run(uuid.UUID(job_id))
