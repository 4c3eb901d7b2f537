"""The stack of `make t`: found again by the next run, migrated anew when the schema changes, gone after `make stop`."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from hub.local import warm
from hub.local.warm import WarmStack
from hub.registry.platform.storage import Storage
from tests import warm_stack


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("warm") / "stack"
    yield folder
    warm.stop(folder)


@pytest.fixture(scope="module")
def stack(folder: Path) -> WarmStack:
    return warm.find_or_start(folder)


def databases(stack: WarmStack) -> set[str]:
    with psycopg.connect(stack.database_url) as server:
        return {str(row[0]) for row in server.execute("SELECT datname FROM pg_database")}


def test_the_next_run_finds_it(stack: WarmStack, folder: Path) -> None:
    assert warm.find_or_start(folder) == stack
    assert psutil.Process(stack.pid).is_running()
    assert (folder / "warm.json").stat().st_mode & 0o777 == 0o600


def test_a_run_has_a_database_and_a_bucket_that_are_gone_afterwards(stack: WarmStack, folder: Path) -> None:
    with warm_stack.scratch(folder, "loraloom-test-one") as settings:
        assert "loraloom_test_one" in databases(stack)
        Storage(settings).ping()
    assert "loraloom_test_one" not in databases(stack)
    assert {name for name in databases(stack) if "schema" in name} == {warm_stack.PREFIX + warm_stack.schema_hash()}


def test_a_change_of_the_schema_is_noticed(stack: WarmStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warm_stack.migrated(stack.database_url)
    before = warm_stack.schema_hash()
    for source in warm_stack.SCHEMA_SOURCES:
        (tmp_path / source).mkdir(parents=True)
    (tmp_path / "migrations" / "0099_more.py").write_text("")
    monkeypatch.setattr(warm_stack, "ROOT", tmp_path)
    assert warm_stack.schema_hash() != before
    warm_stack.migrated(stack.database_url)
    assert {name for name in databases(stack) if "schema" in name} == {warm_stack.PREFIX + warm_stack.schema_hash()}


def test_stopping_ends_every_process_and_removes_the_data(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    stack = warm.find_or_start(folder)
    processes = [psutil.Process(stack.pid), *psutil.Process(stack.pid).children(recursive=True)]
    assert {process.name() for process in processes} >= {"postgres", "valkey-server", "weed"}
    assert warm.stop(folder)
    assert not [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not folder.exists()
    assert not warm.stop(folder)
