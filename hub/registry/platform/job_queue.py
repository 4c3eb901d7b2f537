"""Celery as a wake-up call: a message is a job's id and nothing else. PostgreSQL says what state the job is in."""

import logging
import uuid

from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy import event
from sqlalchemy.orm import Session

from hub.registry.platform.errors import Unavailable

log = logging.getLogger(__name__)

TASK = "loraloom.run"


def make_celery(broker_url: str, prefix: str) -> Celery:
    """The Celery application of senders and workers: JSON only, no results kept, messages acknowledged on receipt."""
    app = Celery("loraloom", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        # A child process that replaces a killed one loads torch first. Celery's default would kill it after 4 seconds, and so on for ever.
        worker_proc_alive_timeout=300.0,
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=3,
        task_publish_retry=False,
        # A message that a killed worker had received but not begun is delivered again soon; the claim makes a second copy harmless.
        broker_transport_options={
            "visibility_timeout": 60,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 10,
            "socket_connect_timeout": 3,
            "global_keyprefix": prefix,
        },
    )
    return app


class Queue:
    def __init__(self, broker_url: str, prefix: str) -> None:
        self._celery = make_celery(broker_url, prefix)

    def send(self, queue: str, job_id: uuid.UUID) -> bool:
        """Wake a worker. A send that fails is only a delay: the sweep sends again."""
        try:
            self._celery.send_task(TASK, args=[str(job_id)], queue=queue)
        except OperationalError:
            log.warning("job not sent; the sweep will send it", extra={"job_id": str(job_id)}, exc_info=True)
            return False
        return True

    def depth(self, queue: str) -> int:
        """How many messages wait. Raises Unavailable if the broker does not answer."""
        try:
            with self._celery.connection_for_read() as connection:
                return int(connection.default_channel.client.llen(queue))
        except (OperationalError, *self._celery.connection_for_read().connection_errors) as error:
            raise Unavailable(f"The broker does not answer: {error}") from error

    def purge(self, queue: str) -> None:
        """Forget every waiting message. Their jobs lose nothing: the sweep sends them again."""
        with self._celery.connection_for_write() as connection:
            connection.default_channel.queue_purge(queue)

    def send_after_commit(self, session: Session, queue: str, job_id: uuid.UUID) -> None:
        """Send if and when the session's transaction commits."""

        def send(_: Session) -> None:
            self.send(queue, job_id)

        event.listen(session, "after_commit", send, once=True)
