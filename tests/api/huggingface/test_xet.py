"""Uploads by Xet: files are built on any server, from chunks that the namespace sent itself and that are what they are said to be."""

import os
import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import lz4.frame
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from hub.formats import xet_format
from hub.registry.access import instance_keys
from hub.registry.content import xet
from hub.registry.content.xet import UploadEpoch
from hub.registry.models.content import Blob, Holding
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support import protocol
from tests.support.protocol import visible
from tests.support.xet import Segment, chunk, name, shard

PARTS = [b"first chunk " * 900, b"second " * 700, os.urandom(5_000)]
DATA = b"".join(PARTS)


@pytest.fixture(autouse=True)
def repos(client: TestClient, ann: Person, bob: Person) -> None:
    protocol.create(client, ann, "ann/r", private=True)
    protocol.create(client, bob, "bob/own")


class Sender:
    """What hf_xet does with the answer to one request for a token."""

    def __init__(self, client: TestClient, person: Person, full_name: str) -> None:
        self.client = client
        path = f"/api/models/{full_name}/xet-write-token/main"
        answer = client.get(path, headers=person.headers)
        assert answer.status_code == 200, answer.text
        self.grant = answer.json()
        self.path = urlsplit(self.grant["casUrl"]).path
        self.headers = {"Authorization": f"Bearer {self.grant['accessToken']}"}

    def xorb(self, contents: Sequence[bytes], *, said: str | None = None, body: Any = None, scheme: int = 1) -> Any:
        content = b"".join(chunk(data, scheme) for data in contents) if body is None else body
        path = f"{self.path}/v1/xorbs/default/{said or name(contents)}"
        return self.client.post(path, headers=self.headers, content=content)

    def shard(self, *files: tuple[str | None, Sequence[Segment]], body: bytes | None = None) -> Any:
        content = shard(*files, verified=True) if body is None else body
        return self.client.post(f"{self.path}/v1/shards", headers=self.headers, content=content)


@pytest.fixture
def ann_sends(client: TestClient, ann: Person) -> Sender:
    return Sender(client, ann, "ann/r")


def whole(contents: Sequence[bytes] = PARTS, start: int = 0, end: int | None = None) -> Segment:
    chosen = contents[start:end]
    return (name(contents), sum(len(data) for data in chosen), start, start + len(chosen))


def nothing_is_left(services: Services) -> None:
    """No xorb is there. SeaweedFS under load may finish with the beginning of a body that broke off after its deletion was requested: such
    an object has no index, so that nobody can read it, and goes with its epoch."""
    assert [key for key in services.storage.keys(xet.XORBS) if "." not in key] == []
    xet.drop_xorbs(services, datetime.now(UTC) + timedelta(days=4), timedelta(0))
    assert list(services.storage.keys(xet.XORBS)) == []
    with transaction(services.sessions) as session:
        assert session.scalars(select(Holding.sha256).where(Holding.namespace == "ann")).all() == []


@pytest.fixture(autouse=True)
def empty_storage(services: Services) -> None:
    """The bucket is shared by the run's tests, and what lies in it is what these look at."""
    for key in services.storage.keys(xet.XORBS):
        services.storage.delete_key(key)


def test_a_file_is_built_from_chunks_and_committed(client: TestClient, ann: Person, ann_sends: Sender) -> None:
    grant = ann_sends.grant
    assert 3_000 < grant["exp"] - time.time() <= 3_600
    for scheme in (0, 1, 2):
        assert ann_sends.xorb(PARTS, scheme=scheme).json() == {"was_inserted": True}
    twice = PARTS[1] + DATA
    answer = ann_sends.shard(
        (protocol.sha256(DATA), [whole(end=2), whole(start=2)]),
        (protocol.sha256(twice), [whole(start=1, end=2), whole()]),
    )
    assert answer.json() == {"result": 1}
    files = {"a.safetensors.bak": DATA, "b.bin": twice}
    lines = [protocol.lfs_file(path, data) for path, data in files.items()]
    assert protocol.commit(client, ann, "ann/r", *lines).status_code == 200
    for path, data in files.items():
        assert client.get(f"/ann/r/resolve/main/{path}", headers=ann.headers).content == data
    assert "actions" not in protocol.batch(client, ann, "ann/r", DATA)


