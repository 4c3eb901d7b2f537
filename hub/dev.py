"""`python -m hub dev`: an instance for whoever changes the code. A process starts again when a file that it uses changes."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hub import supervisor
from hub.local.stack import Stack
from hub.registry.platform.services import connect
from hub.starter import sample
from hub.supervisor import ROOT, Instance

Say = Callable[[str], None]

# What each process is made of. A change of a page restarts no worker.
SOURCES = {
    "api": ("api", "hub"),
    "worker": ("workers", "hub/lora", "hub/registry", "hub/formats", "hub/vocabulary.py"),
    "sweep": ("hub/registry", "hub/vocabulary.py"),
}
SUFFIXES = {".py", ".html", ".css", ".js", ".svg", ".j2"}
POLL_SECONDS = 0.5


def commands(host: str, port: int) -> dict[str, list[str]]:
    """Those of `hub up`, but with one worker for both queues, which starts in half the time of two."""
    own = supervisor.commands(host, port)
    worker = [*own["worker-gpu"][: own["worker-gpu"].index("--queues")], "--queues", "gpu,interactive"]
    return {"api": own["api"], "worker": worker, "sweep": own["sweep"]}


def serve(data: Path, host: str, port: int, say: Say, *, without: Sequence[str] = ()) -> None:
    """Serve until interrupted, without some of the processes if you run them yourself."""
    processes = {name: argv for name, argv in commands(host, port).items() if name not in without}
    with (
        supervisor.interruptible(),
        supervisor.instance(data, host, port, say, processes=processes) as (stack, running),
    ):
        say(f"ready at {running.url} (data in {stack.data}; logs: python -m hub logs --data {data})")
        reloader = Reloader(stack, say)
        filled = False
        while True:
            reloader.look()
            if (code := stack.ended().get("seed")) is not None:
                supervisor.report_seed(stack, code, say)
            if not filled and "seed" not in stack.processes:
                fill(stack, data, running, say)
                filled = True
            time.sleep(POLL_SECONDS)


def fill(stack: Stack, data: Path, running: Instance, say: Say) -> None:
    services = connect(supervisor.settings_of(data))
    tokens = sample.fill(services, stack.data)
    services.close()
    tokens = {supervisor.ADMIN: running.token_file.read_text().strip(), **tokens}
    roles = {
        supervisor.ADMIN: "administrator",
        **{name: f"{role} in {sample.TEAM}" for name, role in sample.MEMBERS.items()},
    }
    say(f"sign in at {running.url}/login with one of these tokens:")
    for name, token in tokens.items():
        say(f"  {name:6} {roles.get(name, 'in no team'):18} {token}")


class Reloader:
    """Starts a process again when what it is made of changes. One that ends by itself waits for the next change."""

    def __init__(self, stack: Stack, say: Say) -> None:
        self.stack, self.say = stack, say
        self.sources = {name: paths for name, paths in SOURCES.items() if name in stack.processes}
        self.seen = {name: stamps(paths) for name, paths in self.sources.items()}
        self.ended: set[str] = set()

    def look(self) -> None:
        for name, paths in self.sources.items():
            now = stamps(paths)
            if now != self.seen[name]:
                changed = sorted(str(path) for path, _ in now.items() ^ self.seen[name].items())
                self.say(f"{changed[0]} changed: starting {name} again")
                self.seen[name] = now
                self.ended.discard(name)
                self.stack.restart(name)
        for name, code in self.stack.ended().items():
            if name in self.sources and name not in self.ended:
                self.ended.add(name)
                self.say(f"{name} ended ({code}) and starts again at the next change:\n{self.stack.log_tail(name)}")


def stamps(paths: tuple[str, ...]) -> dict[Path, int]:
    """The time of the last change of every source file."""
    files = [
        file for path in paths for file in ([ROOT / path] if (ROOT / path).is_file() else (ROOT / path).rglob("*"))
    ]
    found = {}
    for file in files:
        if file.suffix in SUFFIXES and (status := stat(file)):
            found[file.relative_to(ROOT)] = status
    return found


def stat(file: Path) -> int | None:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:  # an editor is just replacing it
        return None
