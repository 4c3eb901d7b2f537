"""The services that every process of the hub uses, opened once from its settings."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from hub.registry.platform import db
from hub.registry.platform.errors import Unavailable
from hub.registry.platform.job_queue import Queue
from hub.registry.platform.settings import Settings
from hub.registry.platform.storage import Storage
from hub.registry.platform.upstream_client import Upstream
from hub.vocabulary import QUEUES


@dataclass(frozen=True)
class Services:
    settings: Settings
    sessions: sessionmaker[Session]
    storage: Storage
    queue: Queue
    upstream: Upstream

    def check(self) -> None:
        """Raise Unavailable naming the first service that does not answer."""
        try:
            with db.transaction(self.sessions) as session:
                session.execute(text("SELECT 1"))
        except OperationalError as error:
            raise Unavailable(f"The database does not answer: {error.orig}") from error
        self.storage.ping()
        self.queue.depth(QUEUES[0])

    def close(self) -> None:
        """Close every connection."""
        self.upstream.close()
        bind = self.sessions.kw["bind"]
        bind.dispose()


def connect(settings: Settings) -> Services:
    storage = Storage(settings)
    return Services(
        settings,
        db.connect(settings.database_url),
        storage,
        Queue(settings.broker_url, settings.broker_prefix),
        Upstream(settings, storage),
    )
