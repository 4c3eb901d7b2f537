"""Uploads by LFS: addresses that are good for one file, bytes that must be what was said, parts, and what two servers make of them."""

import secrets
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2 as httpx
import pytest
from starlette.testclient import TestClient

from hub.registry.content import lfs
from hub.registry.content.history import BytesMissing
from hub.registry.models.content import Blob, Holding
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.registry.platform.settings import Settings
from tests.conftest import Person
from tests.support import protocol

DATA = b"weights " * 1_000


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"lfs_part_bytes": 10_000})


@pytest.fixture(autouse=True)
def repo(client: TestClient, ann: Person) -> None:
    protocol.create(client, ann, "ann/r")


def href(client: TestClient, person: Person, data: bytes) -> str:
    return protocol.local(protocol.batch(client, person, "ann/r", data)["actions"]["upload"]["href"])


def nothing_came(services: Services, data: bytes) -> bool:
    assert not services.storage.exists(protocol.sha256(data))
    with transaction(services.sessions) as session:
        held = session.get(Holding, ("ann", protocol.sha256(data)))
        blob = session.get(Blob, protocol.sha256(data))
    return held is None and (blob is None or blob.state == "receiving")


def test_a_file_is_sent_verified_and_not_asked_for_again(client: TestClient, second: TestClient, ann: Person) -> None:
    answer = protocol.batch(client, ann, "ann/r", DATA)
    assert protocol.put(second, answer, DATA).status_code == 200
    verify = protocol.local(answer["actions"]["verify"]["href"])
    body = {"oid": protocol.sha256(DATA), "size": len(DATA)}
    assert client.post(verify, headers=ann.headers, json=body).status_code == 200
    protocol.error_of(client.post(verify, headers=ann.headers, json={**body, "size": 1}), 422)
    assert protocol.batch(client, ann, "ann/r", DATA) == body
    lying = client.post(
        "/ann/r.git/info/lfs/objects/batch",
        headers=ann.headers,
        json={"operation": "upload", "objects": [{**body, "size": 9}]},
    )
    assert lying.json()["objects"][0]["error"]["code"] == 422


@pytest.mark.parametrize("change", ["size", "expires", "signature", "oid", "namespace", "action"])
def test_an_address_is_good_for_what_it_was_signed_for(
    client: TestClient, services: Services, ann: Person, change: str
) -> None:
    data = secrets.token_bytes(8_000)
    parts = urlsplit(href(client, ann, data))
    query = {key: values[0] for key, values in parse_qs(parts.query).items()}
    path = parts.path
    if change in query:
        query[change] = str(int(query[change]) + 1) if change != "signature" else "0" * 64
    path = {
        "oid": path.replace(protocol.sha256(data), protocol.sha256(b"other")),
        "namespace": path.replace("/ann/", "/bob/"),
        "action": path.replace("/content", "/part-1-9000"),
    }.get(change, path)
    headers = {"Content-Length": query["size"]} if change == "size" else {}
    answer = client.put(f"{path}?{urlencode(query)}", content=data + b"x" * (change == "size"), headers=headers)
    assert "not signed" in protocol.error_of(answer, 403)
    assert nothing_came(services, data)


def test_an_address_ends(client: TestClient, services: Services, ann: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lfs, "UPLOAD_SECONDS", -1)
    data = secrets.token_bytes(8_000)
    assert "no longer valid" in protocol.error_of(client.put(href(client, ann, data), content=data), 403)
    assert nothing_came(services, data)


def streamed(*pieces: bytes) -> Iterator[bytes]:
    yield from pieces


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: b"",
        lambda data: streamed(data[:100]),
        lambda data: streamed(data, b"x"),
        lambda data: streamed(data[1:], b"x", data[:1]),
    ],
    ids=["short", "long", "changed", "empty", "short stream", "long stream", "changed stream"],
)
def test_other_bytes_are_refused(
    client: TestClient, services: Services, ann: Person, change: Callable[[bytes], Any]
) -> None:
    data = secrets.token_bytes(8_000)
    protocol.error_of(client.put(href(client, ann, data), content=change(data)), 422)
    assert nothing_came(services, data)


LARGE = secrets.token_bytes(25_600)  # three parts


def parts_of(answer: Any) -> list[str]:
    header = answer["actions"]["upload"]["header"]
    assert header["chunk_size"] == "10000"
    return [protocol.local(header[str(n)]) for n in range(1, len(header))]


