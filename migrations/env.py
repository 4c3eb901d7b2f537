"""Alembic's entry: one transaction per migration, under an advisory lock, giving up rather than blocking the live service."""

from alembic import context
from sqlalchemy import NullPool, create_engine, text

import hub.registry.models  # noqa: F401 - every table registers itself
from hub.registry.platform.db import Table
from hub.registry.platform.settings import load_settings

# Two instances that start at once upgrade one after the other.
UPGRADE_LOCK = 7_301_204

url = context.config.attributes.get("database_url") or load_settings().database_url
# The lock belongs to the connection, so the connection must end here and not go back to a pool.
with create_engine(url, poolclass=NullPool).connect() as connection:
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": UPGRADE_LOCK})
    connection.execute(text("SET lock_timeout = '5s'"))
    connection.execute(text("SET statement_timeout = '10min'"))
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=Table.metadata,
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()
