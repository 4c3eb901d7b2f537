"""What all measures share: cells that are computed once and kept, fair timing, the table, and what the machine is called."""

import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Literal

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Cell:
    """One figure to measure: `run()` gives (ours, the peer's), or (ours, None) where a figure alone is wanted.

    `better` says which way is good, `target` how many times better than the peer ours shall be.
    """

    measure: str
    unit: str
    run: Callable[[], tuple[float, float | None]]
    peer_name: str | None = None
    target: float | None = None
    better: Literal["lower", "higher"] = "lower"


@dataclass(frozen=True)
class Row:
    """A measured cell as it is kept. `ratio` is how many times better than the peer ours is, whichever way is good."""

    measure: str
    unit: str
    ours: float
    peer: float | None
    peer_name: str | None
    ratio: float | None
    target: float | None
    command: str
    machine: str
    date: str


def measured(
    name: str, cells: Sequence[Cell], machine: str, folder: Path = RESULTS, *, again: bool = False
) -> list[Row]:
    """The rows of measure `name` on this machine, kept in `folder`/NAME.json beside those of other machines.

    A cell that is kept already is not computed again, unless `again`. Each one is kept as soon as it is finished.
    """
    file = folder / f"{name}.json"
    rows = {(row.measure, row.peer_name, row.machine): row for row in _read(file)}
    for cell in cells:
        key = (cell.measure, cell.peer_name, machine)
        if again or key not in rows:
            print(f"measuring {cell.measure} beside {cell.peer_name or 'nothing'} ...", flush=True)
            rows[key] = _row(cell, f"python -m bench {name}", machine)
            _write(file, list(rows.values()))
    return [rows[cell.measure, cell.peer_name, machine] for cell in cells]


def kept(name: str, machine: str, folder: Path = RESULTS) -> list[Row]:
    """The rows of measure `name` that were measured on this machine so far."""
    return [row for row in _read(folder / f"{name}.json") if row.machine == machine]


def _read(file: Path) -> list[Row]:
    return [Row(**row) for row in json.loads(file.read_text(encoding="utf-8"))] if file.exists() else []


def _row(cell: Cell, command: str, machine: str) -> Row:
    ours, peer = cell.run()
    ratio = None
    if peer is not None:
        ratio = peer / ours if cell.better == "lower" else ours / peer
    return Row(
        measure=cell.measure,
        unit=cell.unit,
        ours=ours,
        peer=peer,
        peer_name=cell.peer_name,
        ratio=ratio,
        target=cell.target,
        command=command,
        machine=machine,
        date=datetime.now(UTC).date().isoformat(),
    )


def _write(file: Path, rows: Sequence[Row]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place and moved there whole, so that an interruption leaves the finished cells and never half a file.
    with tempfile.NamedTemporaryFile("w", dir=file.parent, suffix=".part", delete=False, encoding="utf-8") as fresh:
        json.dump([asdict(row) for row in rows], fresh, indent=1)
        fresh.write("\n")
    Path(fresh.name).chmod(0o644)
    Path(fresh.name).replace(file)


def alternating(contestants: Sequence[Callable[[], object]], *, repeats: int, warm_up: int = 1) -> list[float]:
    """Median seconds of each, measured in turns, so that whatever else slows the machine slows all of them."""
    seconds: list[list[float]] = [[] for _ in contestants]
    for turn in range(warm_up + repeats):
        for contestant, times in zip(contestants, seconds, strict=True):
            started = time.perf_counter()
            contestant()
            elapsed = time.perf_counter() - started
            if turn >= warm_up:
                times.append(elapsed)
    return [median(times) for times in seconds]


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text; the last column says whether the target is met."""
    header = ("measure", "ours", "peer", "", "times better", "target")
    lines = [header, *(_line(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _line(row: Row) -> tuple[str, ...]:
    peer = "" if row.peer is None else f"{row.peer:.4g} {row.unit}"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    target = ""
    if row.target is not None and row.ratio is not None:
        target = f"{row.target:g} {'met' if row.ratio >= row.target else 'MISSED'}"
    return (row.measure, f"{row.ours:.4g} {row.unit}", peer, row.peer_name or "", ratio, target)


def machine() -> str:
    """Processor, cores and graphics card, so that figures of different machines are not mixed; no host name."""
    return ", ".join([_processor(), f"{os.cpu_count()} cores", *_cards()])


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _cards() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
