"""A run's own database and bucket on the stack that `make t` keeps up between runs."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from hub.local import warm
from hub.registry.platform import schema
from hub.registry.platform.settings import Settings
from hub.registry.platform.storage import Storage

ROOT = Path(__file__).parents[1]
SCHEMA_SOURCES = ("migrations", "hub/registry/models")
PREFIX = "loraloom_schema_"


@contextmanager
def scratch(folder: Path, name: str) -> Iterator[Settings]:
    """Settings of a migrated database and an empty bucket of this name, which are dropped at the end."""
    stack = warm.find_or_start(folder)
    template = migrated(stack.database_url)
    settings = Settings(
        database_url=schema.copy_database(template, name.replace("-", "_")),
        broker_url=stack.broker_url,
        broker_prefix=f"{name}:",
        s3_endpoint_url=stack.s3_endpoint_url,
        s3_bucket=name,
        aws_access_key_id=stack.aws_access_key_id,
        aws_secret_access_key=stack.aws_secret_access_key,
    )
    Storage(settings).ensure_bucket()
    try:
        yield settings
    finally:
        Storage(settings).drop_bucket()
        schema.drop_database(stack.database_url, name.replace("-", "_"))


def migrated(server_url: str) -> str:
    """The URL of a database with the newest schema. It is migrated anew when the sources of the schema have changed."""
    name = PREFIX + schema_hash()
    with psycopg.connect(server_url, autocommit=True) as server:
        # One run at a time: a second one finds the database that the first has migrated.
        server.execute("SELECT pg_advisory_lock(7301205)")
        databases = {str(row[0]) for row in server.execute("SELECT datname FROM pg_database")}
        if name not in databases:
            for stale in databases:
                if stale.startswith(PREFIX):
                    schema.drop_database(server_url, stale)
            unfinished = schema.create_database(server_url, f"{PREFIX}unfinished")
            schema.upgrade(unfinished)
            rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
            server.execute(rename.format(sql.Identifier(f"{PREFIX}unfinished"), sql.Identifier(name)))
    return schema.create_database(server_url, name)


def schema_hash() -> str:
    """Of every file that says what the schema is."""
    digest = hashlib.sha256()
    for source in SCHEMA_SOURCES:
        for path in sorted((ROOT / source).rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
