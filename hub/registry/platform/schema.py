"""The database's schema: create the database, bring it to the newest migration, check that the models agree with it."""

import contextlib
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import NullPool, create_engine, make_url

ROOT = Path(__file__).resolve().parents[3]


def config(database_url: str) -> Config:
    settings = Config(toml_file=str(ROOT / "pyproject.toml"))
    settings.attributes["database_url"] = database_url
    return settings


def create_database(server_url: str, name: str) -> str:
    """Create a database if it is not there; returns its URL. The `server_url` names any database of that server."""
    url = make_url(server_url)
    with psycopg.connect(
        url.set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True
    ) as server:
        there = server.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
        if not there:
            # Another process may have created it meanwhile, which is just as good.
            with contextlib.suppress(psycopg.errors.DuplicateDatabase):
                server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return url.set(database=name).render_as_string(hide_password=False)


def server_url(database_url: str) -> str:
    """The same server's maintenance database, from which others can be made and dropped."""
    return make_url(database_url).set(database="postgres").render_as_string(hide_password=False)


def copy_database(database_url: str, name: str) -> str:
    """Copy a database, schema and rows, into a new one. Nobody may be connected to the original."""
    url = make_url(database_url)
    with psycopg.connect(server_url(database_url), autocommit=True) as server:
        template = sql.Identifier(url.database or "")
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), template))
    return url.set(database=name).render_as_string(hide_password=False)


def drop_database(server_url: str, name: str) -> None:
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def is_current(database_url: str) -> bool:
    """Whether the database is at the newest migration: one query, where running Alembic costs half a second."""
    newest = ScriptDirectory.from_config(config(database_url)).get_current_head()
    with create_engine(database_url, poolclass=NullPool).connect() as connection:
        return MigrationContext.configure(connection).get_current_revision() == newest


def upgrade(database_url: str) -> None:
    """Run every migration that is new to the database."""
    if not is_current(database_url):
        command.upgrade(config(database_url), "head")


def check(database_url: str) -> None:
    """Raise if the models differ from what the migrations make."""
    command.check(config(database_url))


def autogenerate(database_url: str, message: str) -> None:
    """Write a migration for what the models have and the database lacks."""
    command.revision(config(database_url), message=message, autogenerate=True)
