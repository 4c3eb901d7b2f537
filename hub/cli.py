"""The command line: `python -m hub COMMAND`."""

import argparse
import contextlib
import importlib
import logging
import os
import signal
import sys
import threading
import uuid
from pathlib import Path

from sqlalchemy import make_url

from hub import demo, dev, logs, supervisor
from hub.local import postgres
from hub.local.children import LocalError
from hub.local.stack import Stack
from hub.registry.access import credentials, users
from hub.registry.access.permissions import OPERATOR
from hub.registry.access.viewer import viewer_of
from hub.registry.library import importing
from hub.registry.operations import sweep
from hub.registry.platform import schema
from hub.registry.platform.db import connect, transaction
from hub.registry.platform.errors import HubError
from hub.registry.platform.log import configure_logging
from hub.registry.platform.services import connect as connect_services
from hub.registry.platform.settings import load_settings
from hub.registry.platform.storage import Storage
from hub.vocabulary import VISIBILITIES


def say(line: str) -> None:
    print(line, flush=True)


def run_up(args: argparse.Namespace) -> None:
    supervisor.serve(args.data, args.host, args.port, say)


def run_demo(args: argparse.Namespace) -> None:
    demo.run(say)


def run_dev(args: argparse.Namespace) -> None:
    dev.serve(args.data, args.host, args.port, say, without=args.without)


def run_psql(args: argparse.Namespace) -> None:
    """Become psql on the instance's database. The password goes by the environment, as everyone may read a command line."""
    url = make_url(supervisor.settings_of(args.data).database_url)
    names = {
        "PGHOST": url.host,
        "PGPORT": url.port,
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": url.database,
    }
    psql = str(postgres.programs() / "psql")
    os.execve(psql, [psql, *args.argument], {**os.environ, **{name: str(value) for name, value in names.items()}})  # noqa: S606


def run_work(args: argparse.Namespace) -> None:
    """Run the next job of a job's queue in this process, where a debugger can stop it. Only workers load torch at their start."""
    configure_logging()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as workers.app sets it, before torch is loaded
    runner = importlib.import_module("workers.runner").Runner(supervisor.settings_of(args.data), "by hand")
    runner.run(args.job)


def run_logs(args: argparse.Namespace) -> None:
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        for line in logs.read(args.data, args.name, args.level, follow=args.follow):
            say(line)


def run_migrate(args: argparse.Namespace) -> None:
    """Prepare given services for the first start of an instance: the schema, the bucket, an administrator."""
    settings = load_settings()
    schema.upgrade(settings.database_url)
    Storage(settings).ensure_bucket()
    if args.token_file:
        args.token_file.parent.mkdir(parents=True, exist_ok=True)
        say(f"administrator: {supervisor.ADMIN}; token: {supervisor.ensure_admin(settings, args.token_file.parent)}")
    say("the schema is up to date")


