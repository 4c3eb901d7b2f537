"""Stock huggingface_hub with hf_xet, whose requests two servers of the instance answer in turn."""

import hashlib
import random
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from starlette.types import Message, Receive, Scope, Send

from api.app import create_app
from hub.registry.content import xet
from hub.registry.platform.services import Services, connect
from tests.api.huggingface.conftest import CLIENT_VERSION, XET_VERSION, RunClient, StartClient
from tests.support.files import safetensors
from tests.support.serving import serving

pytestmark = pytest.mark.skipif(CLIENT_VERSION < (1, 20), reason="this client sends by Xet only if it is told to")

MIB = 1 << 20


@pytest.fixture
def transport() -> str:
    return "xet"


class Turns:
    """One request to the first server, the next to the second. Keeps what was asked."""

    def __init__(self, services: Services, other: Services) -> None:
        self.apps = (create_app(services), create_app(other))
        self.asked: list[tuple[str, int]] = []  # path, bytes announced
        self.answered: list[tuple[str, int]] = []  # path, status
        self._number = count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            length = dict(scope["headers"]).get(b"content-length", b"0")
            self.asked.append((scope["path"], int(length)))

        async def watched(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                self.answered.append((scope["path"], message["status"]))

        await self.apps[next(self._number) % 2](scope, receive, watched)

    def xorbs(self) -> list[int]:
        return [size for path, size in self.asked if "/v1/xorbs/" in path]


@pytest.fixture
def turns(services: Services) -> Iterator[Turns]:
    other = connect(services.settings)
    yield Turns(services, other)
    other.close()


@pytest.fixture
def hub_url(turns: Turns) -> Iterator[str]:
    with serving(turns) as url:
        yield url


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def mixed() -> dict[str, bytes]:
    weights = np.random.default_rng(0).normal(size=(512, 8_192)).astype(np.float16)
    full = (weights[:128] / 50).astype(np.float32)  # worth packing byte by byte
    large = noise(70 * MIB, 1)  # more than one xorb
    return {
        "empty.bin": b"",
        "one.bin": b"1",
        "odd.bin": noise(100_003, 2),
        "sub folder/ünïcode ☃ & #1.npz": noise(3 * MIB + 1, 3),
        "model.safetensors": safetensors({"weight": (weights.shape, weights.tobytes())}, dtype="F16"),
        "again.safetensors": safetensors({"weight": (weights.shape, weights[::-1].tobytes())}, dtype="F16"),
        "full.safetensors": safetensors({"weight": (full.shape, full.tobytes())}),
        "zeros.bin": bytes(9 * MIB),
        "large.bin": large,
        "small.txt": b"text",
    }


UPLOAD = """
    from huggingface_hub import HfApi
    api = HfApi()
    api.create_repo("ann/{0}", exist_ok=True)
    print(api.upload_folder(repo_id="ann/{0}", folder_path="folder").oid)
"""


def write(folder: Path, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def schemes(services: Services) -> set[int]:
    """How the chunks of the xorbs in storage are packed: the fifth byte of each one's header."""
    found = set()
    for key in services.storage.keys(xet.XORBS):
        if "." not in key.rsplit("/", 1)[1]:
            index = xet.Index.from_bytes(b"".join(services.storage.stream_key(key)))
            data = b"".join(services.storage.stream_key(index.key))
            found |= {data[start + 4] for start in [0, *index.packed_ends[:-1]]}
    return found


def test_a_folder_of_all_kinds_goes_up_and_comes_down(
    run_client: RunClient, services: Services, turns: Turns, tmp_path: Path
) -> None:
    files = mixed()
    write(tmp_path / "folder", files)
    run_client(UPLOAD.format("first"))
    assert 80 * MIB < sum(turns.xorbs()) < 100 * MIB  # the zeros are one chunk
    assert len(turns.xorbs()) > 1
    assert schemes(services) == {0, 1, 2}
    assert not [path for path, _ in turns.asked if "/info/lfs/" in path]
    run_client("""
        from huggingface_hub import snapshot_download
        snapshot_download("ann/first", local_dir="down")
    """)
    for path, data in files.items():
        assert hashlib.sha256((tmp_path / "down" / path).read_bytes()).digest() == hashlib.sha256(data).digest(), path
    # Into another repo, with a file that is nearly one of those that were sent.
    turns.asked.clear()
    nearly = files["large.bin"][: 30 * MIB] + b"something else" + files["large.bin"][30 * MIB :]
    write(tmp_path / "folder", {"nearly.bin": nearly})
    run_client(UPLOAD.format("second"))
    assert 0 < sum(turns.xorbs()) < MIB
    run_client("""
        from huggingface_hub import hf_hub_download
        hf_hub_download("ann/second", "nearly.bin", local_dir="down")
    """)
    assert (tmp_path / "down/nearly.bin").read_bytes() == nearly


# Only since 1.8 hf_xet asks before it sends a xorb.
ASKS = pytest.mark.skipif(XET_VERSION < (1, 8), reason="this hf_xet sends what it does not know to be there")


@ASKS
def test_another_machine_sends_no_xorb_that_is_there(run_client: RunClient, turns: Turns, tmp_path: Path) -> None:
    write(tmp_path / "folder", {"large.bin": noise(70 * MIB, 1)})
    run_client(UPLOAD.format("first"))
    turns.asked.clear()
    run_client(UPLOAD.format("second"), home="elsewhere")
    assert turns.xorbs() == []
    assert "/api/models/ann/second/commit/main" in [path for path, _ in turns.asked]


@ASKS
def test_an_upload_goes_on_where_it_was_killed(
    start_client: StartClient, run_client: RunClient, turns: Turns, tmp_path: Path
) -> None:
    data = noise(200 * MIB, 5)
    write(tmp_path / "folder", {"large.bin": data})
    with start_client(UPLOAD.format("first")) as process:
        while sum("/v1/xorbs/" in path for path, _ in turns.answered) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    turns.asked.clear()
    run_client(UPLOAD.format("first"))
    assert sum(turns.xorbs()) < len(data) - 100 * MIB  # two xorbs were acknowledged
    run_client("""
        from huggingface_hub import hf_hub_download
        hf_hub_download("ann/first", "large.bin", local_dir="down")
    """)
    assert (tmp_path / "down/large.bin").read_bytes() == data
