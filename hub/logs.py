"""`python -m hub logs`: the logs of an instance's processes, which are JSON lines, as text for people."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

LEVELS = ("debug", "info", "warning", "error", "critical")
STANDARD = ("at", "level", "logger", "event", "traceback")
POLL_SECONDS = 0.3


@dataclass(frozen=True)
class Line:
    """A line of a log. Text that is not JSON, such as a traceback of the interpreter, has the time of the line before it."""

    at: str
    process: str
    level: str
    text: str


def read(data: Path, names: Iterable[str] = (), level: str = "info", *, follow: bool = False) -> Iterator[str]:
    """Lines of all processes, or of the named ones, in the order of their times; then, with `follow`, new ones as they come."""
    wanted = LEVELS[LEVELS.index(level) :]
    names = set(names)
    files: dict[str, IO[str]] = {}
    while True:
        for path in sorted((data / "logs").glob("*.log")):
            if path.stem not in files and (not names or path.stem in names):
                files[path.stem] = path.open(errors="replace")
        lines = [line for process, file in files.items() for line in parse(process, file)]
        yield from (show(line) for line in sorted(lines, key=lambda line: line.at) if line.level in wanted)
        if not follow:
            break
        time.sleep(POLL_SECONDS)
    for file in files.values():
        file.close()


def parse(process: str, lines: Iterable[str]) -> Iterator[Line]:
    at, level = "", "info"
    for text in lines:
        try:
            entry = json.loads(text)
            at, level = entry["at"], entry["level"]
        except (ValueError, TypeError, KeyError):
            yield Line(at, process, level, text.rstrip())
            continue
        fields = [f"{key}={value}" for key, value in entry.items() if key not in STANDARD]
        yield Line(at, process, level, "  ".join([entry["event"], *fields]))
        for row in entry.get("traceback", "").splitlines():
            yield Line(at, process, level, f"  {row}")


def show(line: Line) -> str:
    return f"{line.at[11:23]:12} {line.level:8} {line.process:20} {line.text}"
