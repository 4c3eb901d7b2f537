"""Logs are JSON lines; `python -m hub logs` shows those of all processes as one text, in the order of time."""

import json
from pathlib import Path

import pytest

from hub import logs
from hub.cli import main

LINES: dict[str, list[dict[str, object]]] = {
    "api": [
        {"at": "2026-11-28T10:00:01.000+00:00", "level": "info", "logger": "api", "event": "ready", "port": 8000},
        {
            "at": "2026-11-28T10:00:03.000+00:00",
            "level": "error",
            "logger": "api",
            "event": "failed",
            "traceback": "a\nb",
        },
    ],
    "worker-gpu": [
        {
            "at": "2026-11-28T10:00:02.000+00:00",
            "level": "warning",
            "logger": "w",
            "event": "job failed",
            "job_id": "7",
        },
    ],
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    for name, lines in LINES.items():
        (tmp_path / "logs" / f"{name}.log").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_all_processes_in_the_order_of_time(data: Path) -> None:
    assert list(logs.read(data)) == [
        "10:00:01.000 info     api                  ready  port=8000",
        "10:00:02.000 warning  worker-gpu           job failed  job_id=7",
        "10:00:03.000 error    api                  failed",
        "10:00:03.000 error    api                    a",
        "10:00:03.000 error    api                    b",
    ]


def test_one_process_and_only_what_is_bad(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "api", "--data", str(data), "--level", "warning"]) == 0
    assert [line.split()[3] for line in capsys.readouterr().out.splitlines()] == ["failed", "a", "b"]


def test_text_that_is_no_json_is_shown_where_it_stands(data: Path) -> None:
    with (data / "logs" / "worker-gpu.log").open("a") as log:
        log.write("Segmentation fault\n")
    assert list(logs.read(data, ["worker-gpu"]))[-1] == "10:00:02.000 warning  worker-gpu           Segmentation fault"
