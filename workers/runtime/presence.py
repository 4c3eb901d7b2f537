"""A worker that says every few seconds that it is there, so that the system page can tell an idle worker from a dead one."""

import logging
import threading

from sqlalchemy.exc import OperationalError

from hub.registry.jobs import usage
from hub.registry.jobs.leases import Worker
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services

log = logging.getLogger(__name__)


class Presence(threading.Thread):
    def __init__(self, services: Services, worker: Worker, queues: list[str]) -> None:
        super().__init__(name="presence", daemon=True)
        self.services, self.worker, self.queues = services, worker, queues
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                with transaction(self.services.sessions) as session:
                    usage.announce(session, self.worker, self.queues)
            except OperationalError:
                log.warning("the database does not answer; trying again", exc_info=True)
            self.ended.wait(usage.ALIVE_SECONDS / 4)
