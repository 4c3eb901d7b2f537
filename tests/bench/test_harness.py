"""bench.harness: cells are kept and resumed, ratios point the right way, the table says what is met."""

import json
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from bench import __main__ as command
from bench.harness import Cell, Row, alternating, machine, measured, table

BOX = "a machine"


class Interrupted(Exception):
    pass


def counted(calls: list[str], name: str, ours: float, peer: float | None) -> Callable[[], tuple[float, float | None]]:
    def run() -> tuple[float, float | None]:
        calls.append(name)
        return ours, peer

    return run


def interrupting() -> tuple[float, float | None]:
    raise Interrupted


def test_finished_cells_survive_an_interruption_and_are_not_measured_again(tmp_path: Path) -> None:
    calls: list[str] = []
    first = Cell("first", "s", counted(calls, "first", 2.0, 6.0), "peer 1", 2.0)
    with pytest.raises(Interrupted):
        measured("thing", [first, Cell("second", "s", interrupting)], BOX, tmp_path)
    assert [row["measure"] for row in json.loads((tmp_path / "thing.json").read_text())] == ["first"]
    second = Cell("second", "s", counted(calls, "second", 5.0, None))
    rows = measured("thing", [first, second], BOX, tmp_path)
    assert calls == ["first", "second"]
    assert [(row.ours, row.peer, row.ratio) for row in rows] == [(2.0, 6.0, 3.0), (5.0, None, None)]
    assert measured("thing", [first, second], BOX, tmp_path) == rows
    assert calls == ["first", "second"]
    measured("thing", [first, second], BOX, tmp_path, again=True)
    assert calls == ["first", "second"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["thing.json"]


def test_peers_and_machines_have_rows_of_their_own(tmp_path: Path) -> None:
    calls: list[str] = []
    cells = [Cell("same", "s", counted(calls, peer, 1.0, 2.0), peer) for peer in ("one", "other")]
    measured("thing", cells, BOX, tmp_path)
    elsewhere = measured("thing", cells[:1], "another machine", tmp_path)
    assert calls == ["one", "other", "one"]
    assert [row.machine for row in elsewhere] == ["another machine"]
    kept = json.loads((tmp_path / "thing.json").read_text())
    assert [(row["peer_name"], row["machine"]) for row in kept] == [
        ("one", BOX),
        ("other", BOX),
        ("one", "another machine"),
    ]


def test_the_file_has_the_fields_that_readers_rely_on(tmp_path: Path) -> None:
    measured("thing", [Cell("speed", "tok/s", lambda: (30.0, 10.0), "peer", 2.5, better="higher")], BOX, tmp_path)
    (row,) = json.loads((tmp_path / "thing.json").read_text())
    assert list(row) == [
        "measure",
        "unit",
        "ours",
        "peer",
        "peer_name",
        "ratio",
        "target",
        "command",
        "machine",
        "date",
    ]
    assert (row["ratio"], row["target"]) == (3.0, 2.5), "more is better here, so ours over the peer's"
    assert row["command"] == "python -m bench thing"
    assert len(row["date"]) == len("2026-01-31")


def test_the_table_says_which_targets_are_met() -> None:
    def row(measure: str, ratio: float | None, target: float | None) -> Row:
        peer = None if ratio is None else ratio
        return Row(measure, "s", 1.0, peer, "peer" if ratio else None, ratio, target, "", BOX, "2026-01-31")

    lines = table([row("fast", 2.5, 2.0), row("slow", 1.99, 2.0), row("alone", None, None)]).splitlines()
    assert len(lines) == 4
    assert lines[1].split() == ["fast", "1", "s", "2.5", "s", "peer", "2.50", "2", "met"]
    assert lines[2].split() == ["slow", "1", "s", "1.99", "s", "peer", "1.99", "2", "MISSED"]
    assert lines[3].split() == ["alone", "1", "s"]


def test_alternating_takes_turns_and_gives_medians() -> None:
    order: list[str] = []

    def contestant(name: str, pauses: list[float]) -> Callable[[], None]:
        waits = iter(pauses)

        def run() -> None:
            order.append(name)
            time.sleep(next(waits))

        return run

    # The first turn only warms up, and one slow turn does not move a median.
    seconds = alternating(
        [contestant("a", [0.3, 0.01, 0.3, 0.01]), contestant("b", [0.0, 0.05, 0.05, 0.05])], repeats=3
    )
    assert order == ["a", "b"] * 4
    assert 0.01 <= seconds[0] < 0.05 <= seconds[1] < 0.3


def test_kept_results_are_whole_and_name_no_machine_by_its_host() -> None:
    results = sorted((Path(command.__file__).parent / "results").glob("*.json"))
    # NAME.json is a table; what a table was made from may lie beside it as NAME-something.json.
    assert {file.stem.partition("-")[0] for file in results} <= set(command.measures())
    names = {field.name for field in fields(Row)}
    for file in results:
        if "-" in file.stem:
            continue
        for row in json.loads(file.read_text()):
            assert row.keys() == names
            assert (row["peer"] is None) == (row["ratio"] is None) == (row["peer_name"] is None)
            assert "/" not in row["machine"]


def test_the_machine_is_described_the_same_every_time() -> None:
    assert machine() == machine()
    assert " cores" in machine()


def test_measures_are_found_and_unknown_ones_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "compose" in command.measures()
    assert not {"harness", "__main__"} & set(command.measures())
    with pytest.raises(SystemExit):
        command.main(["no-such-measure"])
    assert "compose" in capsys.readouterr().err
