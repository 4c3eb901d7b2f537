"""`python -m bench [NAME] [--again | --kept]`: measure what is not measured yet, print the table, keep it in bench/results."""

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import harness

# Every other module of this folder is a measure: it has `cells()`.
_SHARED = {"choice_tasks", "harness", "few_shot_tasks", "large_model", "many_modules", "number_systems", "__main__"}


def measures() -> list[str]:
    return sorted(
        module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if module.name not in _SHARED
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", nargs="?", choices=measures(), help="one measure; without it, all of them")
    parser.add_argument("--again", action="store_true", help="measure again what is kept already")
    parser.add_argument("--kept", action="store_true", help="measure nothing, print what is kept")
    given = parser.parse_args(arguments)
    # Threads that spin while they wait make whatever shares the processor many times slower; read when a measure imports torch.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    machine = harness.machine()
    for name in [given.name] if given.name else measures():
        measure = importlib.import_module(f"bench.{name}")
        rows = (
            harness.kept(name, machine)
            if given.kept
            else harness.measured(name, measure.cells(), machine, again=given.again)
        )
        # A measure of many small cells says itself what they come to.
        shown = measure.summary(rows) if hasattr(measure, "summary") else harness.table(rows)
        print(f"\n{name}, on {machine}\n{shown}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
