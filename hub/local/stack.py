"""The embedded stack: real PostgreSQL, Valkey and SeaweedFS from their wheels, run as ordinary child processes.

Everything lies under one data directory and listens on loopback only. The passwords are made at the first start and kept in a file that
only its owner can read. Nothing outside the data directory is changed. docs/decisions/0004-real-servers-from-wheels.md says why.
"""

import fcntl
import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Self

from hub.local import postgres, seaweedfs, valkey
from hub.local.addresses import accepts, answers, free_ports, is_free
from hub.local.children import Children, LocalError, end_leftovers
from hub.local.files import write_private


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


class Stack(Children):
    """Owns a data directory and the processes started on it. Use as a context manager: leaving it stops them all.

    With `durable=False` PostgreSQL does not wait for the disk, for data that nobody misses after a power cut.
    """

    def __init__(self, data: Path, *, durable: bool = True) -> None:
        super().__init__(data)
        self.durable = durable
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
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
            fresh = Secrets(*(secrets.token_urlsafe(24) for _ in range(4)))
            write_private(path, json.dumps(asdict(fresh)))
        return Secrets(**json.loads(path.read_text()))

    @cached_property
    def ports(self) -> Ports:
        """The ports of the last start where they are still free, so that addresses that people noted go on working."""
        path = self.data / "ports.json"
        if path.exists():
            ports = Ports(**json.loads(path.read_text()))
            if all(is_free(port) for port in asdict(ports).values()):
                return ports
        ports = Ports(*free_ports(6))
        path.write_text(json.dumps(asdict(ports)))
        return ports

    # Each of the next three methods starts its server and returns at once; `await_servers` waits for all of them.

    def start_postgres(self) -> str:
        """Start PostgreSQL; returns the URL of its maintenance database."""
        argv = postgres.command(self.data, self.ports.postgres, self.secrets.postgres, durable=self.durable)
        self.spawn("postgres", argv, cwd=self.data)
        return self.postgres_url

    @property
    def postgres_url(self) -> str:
        return postgres.url(self.ports.postgres, self.secrets.postgres)

    def start_valkey(self) -> str:
        """Start Valkey; returns its URL."""
        port, password = self.ports.valkey, self.secrets.valkey
        self.spawn("valkey", valkey.command(self.data, port, password), cwd=self.data)
        return f"redis://:{password}@127.0.0.1:{port}/0"

    def start_s3(self) -> str:
        """Start SeaweedFS with its S3 gateway; returns its address."""
        folder = self.data / "s3"
        folder.mkdir(exist_ok=True)
        ports = self.ports
        argv = seaweedfs.command(
            folder, s3=ports.s3, master=ports.weed_master, volume=ports.weed_volume, filer=ports.weed_filer
        )
        env = seaweedfs.environment(self.secrets.s3_key, self.secrets.s3_secret)
        self.spawn("s3", argv, env=env, cwd=folder)
        return f"http://127.0.0.1:{ports.s3}"

    def await_servers(self) -> None:
        """Wait until every server that was started accepts connections."""
        ports = self.ports
        checks: dict[str, Callable[[], bool]] = {
            "postgres": lambda: postgres.accepts_sessions(self.postgres_url),
            "valkey": lambda: accepts(ports.valkey),
            "s3": lambda: answers(f"http://127.0.0.1:{ports.s3}/healthz"),
        }
        for name, ready in checks.items():
            if name in self.processes:
                self.wait_until(name, ready)
