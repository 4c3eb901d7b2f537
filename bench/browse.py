"""Browse: lists, searches and facets of 100,000 modules, as the API process answers them.

The process is uvicorn with the application as it is, asked over HTTP one request at a time. What is timed is what the server takes, from
the request's arrival to the first byte of its answer: token, queries, JSON. The application's own clock tells it in a header. A member
belongs to five of 200 namespaces; a visitor sees the three modules of a hundred that are public; an administrator sees all.
"""

import atexit
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import httpx2 as httpx
from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.app import create_app
from bench import harness
from bench.harness import Cell, Row
from bench.many_modules import BASES, METHODS, NAMESPACES, TAGS, TASKS, VISIBILITIES, WORDS, fill
from hub import supervisor
from hub.local.addresses import answers, free_ports
from hub.local.stack import Stack
from hub.registry.access import credentials, users
from hub.registry.access.viewer import Viewer, viewer_of
from hub.registry.library import facets, search
from hub.registry.library.search import SORTS, Filters, Sort
from hub.registry.platform import schema
from hub.registry.platform.db import transaction
from hub.registry.platform.services import connect
from hub.registry.platform.settings import Settings
from hub.registry.platform.storage import Storage

MODULES = 100_000
REQUESTS = 200  # of each kind, by each viewer
PLANS = harness.RESULTS / "browse-plans.txt"

Params = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """Requests alike in what they ask, drawn at random; `budget` milliseconds are what 95 of 100 shall keep to."""

    name: str
    path: str
    draw: Callable[[random.Random], Params]
    budget: float


def _sort(source: random.Random) -> Params:
    return {"sort": source.choice(SORTS)}


def _filters(source: random.Random, least: int, most: int) -> Params:
    drawn = {
        "base_model": source.choice(BASES),
        "method": source.choice(METHODS),
        "task": source.choice([task for task in TASKS if task]),
        "rank": source.choice((4, 8, 16, 32, 64, 7)),
        "tag": source.choice(TAGS[: source.choice((5, 50, 500))]),
        "owner": source.choice(NAMESPACES),
        "visibility": source.choice(VISIBILITIES),
    }
    return {name: drawn[name] for name in source.sample(sorted(drawn), source.randint(least, most))}


def _common(source: random.Random) -> str:
    return source.choice(WORDS[:40])


def _rare(source: random.Random) -> str:
    return source.choice((source.choice(WORDS[600:]), "xylophonist"))


def _typed(source: random.Random) -> str:
    """What is there of a word while it is being typed."""
    return (word := source.choice(WORDS[:800]))[: source.randint(1, len(word))]


def _words(source: random.Random) -> str:
    return " ".join(source.choice((_common, _rare, _common))(source) for _ in range(source.choice((2, 3))))


def _ideographs(source: random.Random) -> str:
    return source.choice(("翻訳", "中国", "日本", "改写", "客户", "要約", "短い", "質問", "鉄道", "中文 摘要", "猫"))


def _deep(source: random.Random) -> Params:
    """A page somewhere in the middle, with a filter or none."""
    sort = source.choice(SORTS)
    return {"sort": sort, "cursor": source.choice(_bench().cursors[sort])} | _filters(source, 0, 1)


LIST = "/v1/adapters"
FACETS = "/v1/facets"
KINDS = (
    Kind("the list", LIST, lambda source: {"sort": "newest"}, 50),
    Kind("in another order", LIST, lambda source: {"sort": source.choice(SORTS[1:])}, 50),
    Kind("one filter, any order", LIST, lambda source: _filters(source, 1, 1) | _sort(source), 50),
    Kind("two to four filters, any order", LIST, lambda source: _filters(source, 2, 4) | _sort(source), 50),
    Kind("a common word, any order", LIST, lambda source: {"q": _common(source)} | _sort(source), 50),
    Kind("a rare or absent word, any order", LIST, lambda source: {"q": _rare(source)} | _sort(source), 50),
    Kind("a word as it is typed", LIST, lambda source: {"q": _typed(source)}, 50),
    Kind("two or three words, any order", LIST, lambda source: {"q": _words(source)} | _sort(source), 50),
    Kind("ideographs", LIST, lambda source: {"q": _ideographs(source)} | _sort(source), 50),
    Kind(
        "words and filters, any order",
        LIST,
        lambda source: {"q": _words(source)[:9]} | _filters(source, 1, 2) | _sort(source),
        50,
    ),
    Kind("a deep page, any order", LIST, _deep, 50),
    Kind("facets of everything", FACETS, lambda source: {}, 150),
    Kind("facets under one to three filters", FACETS, lambda source: _filters(source, 1, 3), 150),
    Kind("facets of a word", FACETS, lambda source: {"q": source.choice((_common, _rare, _typed))(source)}, 150),
    Kind("facets of words and filters", FACETS, lambda source: {"q": _common(source)} | _filters(source, 1, 2), 150),
)