def test_parts_go_to_any_server_in_any_order(
    client: TestClient, second: TestClient, services: Services, ann: Person
) -> None:
    answer = protocol.batch(client, ann, "ann/r", LARGE)
    urls = parts_of(answer)
    for number in (2, 0, 1):
        sent = (client, second)[number % 2].put(urls[number], content=LARGE[number * 10_000 : (number + 1) * 10_000])
        assert sent.status_code == 200
        assert sent.headers["ETag"]
    completion = {"oid": protocol.sha256(LARGE), "parts": [{"partNumber": 1, "etag": "x"}]}
    assert client.post(protocol.local(answer["actions"]["upload"]["href"]), json=completion).status_code == 200
    assert services.storage.read(protocol.sha256(LARGE), 0, len(LARGE)) == LARGE
    assert "actions" not in protocol.batch(client, ann, "ann/r", LARGE)
    with pytest.raises(BytesMissing):
        lfs.verify(services, "bob", protocol.sha256(LARGE), len(LARGE))


@pytest.mark.parametrize("case", ["missing", "changed", "short", "long"])
def test_parts_that_do_not_make_the_file_are_refused(
    client: TestClient, services: Services, ann: Person, case: str
) -> None:
    large = secrets.token_bytes(25_600)
    answer = protocol.batch(client, ann, "ann/r", large)
    urls = parts_of(answer)
    second = {"missing": None, "changed": bytes(10_000), "short": bytes(9_999), "long": bytes(10_001)}[case]
    for url, part in zip(urls, (large[:10_000], second, large[20_000:]), strict=True):
        if part is not None:
            assert client.put(url, content=part).status_code == (
                422 if case in ("short", "long") and part is second else 200
            )
    done = client.post(protocol.local(answer["actions"]["upload"]["href"]), json={})
    protocol.error_of(done, 422)
    assert nothing_came(services, large)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"operation": "download", "objects": []}',
        b'{"operation": "upload"}',
        b'{"operation": "upload", "objects": [{"oid": 3, "size": 1}]}',
        b'{"operation": "upload", "objects": [{"oid": "a", "size": "x"}]}',
    ],
)
def test_a_malformed_batch_is_refused(client: TestClient, ann: Person, body: bytes) -> None:
    headers = {**ann.headers, "Content-Type": "application/vnd.git-lfs+json"}
    protocol.error_of(client.post("/ann/r.git/info/lfs/objects/batch", headers=headers, content=body), 422)


def test_an_impossible_file_is_refused_beside_others(client: TestClient, ann: Person) -> None:
    objects = [
        {"oid": "0" * 63, "size": 1},
        {"oid": "0" * 64, "size": 0},
        {"oid": "0" * 64, "size": 6 * 2**30},
        {"oid": "0" * 64, "size": 5},
    ]
    answer = client.post(
        "/ann/r.git/info/lfs/objects/batch", headers=ann.headers, json={"operation": "upload", "objects": objects}
    )
    codes = [each.get("error", {}).get("code") for each in answer.json()["objects"]]
    assert codes == [422, 422, 413, None]


def test_who_may_ask(client: TestClient, ann: Person, bob: Person) -> None:
    body = {"operation": "upload", "objects": []}
    path = "/ann/r.git/info/lfs/objects/batch"
    protocol.error_of(client.post(path, headers=bob.headers, json=body), 403)
    protocol.error_of(client.post(path, json=body), 401)
    protocol.error_of(
        client.post("/ann/absent.git/info/lfs/objects/batch", headers=bob.headers, json=body), 404, "RepoNotFound"
    )
    protocol.error_of(client.post(f"/datasets{path}", headers=ann.headers, json=body), 404, "RepoNotFound")


def test_a_connection_that_breaks_leaves_nothing_and_breaks_nothing(
    hub_url: str, services: Services, ann: Person, caplog: pytest.LogCaptureFixture
) -> None:
    """A real server, and a client that dies in the middle of its file, and later sends it whole."""
    data = secrets.token_bytes(9_000)
    with httpx.Client(base_url=hub_url) as client:
        path = urlsplit(protocol.batch(client, ann, "ann/r", data)["actions"]["upload"]["href"])
        address = urlsplit(hub_url)
        with socket.create_connection((address.hostname, address.port)) as connection:
            head = f"PUT {path.path}?{path.query} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(data)}\r\n\r\n"
            connection.sendall(head.encode() + data[:4_000])
        time.sleep(0.5)
        assert nothing_came(services, data)
        assert client.put(f"{path.path}?{path.query}", content=data).status_code == 200
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