def test_servers_take_turns(client: TestClient, second: TestClient, ann: Person, ann_sends: Sender) -> None:
    """Chunks come to one server, more to another, and either can say which files they make."""
    ann_sends.xorb(PARTS)
    ann_sends.client = second
    ann_sends.xorb(PARTS[:1])
    ann_sends.client = client
    file = PARTS[0] + DATA
    segments = [whole(PARTS[:1]), whole()]
    ann_sends.client = second
    assert ann_sends.shard((protocol.sha256(file), segments)).status_code == 200
    assert protocol.commit(client, ann, "ann/r", protocol.lfs_file("a.bin", file)).status_code == 200
    assert second.get("/ann/r/resolve/main/a.bin", headers=ann.headers).content == file


def test_chunks_of_earlier_uploads_of_the_namespace_serve(client: TestClient, ann: Person, ann_sends: Sender) -> None:
    ann_sends.xorb(PARTS)
    later = Sender(client, ann, "ann/r")
    assert later.path == ann_sends.path
    assert later.shard((protocol.sha256(PARTS[1]), [whole(start=1, end=2)])).status_code == 200


def test_what_is_asked_for_and_not_offered_is_not_there(client: TestClient, ann_sends: Sender) -> None:
    """hf_xet asks these first, and understands 404."""
    for method, path in [
        ("GET", f"/v1/chunks/default/{'0' * 64}"),
        ("POST", f"/v1/xorb-grants/default/{'0' * 64}"),
        ("POST", "/v2/shards"),
    ]:
        assert client.request(method, ann_sends.path + path, headers=ann_sends.headers).status_code == 404


def test_a_xorb_is_not_sent_twice(client: TestClient, bob: Person, ann_sends: Sender) -> None:
    ann_sends.xorb(PARTS)
    path = f"/v1/xorb-grants/default/{name(PARTS)}"
    assert client.post(ann_sends.path + path, headers=ann_sends.headers).status_code == 200
    protocol.error_of(client.post(ann_sends.path + path[:-1], headers=ann_sends.headers), 404)
    bob_sends = Sender(client, bob, "bob/own")  # whose namespace has not seen it
    protocol.error_of(client.post(bob_sends.path + path, headers=bob_sends.headers), 404)


# Who may


def test_a_token_is_for_who_may_write(client: TestClient, ann: Person, bob: Person) -> None:
    path = "/api/models/{}/xet-write-token/main"
    hidden = [client.get(path.format(repo), headers=bob.headers) for repo in ("ann/r", "ann/absent")]
    assert [answer.text.replace("ann/absent", "ann/r") for answer in hidden] == [hidden[0].text] * 2
    protocol.error_of(hidden[0], 404, "RepoNotFound")
    protocol.error_of(client.get(path.format("ann/r")), 401)
    protocol.create(client, ann, "ann/open", visibility="public")
    protocol.error_of(client.get(path.format("ann/open"), headers=bob.headers), 403)
    protocol.error_of(client.get(path.format("ann/r") + "?create_pr=1", headers=ann.headers), 400)
    assert client.get("/api/models/ann/r/xet-write-token/None", headers=ann.headers).status_code == 200


@pytest.mark.parametrize("change", ["namespace", "token", "none", "expires", "day", "instance"])
def test_a_token_is_for_one_namespace_and_a_time(
    client: TestClient, services: Services, bob: Person, change: str
) -> None:
    sender = Sender(client, bob, "bob/own")
    token = sender.grant["accessToken"]
    status = {"day": 404, "instance": 404, "none": 401}.get(change, 403)
    sender.headers = {
        "token": {"Authorization": f"Bearer {token[:-64]}{'0' * 64}"},
        "none": {},
        "expires": {"Authorization": f"Bearer {token.replace(str(sender.grant['exp']), str(sender.grant['exp'] + 1))}"},
    }.get(change, sender.headers)
    epoch = sender.path.rsplit("/", 1)[1]
    sender.path = {
        "namespace": sender.path.replace("/bob/", "/ann/"),
        "day": sender.path.replace(epoch, f"20200101{epoch[8:]}"),
        "instance": sender.path.replace(epoch, f"{epoch[:8]}-00000000"),
    }.get(change, sender.path)
    protocol.error_of(sender.xorb(PARTS), status)
    protocol.error_of(sender.shard((protocol.sha256(DATA), [whole()])), status)
    nothing_is_left(services)


def test_a_token_ends(client: TestClient, services: Services, bob: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xet, "TOKEN_SECONDS", -1)
    protocol.error_of(Sender(client, bob, "bob/own").xorb(PARTS), 403)
    nothing_is_left(services)


