"""Transfer: files by stock huggingface_hub beside boto3 and plain HTTP on the same servers, the request every client repeats, long lists.

A 200 MB adapter of float16 noise, new for each turn, as what a namespace holds already is not sent. Each client is a process of its own;
what is timed is one library call after import, with the file's SHA-256, which the client computes when a commit is described, computed
before. What hf_xet hashes while it sends is in its time. Our figure and the peer's are measured in turns. Everything runs on one
machine: client, API, S3 server and load generator share its cores.
"""

import atexit
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import boto3
import httpx2 as httpx
import numpy as np
import psutil
from fastapi import FastAPI, Response
from huggingface_hub import __version__ as hub_version
from safetensors.numpy import save_file
from sqlalchemy import select

from bench.harness import Cell
from hub import supervisor
from hub.local.addresses import free_ports
from hub.local.stack import Stack
from hub.registry.access import credentials, users
from hub.registry.models.access import User
from hub.registry.platform import schema
from hub.registry.platform.db import transaction
from hub.registry.platform.services import connect
from hub.registry.platform.settings import Settings, load_settings
from hub.registry.platform.storage import Storage

MEGABYTES = 200
TURNS, DOWNLOAD_TURNS = 5, 16
FILES, PAGES_TURNS = 10_000, 20
SECONDS, CONNECTIONS = 4.0, 4
HEAD = "/ann/many/resolve/main/file-00000.txt"


@dataclass(frozen=True)
class Bench:
    """The servers under measurement: the API as it is, one that redirects downloads to S3, and a route of one query."""

    settings: Settings
    folder: Path
    token: str
    urls: dict[str, str]
    processes: dict[str, psutil.Process]
    idle: float  # MiB of the API's memory when it has started

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@cache
def _bench() -> Bench:
    """Everything started, in a folder of its own that is removed at the end."""
    held = ExitStack()
    atexit.register(held.close)
    folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="loraloom-bench-")))
    stack = held.enter_context(Stack(folder / "stack"))
    settings = supervisor.start_services(stack, scratch="loraloom-bench")
    held.callback(supervisor.drop_scratch, settings)
    schema.upgrade(settings.database_url)
    Storage(settings).ensure_bucket()
    services = connect(settings)
    with transaction(services.sessions) as session:
        user = users.create_user(session, "ann")
        _, token = credentials.issue_token(session, user.id, "bench")
    services.close()
    redirecting = settings.model_copy(update={"s3_public_url": settings.s3_endpoint_url})
    urls, processes = {}, {}
    for name, factory, given in [
        ("api", "api.app:create_app", settings),
        ("redirecting", "api.app:create_app", redirecting),
        ("one query", "bench.transfer:one_query", settings),
    ]:
        (port,) = free_ports(1)
        argv = [sys.executable, "-m", "uvicorn", "--factory", factory, "--port", str(port), "--no-access-log"]
        process = subprocess.Popen(
            argv, env=os.environ | supervisor.environment(given), cwd=supervisor.ROOT, stderr=subprocess.DEVNULL
        )
        held.callback(process.terminate)
        urls[name], processes[name] = f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    for url in urls.values():
        _await(url)
    return Bench(settings, folder, token, urls, processes, processes["api"].memory_info().rss / 2**20)


