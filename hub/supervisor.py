"""`python -m hub up`: every process of an instance under one supervisor, until it is interrupted."""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from sqlalchemy import make_url

from hub.local.addresses import answers
from hub.local.children import LocalError
from hub.local.files import write_private
from hub.local.stack import Stack
from hub.registry.access import credentials, users
from hub.registry.access.permissions import OPERATOR
from hub.registry.models.instance import Mark
from hub.registry.platform import schema
from hub.registry.platform.db import connect, transaction
from hub.registry.platform.settings import Settings, load_external_services, load_settings
from hub.registry.platform.storage import Storage

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]
ADMIN = "admin"
ENVIRONMENT = "environment.json"  # in the data directory: the settings of the instance that runs there
RESTART_SECONDS = 1.0
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class NoInstance(LocalError):
    """Neither the environment nor the data directory says where an instance is."""


@dataclass(frozen=True)
class Instance:
    """A running instance: where it answers, and how to be its administrator."""

    url: str
    token_file: Path
    environment: Mapping[str, str]


Commands = Mapping[str, list[str]]  # by the name of the process


def commands(host: str, port: int) -> dict[str, list[str]]:
    """The processes of an instance and the commands that start them; docker-compose.yml runs the very same ones."""
    python = sys.executable
    worker = [
        python,
        "-m",
        "celery",
        "-A",
        "workers.app",
        "worker",
        "--concurrency",
        "1",
        "--without-gossip",
        "--without-mingle",
    ]
    return {
        "api": [
            python,
            "-m",
            "uvicorn",
            "--factory",
            "api.app:create_app",
            "--host",
            host,
            "--port",
            str(port),
            "--no-access-log",
        ],
        "worker-gpu": [*worker, "--queues", "gpu", "--hostname", "gpu@%h"],
        "worker-interactive": [*worker, "--queues", "interactive", "--hostname", "interactive@%h"],
        "sweep": [python, "-m", "hub", "sweep"],
    }


SEED = [sys.executable, "-m", "hub.starter.seed"]


@contextmanager
def instance(
    data: Path,
    host: str,
    port: int,
    say: Callable[[str], None],
    *,
    scratch: str | None = None,
    processes: Commands | None = None,
) -> Iterator[tuple[Stack, Instance]]:
    """Start what is not given by URL, then our own processes, and wait until the instance is ready.

    With `scratch` the instance has a database and a bucket of that name to itself, which are gone afterwards. `processes` are others than
    those of `commands`.
    """
    with Stack(data) as stack:
        settings = start_services(stack, scratch=scratch)
        try:
            yield stack, start_processes(stack, settings, processes or commands(host, port), address(host, port), say)
        finally:
            if scratch:
                stack.stop_ours()
                drop_scratch(settings)


def address(host: str, port: int) -> str:
    """Where this machine reaches an API that listens there."""
    return f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"  # noqa: S104 - compared, not bound


def start_processes(
    stack: Stack, settings: Settings, processes: Commands, url: str, say: Callable[[str], None]
) -> Instance:
    """Bring the schema up to date, start our own processes, wait until the API is ready."""
    env = environment(settings)
    schema.upgrade(settings.database_url)
    Storage(settings).ensure_bucket()
    token_file = ensure_admin(settings, stack.data)
    # The API first: beside workers that load torch it would take twice as long to answer.
    for name, argv in processes.items():
        stack.spawn(name, argv, env=env, cwd=ROOT)
        if name == "api":
            stack.wait_until("api", lambda: answers(f"{url}/readyz"))
    # So that commands like `python -m hub user` find the instance.
    write_private(stack.data / ENVIRONMENT, json.dumps(env))
    if not is_seeded(settings):
        say("first start: converting the built-in base model and publishing the starter library ...")
        stack.spawn("seed", SEED, env=env, cwd=ROOT)
    return Instance(url, token_file, env)


