"""Bytes: in S3 before any row names them, refused if they are not what their name says, and given to nobody who did not send them."""

import hashlib
import io
import threading
import time
from datetime import timedelta
from typing import BinaryIO

import pytest
from botocore.exceptions import ClientError
from sqlalchemy import func, select, text, update

from hub.registry.content import blobs, history, repos
from hub.registry.content.blobs import Incoming
from hub.registry.library import publishing
from hub.registry.models.content import Blob, Holding
from hub.registry.operations import garbage
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import NotFound, Unavailable
from hub.registry.platform.services import Services
from hub.registry.platform.storage import CHUNK, Storage
from hub.registry.platform.streams import WrongBytes
from tests.conftest import Person
from tests.support.published import incoming


def one(data: bytes, path: str = "notes.txt") -> Incoming:
    return incoming({path: data})[0]


def store(services: Services, namespace: str, *files: Incoming) -> None:
    blobs.store(services.sessions, services.storage, namespace, files)


def state(services: Services, sha256: str) -> str | None:
    with transaction(services.sessions) as session:
        return session.scalar(select(Blob.state).where(Blob.sha256 == sha256))


def holders(services: Services, sha256: str) -> list[str]:
    with transaction(services.sessions) as session:
        return list(session.scalars(select(Holding.namespace).where(Holding.sha256 == sha256)))


def test_a_file_has_the_names_that_sha256sum_and_git_give_it() -> None:
    file = blobs.hash_file("hello", io.BytesIO(b"hello\n"))
    assert file.size == 6
    assert file.sha256 == "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"  # echo hello | sha256sum
    assert file.git_oid == "ce013625030ba8dba906f756967f9e9ca394464a"  # echo hello | git hash-object --stdin