def _await(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            httpx.get(f"{url}/healthz")
        except httpx.TransportError:
            assert time.monotonic() < deadline, url
            time.sleep(0.1)
        else:
            return


def one_query() -> FastAPI:
    """A route that runs one indexed query and nothing else: what a request costs at least with this framework and database."""
    services = connect(load_settings())
    app = FastAPI()

    @app.head("/query")
    def query() -> Response:
        with transaction(services.sessions) as session:
            session.scalar(select(User.id).where(User.name == "ann"))
        return Response()

    return app


# --- uploads and downloads --------------------------------------------------------------------------------------------

UPLOAD = """
import json, sys, time
from huggingface_hub import CommitOperationAdd, HfApi
api = HfApi()
api.create_repo("ann/adapter", exist_ok=True)
operation = CommitOperationAdd(sys.argv[2], sys.argv[1])
started = time.perf_counter()
api.create_commit("ann/adapter", [operation], commit_message="Upload")
print(json.dumps(time.perf_counter() - started))
"""

DOWNLOAD = """
import json, sys, time
from huggingface_hub import hf_hub_download
started = time.perf_counter()
hf_hub_download("ann/adapter", sys.argv[1], local_dir=sys.argv[2])
print(json.dumps(time.perf_counter() - started))
"""

PLAIN_GET = """
import json, os, sys, time
import httpx2
headers = {"Authorization": f"Bearer {os.environ['HF_TOKEN']}"}
started = time.perf_counter()
with httpx2.stream("GET", sys.argv[1], headers=headers, follow_redirects=True) as answer, open(sys.argv[2], "wb") as file:
    answer.raise_for_status()
    for piece in answer.iter_bytes(10 << 20):
        file.write(piece)
print(json.dumps(time.perf_counter() - started))
"""


def _client(program: str, *arguments: str, server: str = "api", xet: bool = True) -> float:
    """Seconds that a program says its call took, in a process with nothing cached."""
    bench = _bench()
    with tempfile.TemporaryDirectory(dir=bench.folder) as home:
        env = {
            "PATH": os.environ["PATH"],
            "HF_HOME": home,
            "HF_ENDPOINT": bench.urls[server],
            "HF_TOKEN": bench.token,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            **({} if xet else {"HF_HUB_DISABLE_XET": "1"}),
        }
        argv = [sys.executable, "-c", program, *arguments]
        said = subprocess.run(argv, env=env, cwd=home, check=True, capture_output=True, text=True).stdout
        return float(json.loads(said.splitlines()[-1]))


def _adapter(seed: int) -> Path:
    place = _bench().folder / f"{seed}.safetensors"
    values = np.random.default_rng(seed).standard_normal((MEGABYTES * 500, 1_000), np.float32).astype(np.float16)
    save_file({"weight": values}, place)
    return place


def _put(file: Path) -> float:
    """boto3 alone: its managed upload, in parts and threads as it comes."""
    settings = _bench().settings
    client = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name=settings.s3_region,
        aws_access_key_id=settings.aws_access_key_id,
        aws_secret_access_key=settings.aws_secret_access_key,
    )
    started = time.perf_counter()
    client.upload_file(str(file), settings.s3_bucket, f"bench/{file.name}")
    return time.perf_counter() - started


class Peak:
    """How far the API's memory went beyond what it had before any upload, in MiB."""

    def __init__(self) -> None:
        self.process = _bench().processes["api"]
        self.peak = 0
        self._over = threading.Event()

    def __enter__(self) -> "Peak":
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self.peak = max(self.peak, self.process.memory_info().rss)

    @property
    def grown(self) -> float:
        return self.peak / 2**20 - _bench().idle


@cache
def _uploads() -> dict[str, dict[str, float]]:
    """Medians over the turns, after one that is not counted: seconds of each, and how far the API's memory grew at most."""
    found: dict[str, list[float]] = {"boto3": [], "LFS": [], "Xet": []}
    grown: dict[str, list[float]] = {"LFS": [], "Xet": []}
    for turn in range(TURNS + 1):
        for number, name in enumerate(found):
            file = _adapter(seed=10 * turn + number)
            if name == "boto3":
                seconds = _put(file)
            else:
                with Peak() as peak:
                    seconds = _client(UPLOAD, str(file), "adapter.safetensors", xet=name == "Xet")
                grown[name].append(peak.grown)
            if turn:
                found[name].append(seconds)
            file.unlink()
    print({name: [round(each, 2) for each in many] for name, many in found.items()}, flush=True)
    return {name: {"seconds": median(many), "grown": max(grown.get(name, [0]))} for name, many in found.items()}


@cache
def _uploaded() -> str:
    """The name of a file in ann/adapter, to be downloaded."""
    file = _adapter(seed=1_000)
    _client(UPLOAD, str(file), "download.safetensors")
    file.unlink()
    return "download.safetensors"


@cache
def _downloads(server: str) -> dict[str, float]:
    """Medians over the turns, after one that is not counted. Who begins changes with each turn: what one leaves to be written to disk
    slows the other."""
    name = _uploaded()
    bench = _bench()
    found: dict[str, list[float]] = {"hf_hub_download": [], "plain GET": []}
    for turn in range(DOWNLOAD_TURNS + 1):
        for way, times in sorted(found.items(), reverse=turn % 2 == 1):
            with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
                if way == "plain GET":
                    url = f"{bench.urls[server]}/ann/adapter/resolve/main/{name}"
                    seconds = _client(PLAIN_GET, url, f"{folder}/{name}", server=server)
                else:
                    seconds = _client(DOWNLOAD, name, folder, server=server)
                assert (Path(folder) / name).stat().st_size > MEGABYTES * 10**6
            if turn:
                times.append(seconds)
    print({way: [round(each, 2) for each in times] for way, times in found.items()}, flush=True)
    return {way: median(times) for way, times in found.items()}


