"""A worker as Celery starts it."""

import os
import signal
from datetime import datetime

import psutil

from hub import supervisor
from hub.registry.models.jobs import WorkerProcess
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.workers.jobs import wait_for


def test_a_worker_says_that_it_is_there_and_so_does_whoever_takes_a_killed_child_s_place(services: Services) -> None:
    name = "gpu@test"
    argv = [name if word == "gpu@%h" else word for word in supervisor.commands("127.0.0.1", 0)["worker-gpu"]]

    def seen() -> datetime | None:
        with transaction(services.sessions) as session:
            worker = session.get(WorkerProcess, name)
            assert worker is None or (worker.queues == ["gpu"] and worker.device)
            return None if worker is None else worker.seen_at

    worker = psutil.Popen(argv, cwd=supervisor.ROOT, env={**os.environ, **supervisor.environment(services.settings)})
    try:
        wait_for(lambda: seen() is not None, 120)
        (child,) = worker.children()
        child.kill()
        child.wait()
        last = seen()
        wait_for(lambda: seen() != last, 120)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(timeout=60)