def start_services(stack: Stack, *, scratch: str | None = None) -> Settings:
    """The services given by URL, and from wheels those that are not. With `scratch`, a database and a bucket of that name there."""
    given = load_external_services()
    server = given.database_url or stack.start_postgres()
    broker = given.broker_url or stack.start_valkey()
    key, secret = given.aws_access_key_id, given.aws_secret_access_key
    endpoint = given.s3_endpoint_url
    if endpoint is None:
        endpoint, key, secret = stack.start_s3(), stack.secrets.s3_key, stack.secrets.s3_secret
    stack.await_servers()
    if given.database_url and scratch is None:
        database_url = given.database_url
    else:
        database_url = schema.create_database(server, (scratch or "loraloom").replace("-", "_"))
    values: dict[str, Any] = {"s3_bucket": scratch, "broker_prefix": f"{scratch}:"} if scratch else {}
    return Settings(
        database_url=database_url,
        broker_url=broker,
        s3_endpoint_url=endpoint,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        cache_dir=stack.data / "cache",
        **values,
    )


def settings_of(data: Path) -> Settings:
    """The settings of the environment if it names a database, else those of the instance in a data directory. Raises NoInstance."""
    if load_external_services().database_url:
        return load_settings()
    path = data / ENVIRONMENT
    if not path.exists():
        raise NoInstance(
            f"There is no instance in {data}; start it with `make run`, name its --data, or set DATABASE_URL."
        )
    return Settings(**{name.lower(): value for name, value in json.loads(path.read_text()).items()})


def drop_scratch(settings: Settings) -> None:
    """Remove the database and the bucket that `start_services` made for one use."""
    Storage(settings).drop_bucket()
    name = make_url(settings.database_url).database
    schema.drop_database(schema.server_url(settings.database_url), name or "")


def environment(settings: Settings) -> dict[str, str]:
    """The variables that give a child process these settings."""
    return {
        key.upper(): str(value)
        for key, value in settings.model_dump(exclude_defaults=True).items()
        if value is not None
    }


def ensure_admin(settings: Settings, data: Path) -> Path:
    """The administrator, and a token for them in a file that only its owner can read."""
    path = data / "admin.token"
    if not path.exists():
        with transaction(connect(settings.database_url)) as session:
            user = users.ensure_user(session, ADMIN, is_admin=True)
            secret = credentials.create_token_for(session, OPERATOR, user, "admin.token")
        write_private(path, secret + "\n")
    return path


def is_seeded(settings: Settings) -> bool:
    with transaction(connect(settings.database_url)) as session:
        return session.get(Mark, "seeded") is not None


def serve(data: Path, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve until interrupted, starting again whatever ends meanwhile."""
    first = not (data / "admin.token").exists()
    with interruptible(), instance(data, host, port, say) as (stack, running):
        say(f"Loraloom is ready at {running.url} (data in {stack.data})")
        if first:
            say(f"administrator: {ADMIN}; token: {running.token_file} (sign in at {running.url}/login)")
        while True:
            keep_running(stack, say)
            time.sleep(0.5)


def keep_running(stack: Stack, say: Callable[[str], None]) -> None:
    """Start again what has ended, but for the seed, which ends by itself."""
    for name, code in stack.ended().items():
        if name == "seed":
            report_seed(stack, code, say)
            continue
        say(f"{name} ended ({code}); starting it again (log: {stack.data}/logs/{name}.log)")
        time.sleep(RESTART_SECONDS)
        stack.restart(name)


def report_seed(stack: Stack, code: int, say: Callable[[str], None]) -> None:
    """Where seeding failed, the next start tries again."""
    done = "the built-in base and the starter library are ready"
    say(done if code == 0 else f"seeding failed ({code}):\n{stack.log_tail('seed')}")
    stack.forget("seed")


class Interrupted(BaseException):
    """SIGINT or SIGTERM. Not an Exception, so that nothing on the way out mistakes it for an error."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into an orderly end; later ones cannot break the clean-up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for later in ENDS:
            signal.signal(later, signal.SIG_IGN)
        raise Interrupted

    for first in ENDS:
        signal.signal(first, interrupt)
    try:
        yield
    except Interrupted:
        log.info("interrupted", extra={"pid": os.getpid()})
