"""A stack that stays up when the program that started it ends, so that the next test run finds its servers there.

`python -m hub.local.warm FOLDER` is the process that has the servers as children. It starts with empty servers, because what killed test
runs left there is of no use, and ends at SIGTERM or when a server ends. They answer as in FOLDER/warm.json, for its owner only.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from hub.local.children import LocalError
from hub.local.files import write_private
from hub.local.stack import Stack

START_SECONDS = 60.0
STOP_SECONDS = 20.0
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class WarmStack:
    """Where the servers answer, and the process that has them."""

    pid: int
    started: float
    database_url: str
    broker_url: str
    s3_endpoint_url: str
    aws_access_key_id: str
    aws_secret_access_key: str


def find(folder: Path) -> WarmStack | None:
    """The stack that runs on a folder, if one does."""
    try:
        stack = WarmStack(**json.loads((folder / "warm.json").read_text()))
        alive = abs(psutil.Process(stack.pid).create_time() - stack.started) < 1
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None
    return stack if alive else None


def find_or_start(folder: Path) -> WarmStack:
    """The stack that runs on a folder, started if none does. Raises LocalError with the end of its log if it does not start."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs that begin at once start one stack
        return find(folder) or start(folder)


def start(folder: Path) -> WarmStack:
    log_file = folder / "warm.log"
    with log_file.open("wb") as log:
        argv = [sys.executable, "-m", "hub.local.warm", str(folder)]
        process = subprocess.Popen(
            argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + START_SECONDS
    while (stack := find(folder)) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise LocalError(f"The warm stack did not start; its log {log_file}:\n{log_file.read_text()}")
        time.sleep(0.02)
    # It shall live on when we end, and is no child that we forgot to wait for.
    process.returncode = 0
    return stack


def stop(folder: Path) -> bool:
    """End the stack that runs on a folder and remove its data. False if none runs."""
    stack = find(folder)
    if stack is not None:
        process = psutil.Process(stack.pid)
        process.terminate()
        process.wait(STOP_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)
    return stack is not None


def serve(folder: Path) -> None:
    """Run the servers until SIGTERM, SIGINT, or until one of them ends."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with Stack(folder, durable=False) as stack:
        for server in ("postgres", "valkey", "s3"):
            shutil.rmtree(stack.data / server, ignore_errors=True)
        database_url, broker_url, s3_endpoint_url = stack.start_postgres(), stack.start_valkey(), stack.start_s3()
        stack.await_servers()
        warm = WarmStack(
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            database_url=database_url,
            broker_url=broker_url,
            s3_endpoint_url=s3_endpoint_url,
            aws_access_key_id=stack.secrets.s3_key,
            aws_secret_access_key=stack.secrets.s3_secret,
        )
        write_private(stack.data / "warm.json", json.dumps(asdict(warm)))
        while not stopping.wait(1.0) and not stack.ended():
            pass
        (stack.data / "warm.json").unlink(missing_ok=True)


if __name__ == "__main__":
    if sys.argv[1] == "--stop":
        stop(Path(sys.argv[2]))
    else:
        serve(Path(sys.argv[1]))