# What another team has in private


def test_chunks_of_another_namespace_are_not_there(
    client: TestClient, services: Services, ann: Person, bob: Person, ann_sends: Sender
) -> None:
    """Who knows the hash of a private file's xorb, and all that a list of files says, is answered as for one that nobody has."""
    ann_sends.xorb(PARTS)
    assert ann_sends.shard((protocol.sha256(DATA), [whole()])).status_code == 200
    unknown = [os.urandom(len(part)) for part in PARTS]
    bob_sends = Sender(client, bob, "bob/own")
    answers = [
        bob_sends.shard((protocol.sha256(b"".join(contents)), [whole(contents)])).text.replace(name(contents), "XORB")
        for contents in (PARTS, unknown)
    ]
    assert answers[0] == answers[1]
    assert "has not come to 'bob'" in answers[0]
    own = [os.urandom(len(part)) for part in PARTS]
    bob_sends.xorb(own)
    claims = [
        bob_sends.shard((protocol.sha256(wanted), [whole(own)])) for wanted in (DATA, b"".join(unknown))
    ]  # Bob's own chunks, under the name of Ann's file
    assert visible(claims[0], DATA) == visible(claims[1], b"".join(unknown))
    assert "SHA-256" in protocol.error_of(claims[0], 422)
    for wanted in (DATA, b"".join(unknown)):
        protocol.error_of(protocol.commit(client, bob, "bob/own", protocol.lfs_file("a.bin", wanted)), 422)
    with transaction(services.sessions) as session:
        assert session.scalars(select(Holding.sha256).where(Holding.namespace == "bob")).all() == []
    bob_sends.xorb(PARTS)  # who has the bytes may keep them too
    assert bob_sends.shard((protocol.sha256(DATA), [whole()])).status_code == 200
    assert protocol.commit(client, bob, "bob/own", protocol.lfs_file("a.bin", DATA)).status_code == 200


# What is not what it is said to be


BOMB = chunk(b"", 1, packed=lz4.frame.compress(bytes(20 << 20)), said=xet_format.MAX_CHUNK_BYTES)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (BOMB, "131,073 bytes"),
        (chunk(bytes(131_072), 1) * 600, "more than 67,108,864 bytes"),
        (chunk(b"a") * 9_000, "8,192 chunks"),
        (chunk(b"other bytes"), "and not"),
        (chunk(b"abc", said=9), "has 3 bytes"),
        (chunk(b"abc")[:-1], "cut off"),
        (b"PK\3\4 is no xorb", "version 80"),
        (b"", "0 bytes"),
        (chunk(b"abc") + b"XETBLOB" + bytes(2 << 20), "footer"),
    ],
    ids=range(9),
)
def test_a_xorb_that_lies_is_refused(services: Services, ann_sends: Sender, body: bytes, sentence: str) -> None:
    assert sentence in protocol.error_of(ann_sends.xorb(PARTS, body=body), 422)
    nothing_is_left(services)


def test_the_hash_of_a_xorb_is_checked(services: Services, ann_sends: Sender) -> None:
    for said in ("0" * 63, "g" * 64, "../../blobs"):
        assert ann_sends.xorb(PARTS, said=said).status_code in (404, 422)
    protocol.error_of(ann_sends.xorb(PARTS, said="0" * 64), 422)

    def stream() -> Iterator[bytes]:
        yield chunk(PARTS[0])

    protocol.error_of(ann_sends.xorb(PARTS, body=stream()), 411)
    nothing_is_left(services)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([(protocol.sha256(DATA), [(name(PARTS), len(DATA), 0, 4)])], "which has 3"),
        ([(protocol.sha256(DATA), [(name(PARTS), len(DATA), 3, 3)])], "which has 3"),
        ([(protocol.sha256(DATA), [(name(PARTS), len(DATA), 2, 1)])], "which has 3"),
        ([(protocol.sha256(DATA), [(name(PARTS), len(DATA), 2**32 - 1, 2**32 - 1)])], "which has 3"),
        ([(protocol.sha256(DATA), [(name(PARTS), len(DATA) - 1, 0, 3)])], "the chunks named have"),
        ([(protocol.sha256(DATA), [("0" * 64, len(DATA), 0, 3)])], "has not come"),
        ([(None, [whole()])], "without its SHA-256"),
        ([(protocol.sha256(b""), [])], "size 0"),
        ([(protocol.sha256(DATA), [whole()] * 400_000)], "is larger than"),
        ([(protocol.sha256(b"other"), [whole()])], "and not"),
    ],
    ids=range(10),
)
def test_a_shard_that_lies_is_refused(services: Services, ann_sends: Sender, files: Any, sentence: str) -> None:
    ann_sends.xorb(PARTS)
    answer = ann_sends.shard(*files)
    assert sentence in protocol.error_of(answer, 413 if "larger" in sentence else 422)
    with transaction(services.sessions) as session:
        assert session.scalars(select(Holding.sha256)).all() == []
        assert session.scalars(select(Blob.sha256).where(Blob.state != "receiving")).all() == []