def test_a_file_larger_than_a_chunk_is_hashed_whole() -> None:
    data = bytes(range(256)) * (CHUNK // 256) + b"and the rest"
    assert one(data).sha256 == hashlib.sha256(data).hexdigest()


def test_stored_bytes_can_be_read_and_are_held_by_their_sender_alone(services: Services, ann: Person) -> None:
    file = one(b"some bytes")
    store(services, ann.name, file)
    assert services.storage.read(file.sha256, 0, file.size) == b"some bytes"
    assert state(services, file.sha256) == "stored"
    assert holders(services, file.sha256) == ["ann"]


class Died(Exception):
    """What a killed process looks like from inside a test."""


class DyingStorage(Storage):
    """Storage whose process dies: before the bytes are sent, or just after."""

    def __init__(self, services: Services, *, after_put: bool) -> None:
        super().__init__(services.settings)
        self.after_put = after_put

    def put(self, sha256: str, file: BinaryIO, size: int) -> None:
        if self.after_put:
            super().put(sha256, file, size)
        raise Died


@pytest.mark.parametrize("after_put", [False, True])
def test_a_crash_on_the_way_to_storage_leaves_no_row_that_claims_the_bytes(
    services: Services, ann: Person, after_put: bool
) -> None:
    file = one(f"crashed, after_put={after_put}".encode())
    with pytest.raises(Died):
        blobs.store(services.sessions, DyingStorage(services, after_put=after_put), ann.name, [file])
    assert services.storage.exists(file.sha256) is after_put
    assert state(services, file.sha256) == "receiving"
    assert holders(services, file.sha256) == []
    with transaction(services.sessions) as session:
        assert blobs.held(session, ann.name, [file.sha256]) == set()
    store(services, ann.name, file)
    assert state(services, file.sha256) == "stored"
    assert services.storage.read(file.sha256, 0, file.size) == f"crashed, after_put={after_put}".encode()


def test_the_same_bytes_are_one_blob_whoever_sends_them_and_however_often(
    services: Services, ann: Person, bob: Person
) -> None:
    file = one(b"sent twice")
    store(services, ann.name, file, one(b"sent twice", "copy.txt"))
    store(services, bob.name, file)
    store(services, bob.name, file)
    with transaction(services.sessions) as session:
        assert session.scalar(select(func.count()).select_from(Blob)) == 1
    assert sorted(holders(services, file.sha256)) == ["ann", "bob"]


def test_knowing_a_hash_gives_nothing(services: Services, ann: Person, bob: Person) -> None:
    """Bob commits the hash of bytes that only Ann holds, so the commit is refused."""
    file = one(b"Ann's own")
    store(services, ann.name, file)
    with transaction(services.sessions) as session:
        assert blobs.held(session, bob.name, [file.sha256]) == set()
        assert blobs.held(session, ann.name, [file.sha256]) == {file.sha256}
        repo = repos.ensure(session, bob.viewer, "model", "bob/stolen", None)
        with pytest.raises(history.BytesMissing, match=r"notes\.txt"):
            history.publish(session, repo, publishing.entries([file]), author_id=bob.viewer.id, message="mine")


def test_what_is_not_stored_yet_cannot_be_published(services: Services, ann: Person) -> None:
    file = one(b"announced only")
    with pytest.raises(Died):
        blobs.store(services.sessions, DyingStorage(services, after_put=True), ann.name, [file])
    with transaction(services.sessions) as session:
        session.add(Holding(namespace=ann.name, sha256=file.sha256))
        session.flush()
        repo = repos.ensure(session, ann.viewer, "model", "ann/early", None)
        with pytest.raises(history.BytesMissing):
            history.publish(session, repo, publishing.entries([file]), author_id=ann.viewer.id, message="early")


def mark(services: Services, sha256: str, state: str) -> None:
    with transaction(services.sessions) as session:
        session.execute(update(Blob).where(Blob.sha256 == sha256).values(state=state))


def test_an_upload_that_meets_a_deletion_waits_and_then_stores_anew(services: Services, ann: Person) -> None:
    file = one(b"going and coming")
    store(services, ann.name, file)
    with transaction(services.sessions) as session:
        session.execute(update(Blob).values(state="deleting", touched_at=text("now() - interval '3 days'")))
    upload = threading.Thread(target=store, args=(services, ann.name, one(b"going and coming")))
    upload.start()
    time.sleep(0.5)
    assert upload.is_alive()
    assert state(services, file.sha256) == "deleting"
    assert garbage.collect(services, timedelta(hours=48)) == 1
    upload.join(10)
    assert not upload.is_alive()
    assert state(services, file.sha256) == "stored"
    assert holders(services, file.sha256) == ["ann"]
    assert services.storage.read(file.sha256, 0, file.size) == b"going and coming"


def test_an_upload_does_not_wait_for_ever(services: Services, ann: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "COLLECTION_WAIT_SECONDS", 0.3)
    file = one(b"stuck")
    store(services, ann.name, file)
    mark(services, file.sha256, "deleting")
    with pytest.raises(Unavailable, match="being removed"):
        store(services, ann.name, file)


def test_s3_itself_refuses_bytes_that_do_not_have_their_name(services: Services) -> None:
    name = hashlib.sha256(b"what it says").hexdigest()
    with pytest.raises(ClientError) as refused:
        services.storage.put(name, io.BytesIO(b"what it is.."), 12)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert not services.storage.exists(name)


def test_reads_are_of_exactly_the_bytes_asked_for(services: Services) -> None:
    data = bytes(range(256)) * (CHUNK // 256) + b"over one chunk"
    file = one(data)
    services.storage.put(file.sha256, file.file, file.size)
    read, stream = services.storage.read, services.storage.stream
    assert read(file.sha256, 0, 1) == data[:1]
    assert read(file.sha256, 100, 50) == data[100:150]
    assert read(file.sha256, file.size - 3, 3) == data[-3:]
    assert read(file.sha256, 5, 0) == b""
    assert b"".join(stream(file.sha256, 0, file.size)) == data
    assert b"".join(stream(file.sha256, 7, CHUNK + 3)) == data[7 : CHUNK + 3]
    assert list(stream(file.sha256, 5, 5)) == []
    assert max(len(piece) for piece in stream(file.sha256, 0, file.size)) <= CHUNK


def test_an_empty_file_is_a_file(services: Services, ann: Person) -> None:
    file = one(b"")
    store(services, ann.name, file)
    assert services.storage.exists(file.sha256)
    assert b"".join(services.storage.stream(file.sha256, 0, 0)) == b""


def test_missing_bytes_are_said_to_be_missing_before_anything_is_sent(services: Services) -> None:
    absent = "0" * 64
    with pytest.raises(NotFound, match=absent):
        services.storage.read(absent, 0, 10)
    with pytest.raises(NotFound, match=absent):
        services.storage.stream(absent, 0, 10)


def test_an_s3_server_that_does_not_answer_is_unavailable_and_not_a_bug(services: Services, ann: Person) -> None:
    nowhere = Storage(services.settings.model_copy(update={"s3_endpoint_url": "http://127.0.0.1:9"}))
    file = one(b"nowhere to go")
    with pytest.raises(Unavailable, match="S3"):
        nowhere.ping()
    with pytest.raises(Unavailable, match="S3"):
        nowhere.read(file.sha256, 0, 10)
    with pytest.raises(Unavailable, match="S3"):
        blobs.store(services.sessions, nowhere, ann.name, [file])
    assert holders(services, file.sha256) == []


# Streams whose hash was said beforehand


def receive(services: Services, namespace: str, data: bytes, *pieces: bytes) -> None:
    sha256 = hashlib.sha256(data).hexdigest()
    blobs.receive(services.sessions, services.storage, namespace, sha256, len(data), iter(pieces))


def test_a_stream_is_stored_in_pieces_with_both_its_names(services: Services, ann: Person) -> None:
    data = bytes(range(256)) * 9_000
    receive(services, "ann", data, data[:1_000], b"", data[1_000:2_000_000], data[2_000_000:])
    file = one(data)
    assert services.storage.read(file.sha256, 0, file.size) == data
    assert holders(services, file.sha256) == ["ann"]
    with transaction(services.sessions) as session:
        assert session.get_one(Blob, file.sha256).git_oid == file.git_oid


@pytest.mark.parametrize("sent", [[b"other bytes"], [b"some"], [b"some", b" bytes! and more"], []])
def test_a_stream_of_other_bytes_than_announced_stores_nothing(
    services: Services, ann: Person, sent: list[bytes]
) -> None:
    file = one(b"some bytes!")
    with pytest.raises(WrongBytes, match="send"):
        receive(services, "ann", b"some bytes!", *sent)
    assert holders(services, file.sha256) == []
    assert not services.storage.exists(file.sha256)


def test_who_streams_what_another_holds_must_have_it_too(services: Services, ann: Person, bob: Person) -> None:
    file = one(b"a secret of ann's")
    store(services, "ann", file)
    with pytest.raises(WrongBytes):
        receive(services, "bob", b"a secret of ann's", b"x" * file.size)
    assert holders(services, file.sha256) == ["ann"]
    receive(services, "bob", b"a secret of ann's", b"a secret of ann's")
    assert sorted(holders(services, file.sha256)) == ["ann", "bob"]