# --- many small requests ----------------------------------------------------------------------------------------------


@cache
def _many() -> None:
    """A repo of many files, committed by the client's own protocol in one commit."""
    bench = _bench()
    with httpx.Client(base_url=bench.urls["api"], headers=bench.headers, timeout=300) as client:
        client.post("/api/repos/create", json={"name": "many", "organization": "ann"}).raise_for_status()
        lines: list[dict[str, Any]] = [{"key": "header", "value": {"summary": "Many", "description": ""}}]
        for number in range(FILES):
            value = {"path": f"file-{number:05}.txt", "content": "YQ==", "encoding": "base64"}
            lines.append({"key": "file", "value": value})
        body = "\n".join(json.dumps(line) for line in lines)
        client.post("/api/models/ann/many/commit/main", content=body).raise_for_status()


def _rate(server: str, path: str) -> float:
    """Requests a second over a few connections that stay open."""
    bench = _bench()
    address = urlsplit(bench.urls[server])
    until = time.perf_counter() + SECONDS
    counts: list[int] = []

    def ask() -> None:
        connection = http.client.HTTPConnection(address.hostname or "", address.port)
        done = 0
        while time.perf_counter() < until:
            connection.request("HEAD", path, headers=bench.headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            done += 1
        counts.append(done)

    threads = [threading.Thread(target=ask) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / SECONDS


def _heads() -> tuple[float, float]:
    _many()
    ours, peer = [], []
    for turn in range(TURNS + 1):
        pair = _rate("api", HEAD), _rate("one query", "/query")
        if turn:
            ours.append(pair[0])
            peer.append(pair[1])
    return median(ours), median(peer)


def _listed() -> tuple[float, None]:
    """MiB by which the API grew while it listed all files again and again, after it had done so as often before."""
    _many()
    bench = _bench()
    sizes = []
    with httpx.Client(base_url=bench.urls["api"], headers=bench.headers, timeout=60) as client:
        for _ in range(2):
            for _ in range(PAGES_TURNS):
                assert _list(client) == FILES
            sizes.append(bench.processes["api"].memory_info().rss)
    return (sizes[1] - sizes[0]) / 2**20, None


def _list(client: httpx.Client) -> int:
    url, seen = "/api/models/ann/many/tree/main?recursive=true", 0
    while url:
        page = client.get(url)
        seen += len(page.json())
        url = page.links.get("next", {}).get("url", "")
    return seen


def cells() -> Sequence[Cell]:
    def speed(way: str) -> Callable[[], tuple[float, float]]:
        return lambda: (MEGABYTES / _uploads()[way]["seconds"], MEGABYTES / _uploads()["boto3"]["seconds"])

    def fetched(server: str) -> Callable[[], tuple[float, float]]:
        return lambda: (MEGABYTES / _downloads(server)["hf_hub_download"], MEGABYTES / _downloads(server)["plain GET"])

    boto, get = f"boto3 {boto3.__version__} upload_file", f"httpx2 {httpx.__version__} GET to a file"
    client = f"huggingface_hub {hub_version}"
    return [
        Cell(f"upload {MEGABYTES} MB by LFS, {client}", "MB/s", speed("LFS"), boto, 0.6, "higher"),
        Cell(f"upload {MEGABYTES} MB by Xet, {client}", "MB/s", speed("Xet"), boto, 0.4, "higher"),
        Cell(
            f"the API's memory above idle, peak of {TURNS + 1} uploads, LFS",
            "MiB",
            lambda: (_uploads()["LFS"]["grown"], None),
        ),
        Cell(
            f"the API's memory above idle, peak of {TURNS + 1} uploads, Xet",
            "MiB",
            lambda: (_uploads()["Xet"]["grown"], None),
        ),
        Cell("download through the API", "MB/s", fetched("api"), get, 0.8, "higher"),
        Cell("download by redirect to S3", "MB/s", fetched("redirecting"), get, 0.8, "higher"),
        Cell("HEAD resolve, one process", "requests/s", _heads, "a route of one indexed query", 0.5, "higher"),
        Cell(f"memory after {PAGES_TURNS} more lists of {FILES:,} files", "MiB", _listed),
    ]
