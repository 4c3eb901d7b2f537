"""Live job events for any number of streams: one poller a process asks the database about all watched jobs at once."""

import asyncio
import logging
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from hub.registry.access.viewer import Viewer
from hub.registry.jobs import job_queries
from hub.registry.models.jobs import JobEvent
from hub.registry.platform.db import transaction

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
NEWS_LIMIT = 10_000  # a reader this far behind is cut off, and resumes by sequence number

News = JobEvent | str


@dataclass(eq=False)
class Subscription:
    """One open stream: how far it has read, and the news that it has not been sent yet."""

    job_id: uuid.UUID
    viewer: Viewer
    after: int
    state: str | None = None
    news: asyncio.Queue[News] = field(default_factory=lambda: asyncio.Queue(NEWS_LIMIT))


class Watcher:
    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._subscriptions: set[Subscription] = set()

    @contextmanager
    def subscribe(self, job_id: uuid.UUID, viewer: Viewer, after: int) -> Iterator[asyncio.Queue[News]]:
        """Events above `after`, each change of state, and finally the last state, or "gone" once the viewer loses access."""
        subscription = Subscription(job_id, viewer, after)
        self._subscriptions.add(subscription)
        try:
            yield subscription.news
        finally:
            self._subscriptions.discard(subscription)

    async def run(self) -> None:
        """Poll for ever; cancelled when the process ends."""
        while True:
            if self._subscriptions:
                watched = list(self._subscriptions)
                try:
                    updates = await run_in_threadpool(self._read, watched)
                except SQLAlchemyError:
                    log.warning("job events could not be read; trying again", exc_info=True)
                else:
                    for subscription, news in updates:
                        self._deliver(subscription, news)
            await asyncio.sleep(POLL_SECONDS)

    def _read(self, watched: list[Subscription]) -> list[tuple[Subscription, list[News]]]:
        """The news for each stream, in two statements for all streams. Access is checked each time, as it may have been withdrawn."""
        with transaction(self._sessions) as session:
            # The states are read first, so that events written before a final state are certain to be seen with it.
            states = job_queries.states(session, ((stream.job_id, stream.viewer) for stream in watched))
            open_streams = [stream for stream in watched if (stream.job_id, stream.viewer) in states]
            events = job_queries.new_events(session, ((stream.job_id, stream.after) for stream in open_streams))
        return [
            (
                stream,
                _news(
                    stream,
                    states.get((stream.job_id, stream.viewer), "gone"),
                    events.get((stream.job_id, stream.after), []),
                ),
            )
            for stream in watched
        ]

    def _deliver(self, subscription: Subscription, news: list[News]) -> None:
        for item in news:
            if subscription.news.full():
                self._subscriptions.discard(subscription)
                return
            subscription.news.put_nowait(item)
            if isinstance(item, JobEvent):
                subscription.after = item.seq
            else:
                subscription.state = item


def _news(subscription: Subscription, state: str, events: Sequence[JobEvent]) -> list[News]:
    """The events, then a new state. The state waits while there may be more events."""
    more_to_come = len(events) == job_queries.EVENTS_A_PAGE
    return [*events, *([state] if state != subscription.state and not more_to_come else [])]
