"""Downloads: names of bytes in headers, ranges, and redirects where S3 has an address of its own for clients."""

from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from starlette.testclient import TestClient

from hub.registry.platform.services import Services
from hub.registry.platform.settings import Settings
from tests.api.huggingface.conftest import RunClient
from tests.conftest import Person
from tests.support import protocol

DATA = bytes(range(256)) * 20


@pytest.fixture(autouse=True)
def head(client: TestClient, ann: Person) -> str:
    protocol.create(client, ann, "ann/r")
    return protocol.committed(client, ann, "ann/r", {"w.bin": DATA, "a b/ü.txt": b"text", "empty": b""})


def get(client: TestClient, person: Person, path: str, method: str = "GET", **headers: str) -> Any:
    return client.request(
        method, f"/ann/r/resolve/{path}", headers={**person.headers, **headers}, follow_redirects=False
    )


@pytest.mark.parametrize(
    ("path", "data", "etag"),
    [
        ("w.bin", DATA, protocol.sha256(DATA)),
        ("a%20b/%C3%BC.txt", b"text", protocol.git_oid(b"text")),
        ("a%20b%2F%C3%BC.txt", b"text", protocol.git_oid(b"text")),
        ("empty", b"", protocol.git_oid(b"")),
    ],
)
def test_head_and_get_say_the_same(
    client: TestClient, ann: Person, head: str, path: str, data: bytes, etag: str
) -> None:
    for revision in ("main", head):
        asked = get(client, ann, f"{revision}/{path}", "HEAD")
        sent = get(client, ann, f"{revision}/{path}")
        assert (asked.content, sent.content) == (b"", data)
        for answer in (asked, sent):
            assert answer.status_code == 200
            assert answer.headers["ETag"] == f'"{etag}"'
            assert answer.headers["X-Repo-Commit"] == head
            assert answer.headers["Content-Length"] == str(len(data))
            assert answer.headers["Accept-Ranges"] == "bytes"
            assert not [name for name in answer.headers if "xet" in name.lower()]


@pytest.mark.parametrize(
    ("asked", "part", "said"),
    [
        ("bytes=0-0", DATA[:1], "bytes 0-0/5120"),
        ("bytes=5100-", DATA[5100:], "bytes 5100-5119/5120"),
        ("bytes=0-", DATA, "bytes 0-5119/5120"),
        ("bytes=-5", DATA[-5:], "bytes 5115-5119/5120"),
        ("bytes=0-99999", DATA, "bytes 0-5119/5120"),
    ],
)
def test_ranges(client: TestClient, ann: Person, asked: str, part: bytes, said: str) -> None:
    answer = get(client, ann, "main/w.bin", Range=asked)
    assert (answer.status_code, answer.content, answer.headers["Content-Range"]) == (206, part, said)
    assert answer.headers["Content-Length"] == str(len(part))


def test_a_range_beyond_the_file_and_what_is_no_range(client: TestClient, ann: Person) -> None:
    protocol.error_of(get(client, ann, "main/w.bin", Range="bytes=5120-"), 416)
    for asked in ("lines=1-2", "bytes=a-b", "bytes=0-1,3-4"):
        answer = get(client, ann, "main/w.bin", Range=asked)
        assert (answer.status_code, answer.content) == (200, DATA)
        assert "Content-Range" not in answer.headers


def test_what_is_not_there(client: TestClient, ann: Person, head: str) -> None:
    missing = get(client, ann, "main/absent")
    protocol.error_of(missing, 404, "EntryNotFound")
    assert missing.headers["X-Repo-Commit"] == head  # so that clients remember it
    protocol.error_of(get(client, ann, "main/a%20b"), 404, "EntryNotFound")
    protocol.error_of(get(client, ann, "absent/w.bin"), 404, "RevisionNotFound")
    protocol.error_of(get(client, ann, f"{'0' * 40}/w.bin"), 404, "RevisionNotFound")
    assert get(client, ann, "main/absent", "HEAD").headers["X-Error-Code"] == "EntryNotFound"
    protocol.error_of(get(client, ann, "main/%00"), 422)


def test_uploaded_bytes_are_no_page_of_the_hub(client: TestClient, ann: Person) -> None:
    protocol.committed(client, ann, "ann/r", {"page.html": b"<script>alert(1)</script>"})
    answer = get(client, ann, "main/page.html", Accept="text/html")
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert "sandbox" in answer.headers["Content-Security-Policy"]


class TestWithPublicS3:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        """S3 under another name of this machine, so that clients see another host."""
        address = str(settings.s3_endpoint_url).replace("127.0.0.1", "localhost")
        return settings.model_copy(update={"s3_public_url": address})

    def test_the_redirect_says_what_the_file_is(self, client: TestClient, ann: Person, head: str) -> None:
        for method in ("HEAD", "GET"):
            answer = get(client, ann, "main/w.bin", method)
            assert answer.status_code == 302
            assert answer.headers["X-Linked-ETag"] == f'"{protocol.sha256(DATA)}"'
            assert (answer.headers["X-Linked-Size"], answer.headers["X-Repo-Commit"]) == (str(len(DATA)), head)
        with httpx.Client() as plain:
            part = plain.get(answer.headers["Location"], headers={"Range": "bytes=0-0"})
        assert (part.status_code, part.content, part.headers["Content-Range"]) == (206, DATA[:1], "bytes 0-0/5120")

    def test_stock_clients_follow_it(
        self, run_client: RunClient, client: TestClient, services: Services, tmp_path: Path
    ) -> None:
        assert services.settings.s3_public_url
        run_client("""
            from huggingface_hub import HfFileSystem, snapshot_download
            snapshot_download("ann/r", local_dir="down")
            print(HfFileSystem().cat_file("ann/r/w.bin", start=5, end=9))
        """)
        assert (tmp_path / "down/w.bin").read_bytes() == DATA
        assert (tmp_path / "down/a b/ü.txt").read_bytes() == b"text"
