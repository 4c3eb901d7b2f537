"""The one database: engine, sessions, and the base class of the tables."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import MetaData, create_engine
from sqlalchemy.exc import DataError
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

from hub.registry.platform.errors import InvalidInput

# Named constraints, so that a migration can refer to them.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


# random_page_cost: PostgreSQL's default of 4 is for spinning disks. On an SSD or in memory a page read through an index costs little more
# than the next page of a scan, and with the default the planner scans whole tables where an index would do.
# max_parallel_workers_per_gather: disable parallel query. A request that needs it should be rewritten, and the workers of one request
# would take processors from all others.
OPTIONS = "-c timezone=utc -c lock_timeout=15s -c random_page_cost=1.1 -c max_parallel_workers_per_gather=0"


class Table(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)


def connect(database_url: str, *, pool_size: int = 10) -> sessionmaker[Session]:
    """Sessions on the database; nothing is opened before the first use."""
    engine = create_engine(
        database_url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,  # a database that was restarted costs one round trip, not one failed request
        connect_args={"connect_timeout": 5, "options": OPTIONS},
    )
    return sessionmaker(engine, expire_on_commit=False)


@contextmanager
def transaction(sessions: sessionmaker[Session]) -> Iterator[Session]:
    """One session, one transaction: committed at the end, rolled back by any exception.

    Raises InvalidInput for a value that PostgreSQL cannot hold: a text with a NUL or half a surrogate pair, a number beyond
    its column's range.
    """
    try:
        with sessions() as session, session.begin():
            yield session
    except UnicodeEncodeError as error:
        raise InvalidInput(f"A value of the request is not valid Unicode text: {error.reason}.") from error
    except DataError as error:
        raise InvalidInput(f"A value of the request cannot be stored or searched for: {error.orig}.") from error
