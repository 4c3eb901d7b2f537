"""Every route of the protocol, asked with all that may be wrong: the answer is a sentence, never a 500, and nothing is left behind."""

import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.routing import APIRoute
from sqlalchemy import func, select
from starlette.testclient import TestClient

from api import huggingface
from api.app import create_app
from api.huggingface import common
from hub.registry.content import lfs, xet
from hub.registry.models.content import Blob, Commit, Holding, Ref, Repo, TreeEntry
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support import protocol
from tests.support.files import peft_folder


def all_routes() -> list[tuple[str, str, str]]:
    """Method and path of each, and the source that tells which fields it might read."""
    modules = [
        importlib.import_module(f"api.huggingface.{each.name}") for each in pkgutil.iter_modules(huggingface.__path__)
    ]
    return sorted(
        (method, route.path.replace(":path", ""), inspect.getsource(module) + inspect.getsource(common))
        for module in modules
        if hasattr(module, "router")
        for route in module.router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    )


GOOD = {"kind": "models", "namespace": "ann", "name": "r", "revision": "main", "branch": "b", "tag": "t"} | {
    "rest": "main/README.md",
    "oid": "0" * 64,
    "number": "1",
    "part_bytes": "10000",
    "count": "2",
    "epoch": "20260101-00000000",
    "xorb": "0" * 64,
}
VALUES = [
    "\0",
    "a\0b",
    "%",
    "..",
    "../../etc",
    "a" * 5_000,
    "ü☃",
    "'; --",
    "-1",
    "9" * 30,
    "1e9",
    " ",
    "None",
    "refs/pr/1",
]
RAW_VALUES = ["%FF", "%00", "%ED%A0%80", "%C3%28"]  # bytes that are no text
QUERIED = (
    "limit",
    "cursor",
    "filter",
    "search",
    "author",
    "sort",
    "recursive",
    "expand",
    "blobs",
    "size",
    "expires",
    "signature",
    "create_pr",
    "include_prs",
)
QUERY_VALUES = ("%00", "%FF", "-1", "9" * 30, "0" * 40)
KINDS = [
    "application/json",
    "application/x-ndjson",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "text/plain",
]
TEXTS = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"[" * 50_000,
    b"paths=%00&paths=%FF&expand=maybe&device_code=%00&grant_type=x",
]
FIELDS: dict[str, Any] = {
    "name": "other",
    "organization": "ann",
    "type": "model",
    "visibility": "private",
    "tag": "t",
    "content": "---\nlicense: mit\n---\n",
    "repository": "ann/copy",
    "fromRepo": "ann/absent",
    "toRepo": "ann/there",
    "startingPoint": "main",
    "operation": "upload",
    "oid": "0" * 64,
    "size": 5,
    "files": [{"path": "a.txt", "size": 1, "sample": ""}],
    "objects": [{"oid": "0" * 64, "size": 5}],
    "parts": [{"partNumber": 1, "etag": "x"}],
}
HOSTILE: list[Any] = [
    "a\0b",
    "\ud800",
    "x" * 5_000,
    10**30,
    None,
    [{"path": "a\0", "size": 1}],
    [{"oid": "\ud800", "size": 1}],
]


@pytest.fixture
def hostile(services: Services, ann: Person) -> Iterator[TestClient]:
    with TestClient(create_app(services), base_url="http://testserver", raise_server_exceptions=False) as client:
        protocol.create(client, ann, "ann/r")
        protocol.committed(client, ann, "ann/r", peft_folder())
        client.headers.update(ann.headers)
        yield client


def kept(services: Services) -> dict[str, Any]:
    with transaction(services.sessions) as session:
        rows: dict[str, Any] = {
            table.__name__: session.scalar(select(func.count()).select_from(table))
            for table in (Repo, Commit, Ref, TreeEntry, Blob, Holding)
        }
    return rows | {prefix: [*services.storage.keys(f"{prefix}ann/")] for prefix in (lfs.PARTS, xet.XORBS)}


def filled(path: str, **changed: str) -> str:
    for name, value in (GOOD | changed).items():
        path = path.replace(f"{{{name}}}", value)
    return path


def variants(method: str, path: str, source: str) -> Iterator[tuple[str, str, bytes]]:
    """Address, content type and body of each request that has something wrong, in a field that the source names."""
    for name in [name for name in GOOD if f"{{{name}}}" in path]:
        for value in [*(quote(value, safe="") for value in VALUES), *RAW_VALUES]:
            yield filled(path, **{name: value}), "application/json", b"{}"
    if method in ("GET", "HEAD", "PUT") or "{oid}" in path:
        for query in ["=&&=", *(f"{name}={value}" for name in QUERIED if name in source for value in QUERY_VALUES)]:
            yield f"{filled(path)}?{query}", "", b""
    if method not in ("GET", "HEAD"):
        for kind in KINDS:
            for text in TEXTS:
                yield filled(path), kind, text
        for name in FIELDS:
            for value in HOSTILE if name in source else ():
                yield filled(path), "application/json", json.dumps(FIELDS | {name: value}).encode()


ROUTES = all_routes()


@pytest.mark.parametrize(("method", "path", "source"), ROUTES, ids=[f"{method}-{path}" for method, path, _ in ROUTES])
def test_nothing_malformed_is_a_server_error(
    hostile: TestClient, services: Services, method: str, path: str, source: str
) -> None:
    before = kept(services)
    wrong, lawful = [], 0
    for address, kind, body in variants(method, path, source):
        headers = {"Content-Type": kind} if kind else {}
        answer = hostile.request(method, address, headers=headers, content=body, follow_redirects=False)
        said = answer.headers.get("X-Error-Message", "")
        lawful += answer.status_code < 400
        if answer.status_code >= 500 or (answer.status_code >= 400 and len(said.split()) < 4):
            wrong.append((address[:120], kind, body[:60], answer.status_code, said[:200]))
    assert wrong == []
    if (
        method != "GET" and not lawful
    ):  # many routes find what is wrong in a field that is none of theirs, and do as they are asked
        assert kept(services) == before
