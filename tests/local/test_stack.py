"""The embedded stack: real servers that keep their data, stop on request, and are stopped when their supervisor was killed."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import psutil
import psycopg
import pytest

from hub.local.children import LocalError
from hub.local.stack import Stack


def test_data_and_addresses_survive_a_restart(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        url = stack.start_postgres()
        stack.start_valkey()
        stack.await_servers()
        with psycopg.connect(url) as database:
            database.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        children = [process.pid for process in stack.processes.values()]
    assert not any(psutil.pid_exists(pid) for pid in children)
    with Stack(tmp_path) as stack:
        assert stack.start_postgres() == url
        stack.await_servers()
        with psycopg.connect(url) as database:
            assert database.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        url = stack.start_postgres()
        stack.start_valkey()
        stack.await_servers()
        for name in ("secrets.json", "valkey.conf"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        assert not (tmp_path / "postgres.password").exists()
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(url.replace(stack.secrets.postgres, "wrong"))


def test_a_second_supervisor_is_refused(tmp_path: Path) -> None:
    with Stack(tmp_path), pytest.raises(LocalError, match="in use by another supervisor"):
        Stack(tmp_path).__enter__()


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        stack.spawn("broken", [sys.executable, "-c", "import sys; sys.exit('the disk is on fire')"])
        with pytest.raises(LocalError, match="the disk is on fire"):
            stack.wait_until("broken", lambda: False)


def test_the_next_start_ends_what_a_killed_supervisor_left(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from hub.local.stack import Stack
        with Stack(Path(sys.argv[1])) as stack:
            stack.start_postgres()
            stack.start_valkey()
            stack.await_servers()
            print("up", flush=True)
            time.sleep(600)
        """
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert supervisor.stdout is not None
    with supervisor.stdout:
        assert supervisor.stdout.readline() == b"up\n"
    children = psutil.Process(supervisor.pid).children(recursive=True)
    assert {child.name() for child in children} >= {"postgres", "valkey-server"}
    supervisor.send_signal(signal.SIGKILL)
    supervisor.wait()
    assert any(child.is_running() for child in children)
    with Stack(tmp_path) as stack:
        _, alive = psutil.wait_procs(children, timeout=5)
        assert not alive
        stack.start_postgres()
        stack.await_servers()


def test_a_process_that_only_has_an_old_number_is_left_alone(tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        started = psutil.Process(bystander.pid).create_time() - 3600
        (tmp_path / "children.json").write_text(f'[{{"name": "api", "pid": {bystander.pid}, "started": {started}}}]')
        with Stack(tmp_path):
            time.sleep(0.2)
            assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs PostgreSQL to run as somebody else")
def test_root_without_user_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `unshare` is not to be had, the programs are copied and run as nobody; no permission outside changes."""
    bin_without_unshare = tmp_path / "bin"
    bin_without_unshare.mkdir()
    for program in ("setpriv", "true"):
        (bin_without_unshare / program).symlink_to(f"/usr/bin/{program}")
    monkeypatch.setenv("PATH", str(bin_without_unshare))
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder) / "data") as stack:
        Path(folder).chmod(0o755)  # as the folders of pytest, it is private to root
        url = stack.start_postgres()
        stack.await_servers()
        assert psutil.Process(stack.processes["postgres"].pid).username() == "nobody"
        with psycopg.connect(url) as database:
            assert database.execute("SELECT 1").fetchone() == (1,)