@dataclass(frozen=True)
class Bench:
    client: httpx.Client
    tokens: dict[str, str | None]  # viewer -> token
    cursors: dict[Sort, list[str]]


@cache
def _bench() -> Bench:
    """Everything started and filled, in a folder of its own that is removed at the end; the plans are written on the way."""
    held = ExitStack()
    atexit.register(held.close)
    folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="loraloom-bench-")))
    stack = held.enter_context(Stack(folder / "stack"))
    settings = supervisor.start_services(stack, scratch="loraloom-bench").model_copy(update={"requests_per_minute": 0})
    held.callback(supervisor.drop_scratch, settings)
    schema.upgrade(settings.database_url)
    Storage(settings).ensure_bucket()
    services = connect(settings)
    held.callback(services.close)
    tokens: dict[str, str | None] = {"visitor": None}
    viewers: dict[str, Viewer | None] = {"visitor": None}
    with transaction(services.sessions) as session:
        for name, is_admin in (("member", False), ("administrator", True)):
            user = users.create_user(session, name, is_admin=is_admin)
            tokens[name], viewers[name] = credentials.issue_token(session, user.id, "bench")[1], viewer_of(user)
    print(f"writing {MODULES:,} modules ...", flush=True)
    fill(settings.database_url, MODULES)
    PLANS.write_text(plans(services.sessions, viewers), encoding="utf-8")
    with transaction(services.sessions) as session:
        cursors = {sort: _cursors(session, sort, viewers["administrator"]) for sort in SORTS}
    return Bench(held.enter_context(_serving(settings)), tokens, cursors)