def run_check_schema(args: argparse.Namespace) -> None:
    """Bring an empty database to the newest migration, and fail if the models differ from it."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with Stack(args.data) as stack:
        server = stack.start_postgres()
        stack.await_servers()
        schema.drop_database(server, "schema_check")
        url = schema.create_database(server, "schema_check")
        schema.upgrade(url)
        if args.revision:
            schema.autogenerate(url, args.revision)
            schema.upgrade(url)
        schema.check(url)


def run_sweep(args: argparse.Namespace) -> None:
    configure_logging()
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    sweep.run(connect_services(load_settings()), stop=stopping.is_set)


def run_user(args: argparse.Namespace) -> None:
    with transaction(connect(supervisor.settings_of(args.data).database_url)) as session:
        _, _, secret = users.register(session, OPERATOR, args.name, is_admin=args.admin)
    say(secret)


def run_token(args: argparse.Namespace) -> None:
    with transaction(connect(supervisor.settings_of(args.data).database_url)) as session:
        user = users.get_user(session, args.user)
        secret = credentials.create_token_for(session, OPERATOR, user, args.name)
    say(secret)


def run_import(args: argparse.Namespace) -> None:
    """Print one line an adapter, and its findings below; ends with an error if any was refused."""
    services = connect_services(supervisor.settings_of(args.data))
    with transaction(services.sessions) as session:
        user = users.get_user(session, args.user)
        viewer = viewer_of(user)
    counts = {"accepted": 0, "unchanged": 0, "kept": 0, "refused": 0}
    namespace = args.namespace or args.user
    if args.folder.startswith("s3://"):
        results = importing.import_bucket(services, viewer, namespace, args.folder, args.visibility)
    elif args.folder.startswith("hf:"):
        results = importing.import_upstream(services, viewer, namespace, args.folder, args.visibility)
    else:
        results = importing.import_tree(services, viewer, namespace, Path(args.folder), args.visibility)
    for result in results:
        counts[result.outcome] += 1
        say(f"{result.outcome:10}{result.name}")
        for line in result.details:
            say(f"{'':10}{line}")
    say(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    if counts["refused"]:
        raise SystemExit(1)


def add_data(command: argparse.ArgumentParser) -> None:
    text = "the data directory of a running instance, unless DATABASE_URL and the others name one"
    command.add_argument("--data", type=Path, default=Path("data"), help=text)


def add_instance_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Commands that run an instance, or prepare one."""
    command = commands.add_parser("up", help="run an instance until interrupted")
    command.add_argument("--data", type=Path, default=Path("data"), help="where everything is kept")
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=8000)
    command.set_defaults(run=run_up)

    command = commands.add_parser("demo", help="the main job once, on a stack of its own that is gone afterwards")
    command.set_defaults(run=run_demo)

    command = commands.add_parser("migrate", help="prepare the services given by URL for an instance")
    command.add_argument(
        "--token-file", type=Path, help="also make the administrator, with a token in this admin.token"
    )
    command.set_defaults(run=run_migrate)

    command = commands.add_parser("sweep", help="the reconciler's loop")
    command.set_defaults(run=run_sweep)


def add_developer_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Commands for people who change the code."""
    command = commands.add_parser("dev", help="run an instance with sample data that starts again what you change")
    command.add_argument("--data", type=Path, default=Path(".dev/data"), help="where everything is kept")
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=8000)
    command.add_argument("--without", nargs="*", default=[], choices=dev.SOURCES, help="do not start these processes")
    command.set_defaults(run=run_dev)

    command = commands.add_parser("work", help="run a queued job in this process, for a debugger")
    command.add_argument("job", type=uuid.UUID, help="the job's id; its queue decides whose turn it is")
    add_data(command)
    command.set_defaults(run=run_work)

    command = commands.add_parser("logs", help="the logs of an instance's processes as text")
    command.add_argument("name", nargs="*", help="only these processes: api, worker-gpu, sweep, postgres ...")
    command.add_argument("--data", type=Path, default=Path("data"), help="the instance's data directory")
    command.add_argument("--level", choices=logs.LEVELS, default="info", help="this and worse")
    command.add_argument("--follow", action="store_true", help="go on with new lines as they come")
    command.set_defaults(run=run_logs)

    command = commands.add_parser("psql", help="psql on an instance's database; -- and more words go to psql")
    command.add_argument("argument", nargs="*", help="for psql")
    add_data(command)
    command.set_defaults(run=run_psql)

    command = commands.add_parser("check-schema", help="check that the migrations and the models agree")
    command.add_argument("--data", type=Path, required=True, help="a scratch directory")
    command.add_argument("--revision", help="also write a migration of this name for what differs")
    command.set_defaults(run=run_check_schema)


def add_people_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Commands for users, their tokens and their adapters."""
    command = commands.add_parser("user", help="add a user; prints their first token")
    command.add_argument("name")
    command.add_argument("--admin", action="store_true")
    add_data(command)
    command.set_defaults(run=run_user)

    command = commands.add_parser("token", help="make a token; prints it")
    command.add_argument("user")
    command.add_argument("--name", default="cli")
    add_data(command)
    command.set_defaults(run=run_token)

    command = commands.add_parser("import", help="publish every adapter in a folder, or in S3, and below")
    command.add_argument(
        "folder", help="a folder, s3://BUCKET/PREFIX, or hf:NAMESPACE/NAME of the configured upstream (NAME may be *)"
    )
    command.add_argument("--user", default=supervisor.ADMIN, help="who publishes them")
    command.add_argument("--namespace", help="where they go; the user's own if left out")
    command.add_argument("--visibility", choices=VISIBILITIES)
    add_data(command)
    command.set_defaults(run=run_import)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hub", description="Loraloom: a home for a team's LoRA adapters.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_instance_commands(commands)
    add_developer_commands(commands)
    add_people_commands(commands)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except (HubError, LocalError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