def test_nothing_of_a_shard_is_built_if_any_of_it_lies(services: Services, ann_sends: Sender) -> None:
    ann_sends.xorb(PARTS)
    protocol.error_of(
        ann_sends.shard((protocol.sha256(DATA), [whole()]), (protocol.sha256(DATA), [("0" * 64, 1, 0, 1)])), 422
    )
    protocol.error_of(ann_sends.shard(body=shard((protocol.sha256(DATA), [whole()]))[:-48]), 422)
    protocol.error_of(ann_sends.shard(body=b"not a shard"), 422)
    with transaction(services.sessions) as session:
        assert session.scalars(select(Blob.sha256)).all() == []


def test_a_connection_that_ends_leaves_nothing(hub_url: str, services: Services, ann_sends: Sender) -> None:
    body = chunk(os.urandom(100_000)) * 30
    address = urlsplit(hub_url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = (
            f"POST {ann_sends.path}/v1/xorbs/default/{'0' * 64} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            f"Authorization: {ann_sends.headers['Authorization']}\r\n\r\n"
        )
        connection.sendall(head.encode() + body[: len(body) // 2])
    time.sleep(0.5)
    nothing_is_left(services)


# What it costs, and how long it is kept


def peak_mib(work: Callable[[], object]) -> float:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def test_memory_does_not_grow_with_the_xorb_or_the_file(services: Services, ann: Person) -> None:
    with transaction(services.sessions) as session:
        place = xet.grant(instance_keys.key(session), "ann").upload
    contents = [bytes([number]) * 131_072 for number in range(200)]
    body = b"".join(chunk(data) for data in contents)
    pieces = (body[at : at + 2**20] for at in range(0, len(body), 2**20))
    grown = peak_mib(lambda: xet.receive_xorb(services, place, name(contents), len(body), pieces))
    assert grown < 12  # of 25
    file = b"".join(contents * 4)
    listed = shard((protocol.sha256(file), [whole(contents)] * 4))
    path = services.settings.cache_dir.parent / "shard"
    path.write_bytes(listed)
    with path.open("rb") as opened:
        assert peak_mib(lambda: xet.receive_shard(services, place, opened)) < 12  # of 100


def test_epochs_are_swept_when_nobody_can_ask_for_them(services: Services, ann_sends: Sender) -> None:
    ann_sends.xorb(PARTS)
    epoch = ann_sends.path.rsplit("/", 1)[1]
    assert {key.split("/")[1] for key in services.storage.keys(xet.XORBS)} == {epoch}
    start = datetime.strptime(epoch[:8], "%Y%m%d").replace(tzinfo=UTC)
    grace = timedelta(hours=48)
    xet.drop_xorbs(services, start + timedelta(days=4), grace)
    assert {key.split("/")[1] for key in services.storage.keys(xet.XORBS)} == {epoch}
    xet.drop_xorbs(services, start + timedelta(days=4, seconds=1), grace)
    assert list(services.storage.keys(xet.XORBS)) == []
    assert "upload again" in protocol.error_of(ann_sends.shard((protocol.sha256(DATA), [whole()])), 422)


def test_an_instance_has_epochs_of_its_own() -> None:
    day = datetime(2026, 11, 24, 12, tzinfo=UTC)
    epochs = {xet.epoch(key, at) for key in (b"a", b"b") for at in (day, day + timedelta(days=1))}
    assert len(epochs) == 4
    assert {epoch[:9] for epoch in epochs} == {"20261124-", "20261125-"}
    assert UploadEpoch("ann", xet.epoch(b"a", day)).prefix == f"xorbs/{xet.epoch(b'a', day)}/ann/"