def _cursors(session: Session, sort: Sort, viewer: Viewer | None) -> list[str]:
    """Where pages might begin, all along the order."""
    found: list[str] = []
    cursor = None
    while True:
        cursor = search.search(session, viewer, Filters(), sort=sort, limit=MODULES // 50, cursor=cursor).cursor
        if cursor is None:
            return found
        found.append(cursor)


@contextmanager
def _serving(settings: Settings) -> Iterator[httpx.Client]:
    """The API as a process of its own, and a client whose connection stays open."""
    (port,) = free_ports(1)
    argv = [
        sys.executable,
        "-m",
        "uvicorn",
        "--factory",
        "bench.browse:clocked",
        "--port",
        str(port),
        "--no-access-log",
    ]
    process = subprocess.Popen(
        argv, env=os.environ | supervisor.environment(settings), cwd=supervisor.ROOT, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while not answers(f"http://127.0.0.1:{port}/readyz"):
            assert time.monotonic() < deadline, "the API does not answer"
            time.sleep(0.1)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        process.terminate()
        process.wait()


def clocked() -> ASGIApp:
    """The application, with a header that says how long it took to begin its answer."""
    app = create_app()

    async def timed(scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()

        async def send_timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                milliseconds = (time.perf_counter() - started) * 1e3
                MutableHeaders(scope=message)["Server-Timing"] = f"app;dur={milliseconds:.3f}"
            await send(message)

        await app(scope, receive, send_timed if scope["type"] == "http" else send)

    return timed


VIEWERS = ("visitor", "member", "administrator")


@cache
def _times(kind: Kind, viewer: str) -> list[float]:
    """Milliseconds at the server, ascending; the first few requests, which find nothing cached, count as any other."""
    bench, source = _bench(), random.Random(f"{kind.name} {viewer}")
    token = bench.tokens[viewer]
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    times = []
    for _ in range(REQUESTS):
        answer = bench.client.get(kind.path, params=kind.draw(source), headers=headers)
        assert answer.status_code == 200, answer.text
        times.append(float(answer.headers["Server-Timing"].partition("dur=")[2]))
    return sorted(times)


def cells() -> list[Cell]:
    return [
        Cell(f"{kind.name}, {viewer}: {figure}", "ms", partial(_figure, kind, viewer, figure), **_budget(kind, figure))
        for kind in KINDS
        for viewer in VIEWERS
        for figure in ("p50", "p95", "max")
    ]


def _budget(kind: Kind, figure: str) -> dict[str, Any]:
    return {"peer_name": "the budget", "target": 1.0} if figure == "p95" else {}


def _figure(kind: Kind, viewer: str, figure: str) -> tuple[float, float | None]:
    times = _times(kind, viewer)
    place = {"p50": 0.5, "p95": 0.95, "max": 1.0}[figure]
    return times[min(int(place * len(times)), len(times) - 1)], kind.budget if figure == "p95" else None


def summary(rows: Sequence[Row]) -> str:
    """A line for each kind and viewer."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        what, _, figure = row.measure.rpartition(": ")
        found.setdefault(what, {})[figure] = row
    lines = [f"{'milliseconds at the server':52}{'p50':>8}{'p95':>8}{'max':>8}  budget"]
    for what, figures in found.items():
        p95 = figures["p95"]
        kept = "met" if p95.peer is not None and p95.ours <= p95.peer else "MISSED"
        numbers = "".join(f"{figures[name].ours:8.1f}" for name in ("p50", "p95", "max"))
        lines.append(f"{what:52}{numbers}  {p95.peer:g} {kept}")
    return "\n".join(lines)


# --- plans ------------------------------------------------------------------------------------------------------------

PLANNED: Sequence[tuple[str, Sort | None, Filters]] = (
    ("the list", "newest", Filters()),
    ("by size", "size", Filters()),
    ("by score, one method", "score", Filters(method="pissa")),
    ("by name, one base", "name", Filters(base_model=BASES[3])),
    ("one tag and one task, newest", "newest", Filters(tag=(TAGS[20],), task="SEQ_CLS")),
    ("private ones of one owner, by size", "size", Filters(owner=NAMESPACES[10], visibility="private")),
    ("a common word, by score", "score", Filters(text=WORDS[0])),
    ("a rare word, newest", "newest", Filters(text=WORDS[-1])),
    ("two ideographs", "newest", Filters(text="翻訳")),
    ("facets of everything", None, Filters()),
    ("facets of a common word", None, Filters(text=WORDS[0])),
    ("facets under base and method", None, Filters(base_model=BASES[3], method="lora")),
)


def plans(sessions: sessionmaker[Session], viewers: dict[str, Viewer | None]) -> str:
    """EXPLAIN (ANALYZE, BUFFERS) of every statement of some requests."""
    parts = [f"{MODULES:,} modules; {harness.machine()}\n"]
    for name, sort, filters in PLANNED:
        for viewer_name, viewer in viewers.items():
            parts.append(f"\n=== {name}, {viewer_name}\n")
            with transaction(sessions) as session:
                for statement, given in _statements(session, sort, filters, viewer):
                    plan = session.connection().exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS) {statement}", given)
                    parts += [f"\n{' '.join(statement.split())}\n", *(f"    {row[0]}\n" for row in plan)]
    return "".join(parts)


def _statements(session: Session, sort: Sort | None, filters: Filters, viewer: Viewer | None) -> list[tuple[str, Any]]:
    """What is asked of the database for a list, or, without an order, for facets."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, given: Any, _context: Any, _many: bool) -> None:
        if not statement.startswith("SET"):
            seen.append((statement, given))

    connection = session.connection()
    event.listen(connection, "before_cursor_execute", note)
    if sort is None:
        facets.facets(session, viewer, filters)
    else:
        search.search(session, viewer, filters, sort=sort, limit=50, cursor=None)
    event.remove(connection, "before_cursor_execute", note)
    return seen
