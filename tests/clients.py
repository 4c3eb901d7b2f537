"""`make test-clients`: the tests of stock clients, run by versions of huggingface_hub from 0.36 on, each in an environment of its own.

Each version comes with the oldest hf_xet that it allows and with the newest. Environments are kept in .venv/clients, as is each one's log.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

NEWEST_XET = "1.8.0"
MATRIX = [  # huggingface_hub, hf_xet
    ("0.36.2", "1.1.3"),
    ("0.36.2", NEWEST_XET),
    ("1.19.0", "1.5.1"),
    ("1.19.0", NEWEST_XET),
    ("1.33.0", "1.6.0"),
    ("1.33.0", NEWEST_XET),
    ("2.4.0", "1.6.0"),
    ("2.4.0", NEWEST_XET),
]
FOLDER = Path(sys.prefix) / "clients"
TESTS = ["tests/api/huggingface/test_clients.py", "tests/api/huggingface/test_xet_clients.py"]


def environment(hub: str, xet: str) -> Path:
    """The Python of an environment with these two and what they require."""
    folder = FOLDER / f"{hub}-{xet}"
    python, done = folder / "bin/python", folder / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        packages = [f"huggingface_hub=={hub}", f"hf-xet=={xet}"]
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *packages]
        subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
        done.touch()
    return python


def run(hub: str, xet: str, arguments: Sequence[str]) -> tuple[int, str]:
    """pytest's exit status and last line."""
    python = environment(hub, xet)
    log = FOLDER / f"{hub}-{xet}.log"
    with log.open("w", encoding="utf-8") as out:
        argv = [sys.executable, "-m", "pytest", *TESTS, *arguments]
        env = {**os.environ, "CLIENT_PYTHON": str(python)}
        status = subprocess.run(argv, env=env, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    last = log.read_text(encoding="utf-8").strip().splitlines()[-1]
    return status, re.sub(r"^=+ | =+$", "", last) + (f"; see {log}" if status else "")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    parser.add_argument("--only", default="", help="the versions that begin with this, such as 1. or 2.4.0-1.6")
    given, rest = parser.parse_known_args(arguments)
    failed = 0
    for hub, xet in MATRIX:
        if f"{hub}-{xet}".startswith(given.only):
            started = time.monotonic()
            status, said = run(hub, xet, rest)
            failed += status != 0
            print(f"huggingface_hub {hub:7} hf_xet {xet:6} {time.monotonic() - started:5.0f} s  {said}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
