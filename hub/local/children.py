"""Child processes of a supervisor, kept in a list on disk so that the next supervisor ends what a killed one left behind."""

import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import psutil

log = logging.getLogger(__name__)

START_SECONDS = 30.0
# How each server is asked to stop: SIGINT is PostgreSQL's fast shutdown, which does not wait for clients.
SERVERS = {"postgres": signal.SIGINT, "valkey": signal.SIGTERM, "s3": signal.SIGTERM}


class LocalError(Exception):
    """A server did not start, or another supervisor has the data directory. The message says which and what to do."""


@dataclass(frozen=True)
class Child:
    """A process of ours, told apart from a later one of the same number by its start time."""

    name: str
    pid: int
    started: float


class Children:
    """The processes that were started on a data directory, by name. They log to its folder `logs`."""

    def __init__(self, data: Path) -> None:
        self.data = data.resolve()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._again: dict[str, Callable[[], None]] = {}

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
        """Start a child again with the same command. One that still runs is killed."""
        end_group(self.processes[name].pid)  # what it had forked may still hold its port
        self.processes[name].wait()
        self._again[name]()

    def forget(self, name: str) -> None:
        """Drop a child that has ended and need not run again."""
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


def end_leftovers(data: Path) -> None:
    """End the children of a supervisor that was killed: those still running that are really the ones it started.

    Our own processes may be killed at any moment, so they are. Servers are asked, all at once, and keep their data.
    """
    path = data / "children.json"
    if not path.exists():
        return
    children = [Child(**row) for row in json.loads(path.read_text())]
    processes, groups = [], []
    for child in children:
        try:
            process = psutil.Process(child.pid)
            if abs(process.create_time() - child.started) > 1:
                continue  # a stranger that has the number now
            log.info("ending what an earlier supervisor left", extra={"child": child.name, "pid": child.pid})
            process.send_signal(SERVERS.get(child.name, signal.SIGKILL))
            processes.append(process)
        except psutil.NoSuchProcess:
            pass  # what it had forked may still be there
        groups.append(child.pid)
    psutil.wait_procs(processes, timeout=8)
    for group in groups:
        end_group(group)
    path.unlink()


def end_group(pid: int) -> None:
    """Kill whatever is left of a child's session, e.g. the forked half of a worker."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
