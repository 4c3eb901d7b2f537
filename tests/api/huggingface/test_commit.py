"""Commits: what their lines may say, what is refused and leaves nothing, and what becomes of the tree."""

import json
import threading
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from api.huggingface import commit as commit_route
from hub.registry.models.content import Blob, Commit, Tree
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support import protocol
from tests.support.files import peft_folder

PLAIN = {"a.txt": b"one", "dir/b.txt": b"two", "dir/c.txt": b"three"}


@pytest.fixture(autouse=True)
def repo(client: TestClient, ann: Person) -> None:
    protocol.create(client, ann, "ann/r")


def rows(services: Services) -> list[int | None]:
    with transaction(services.sessions) as session:
        return [session.scalar(select(func.count()).select_from(table)) for table in (Blob, Commit, Tree)]


def test_files_are_added_copied_and_deleted(client: TestClient, ann: Person) -> None:
    first = protocol.committed(client, ann, "ann/r", PLAIN)
    answer = protocol.commit(
        client,
        ann,
        "ann/r",
        protocol.line("deletedFolder", path="dir/"),
        protocol.line("deletedFile", path="a.txt"),
        protocol.line("copyFile", path="moved.txt", srcPath="dir/b.txt"),
        protocol.line("copyFile", path="dir/old.txt", srcPath="dir/c.txt", srcRevision=first),
        protocol.inline("a.txt", b"new"),
    )
    assert answer.json()["success"] is True
    assert answer.json()["commitUrl"] == f"http://testserver/ann/r/commit/{answer.json()['commitOid']}"
    expected = {"a.txt": b"new", "moved.txt": b"two", "dir/old.txt": b"three"}
    assert protocol.tree(client, ann, "ann/r") == {path: protocol.git_oid(data) for path, data in expected.items()}
    assert protocol.tree(client, ann, "ann/r", at=first) == {
        path: protocol.git_oid(data) for path, data in PLAIN.items()
    }
    assert client.get("/ann/r/resolve/main/dir/old.txt", headers=ann.headers).content == b"three"


def test_a_data_set_works_the_same_way(client: TestClient, ann: Person) -> None:
    protocol.create(client, ann, "ann/rows", type="dataset")
    protocol.committed(client, ann, "ann/rows", PLAIN, kind="datasets")
    assert len(protocol.tree(client, ann, "ann/rows", kind="datasets")) == 3
    answer = client.get("/datasets/ann/rows/resolve/main/dir%2Fb.txt", headers=ann.headers)
    assert answer.content == b"two"
    protocol.error_of(client.get("/api/models/ann/rows", headers=ann.headers), 404, "RepoNotFound")


def test_a_commit_that_changes_nothing_is_the_head(client: TestClient, ann: Person) -> None:
    head = protocol.committed(client, ann, "ann/r", PLAIN)
    assert protocol.commit(client, ann, "ann/r", protocol.inline("a.txt", b"one")).json()["commitOid"] == head


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


HEADER = encoded(protocol.header())
HASH = "0" * 64
MALFORMED: dict[str, tuple[int, str, list[bytes]]] = {
    "no header": (422, "no header", [encoded(protocol.inline("a", b""))]),
    "empty": (422, "no header", [b""]),
    "two headers": (422, "Line 2", [HEADER, HEADER]),
    "not JSON": (422, "Line 2", [HEADER, b"{nonsense\n"]),
    "not UTF-8": (422, "Line 2", [HEADER, b'{"key": "\xff"}\n']),
    "a list": (422, "Line 2", [HEADER, b"[]\n"]),
    "nested without end": (422, "Line 2", [HEADER, b"[" * 100_000 + b"\n"]),
    "unknown key": (422, "Line 2", [HEADER, encoded({"key": "rm", "value": {}})]),
    "no value": (422, "Line 2", [HEADER, encoded({"key": "file"})]),
    "bad base64": (422, "base64", [HEADER, encoded({"key": "file", "value": {"path": "a", "content": "%%%"}})]),
    "cut base64": (422, "base64", [HEADER, encoded({"key": "file", "value": {"path": "a", "content": "abc"}})]),
    "not ASCII": (422, "base64", [HEADER, encoded({"key": "file", "value": {"path": "a", "content": "äää="}})]),
    "other encoding": (422, "Line 2", [HEADER, encoded(protocol.line("file", path="a", content="", encoding="utf-8"))]),
    "bad hash": (
        422,
        "Line 2",
        [HEADER, encoded(protocol.line("lfsFile", path="a", algo="sha256", oid="xyz", size=1))],
    ),
    "other algorithm": (422, "Line 2", [HEADER, encoded(protocol.line("lfsFile", path="a", algo="md5", oid=HASH))]),
    "negative size": (422, "Line 2", [HEADER, encoded(protocol.line("lfsFile", path="a", oid=HASH, size=-1))]),
    "never sent": (422, "not held", [HEADER, encoded(protocol.line("lfsFile", path="a", oid=HASH, size=1))]),
    "absent file": (404, "to delete", [HEADER, encoded(protocol.line("deletedFile", path="absent"))]),
    "absent folder": (404, "to delete", [HEADER, encoded(protocol.line("deletedFolder", path="absent"))]),
    "absent source": (404, "to copy", [HEADER, encoded(protocol.line("copyFile", path="a", srcPath="absent"))]),
    "bad parent": (422, "Line 1", [encoded(protocol.header(parentCommit="zzz"))]),
    "stale parent": (
        412,
        "try again",
        [encoded(protocol.header(parentCommit="0" * 40)), encoded(protocol.inline("a", b"1"))],
    ),
    "NUL in the message": (
        422,
        "cannot be kept",
        [encoded(protocol.header(description="\0")), encoded(protocol.inline("a", b""))],
    ),
    "file and folder": (
        422,
        "rename",
        [HEADER, encoded(protocol.inline("a", b"1")), encoded(protocol.inline("a/b", b"2"))],
    ),
    **{
        f"path {path!r}": (422, "path", [HEADER, encoded(protocol.inline(path, b"1"))])
        for path in (
            "",
            "/a",
            "a//b",
            "../a",
            "a/./b",
            "a/",
            ".git/config",
            "a\\b",
            "a\nb",
            "a\0",
            "x" * 256,
            "y/" * 600 + "z",
        )
    },
    "half a surrogate": (422, "Line 2", [HEADER, b'{"key": "file", "value": {"path": "\\ud800", "content": ""}}\n']),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_refused_with_a_sentence_and_leaves_nothing(
    client: TestClient, services: Services, ann: Person, name: str
) -> None:
    status, words, lines = MALFORMED[name]
    before = rows(services)
    fine = [encoded(protocol.inline("fine.txt", b"fine"))] if lines[0] == HEADER else []
    answer = protocol.commit(client, ann, "ann/r", *lines[:1], *fine, *lines[1:])
    code = "EntryNotFound" if status == 404 else None
    assert words.replace("Line 2", "Line 3" if fine else "Line 2") in protocol.error_of(answer, status, code)
    assert rows(services) == before


def test_a_line_or_commit_without_end_is_refused(
    client: TestClient, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_route, "MAX_LINE_BYTES", 1_000)
    protocol.error_of(protocol.commit(client, ann, "ann/r", protocol.inline("a", bytes(1_000))), 413)
    monkeypatch.setattr(commit_route, "MAX_LINES", 2)
    protocol.error_of(
        protocol.commit(client, ann, "ann/r", protocol.inline("a", b"1"), protocol.inline("b", b"1")), 413
    )


def test_a_lying_size_is_refused(client: TestClient, ann: Person) -> None:
    data = b"some weights"
    protocol.put(client, protocol.batch(client, ann, "ann/r", data), data)
    answer = protocol.commit(client, ann, "ann/r", protocol.lfs_file("a.bin", data, size=5))
    assert "was announced with 5 bytes" in protocol.error_of(answer, 422)
    without = protocol.line("lfsFile", path="a.bin", algo="sha256", oid=protocol.sha256(data))
    assert protocol.commit(client, ann, "ann/r", without).status_code == 200


def test_where_one_may_commit(client: TestClient, ann: Person, bob: Person) -> None:
    head = protocol.committed(client, ann, "ann/r", peft_folder())
    one = protocol.inline("a", b"1")
    assert "no branch" in protocol.error_of(
        protocol.commit(client, ann, "ann/r", one, at="absent"), 404, "RevisionNotFound"
    )
    for fixed in (head, "v1"):
        assert "no branch" in protocol.error_of(
            protocol.commit(client, ann, "ann/r", one, at=fixed), 404, "RevisionNotFound"
        )
    assert "read-only name" in protocol.error_of(protocol.commit(client, ann, "ann/r.v1", one), 403)
    protocol.error_of(protocol.commit(client, bob, "ann/r", one), 403)
    assert client.post("/api/models/ann/r/branch/dev%2Fx", headers=ann.headers).status_code == 200
    on_branch = protocol.commit(client, ann, "ann/r", one, at="dev%2Fx").json()["commitOid"]
    assert "a" in protocol.tree(client, ann, "ann/r", at="dev%2Fx")
    assert "a" not in protocol.tree(client, ann, "ann/r")
    assert client.get("/ann/r/resolve/dev%2Fx/a", headers=ann.headers).headers["X-Repo-Commit"] == on_branch


def test_pull_requests_are_refused_clearly(client: TestClient, ann: Person) -> None:
    for path in ("preupload", "commit"):
        answer = client.post(f"/api/models/ann/r/{path}/main?create_pr=1", headers=ann.headers, json={"files": []})
        assert "no pull requests" in protocol.error_of(answer, 400)


def test_of_two_who_commit_at_once_both_are_heard(client: TestClient, ann: Person) -> None:
    """Without a parent commit a client says what changes, whatever the head is."""
    answers: list[Any] = []

    def add(path: str) -> None:
        answers.append(protocol.commit(client, ann, "ann/r", protocol.inline(path, path.encode())))

    threads = [threading.Thread(target=add, args=(f"{n}.txt",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len(protocol.tree(client, ann, "ann/r")) == 4


def test_with_a_parent_only_one_of_two_is_heard(client: TestClient, ann: Person) -> None:
    head = client.get("/api/models/ann/r", headers=ann.headers).json()["sha"]
    first = protocol.commit(client, ann, "ann/r", protocol.header(parentCommit=head[:7]), protocol.inline("a", b"1"))
    assert first.status_code == 200
    second = protocol.commit(client, ann, "ann/r", protocol.header(parentCommit=head), protocol.inline("b", b"1"))
    protocol.error_of(second, 412)


# Inspection


def test_an_adapter_gets_facts_and_a_version(client: TestClient, ann: Person) -> None:
    head = protocol.committed(client, ann, "ann/r", peft_folder())
    adapter = client.get("/v1/adapters/ann/r", headers=ann.headers).json()
    assert (adapter["commit"], adapter["adapters"][0]["rank"]) == (head, 2)
    assert [ref["name"] for ref in adapter["refs"] if ref["kind"] == "version"] == ["v1"]
    protocol.commit(client, ann, "ann/r", protocol.line("deletedFile", path="adapter_config.json"))
    assert client.get("/v1/adapters", headers=ann.headers).json()["items"] == []


def test_findings_are_warnings_of_the_answer(client: TestClient, ann: Person) -> None:
    files = peft_folder(base="/home/me/base")
    protocol.put(
        client,
        protocol.batch(client, ann, "ann/r", files["adapter_model.safetensors"]),
        files["adapter_model.safetensors"],
    )
    lines = [
        protocol.lfs_file("adapter_model.safetensors", files["adapter_model.safetensors"]),
        protocol.inline("adapter_config.json", files["adapter_config.json"]),
    ]
    answer = protocol.commit(client, ann, "ann/r", *lines)
    topics = [value.partition(";")[0] for value in answer.headers.get_list("X-HF-Warning")]
    assert topics == ["local_base", "no_card"]


def test_what_is_certainly_broken_is_refused(client: TestClient, services: Services, ann: Person) -> None:
    files = peft_folder()
    broken = files["adapter_model.safetensors"][:-4]
    protocol.put(client, protocol.batch(client, ann, "ann/r", broken), broken)
    answer = protocol.commit(
        client,
        ann,
        "ann/r",
        protocol.lfs_file("adapter_model.safetensors", broken),
        protocol.inline("adapter_config.json", files["adapter_config.json"]),
    )
    assert "adapter_model.safetensors" in protocol.error_of(answer, 422)
    assert protocol.tree(client, ann, "ann/r") == {}


def test_other_things_than_adapters_are_welcome(client: TestClient, ann: Person) -> None:
    files = {"config.json": b"{}", "model.safetensors": peft_folder()["adapter_model.safetensors"], "notes.bin": b"x"}
    protocol.committed(client, ann, "ann/r", files)
    protocol.committed(client, ann, "ann/r", {"adapter_config.json": peft_folder()["adapter_config.json"]})
    assert len(protocol.tree(client, ann, "ann/r")) == 4


# Preupload


def test_preupload_says_how_to_send_and_what_is_there(client: TestClient, ann: Person) -> None:
    protocol.committed(
        client, ann, "ann/r", {"a.txt": b"one", "w.safetensors": peft_folder()["adapter_model.safetensors"]}
    )
    large = bytes(2**20 + 1)
    files = {"a.txt": b"two", "w.safetensors": b"x", "empty.bin": b"", "large.txt": large}
    answers = protocol.preupload(client, ann, "ann/r", files).json()["files"]
    assert {each["path"]: (each["uploadMode"], each.get("oid")) for each in answers} == {
        "a.txt": ("regular", protocol.git_oid(b"one")),
        "w.safetensors": ("lfs", protocol.sha256(peft_folder()["adapter_model.safetensors"])),
        "empty.bin": ("regular", None),
        "large.txt": ("lfs", None),
    }
    assert all(each["shouldIgnore"] is False for each in answers)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"files": [{"path": "a"}]}', b'{"files": [{"path": "../a", "size": 1}]}', b'{"files": 3}'],
)
def test_a_malformed_preupload_is_refused(client: TestClient, ann: Person, body: bytes) -> None:
    headers = {**ann.headers, "Content-Type": "application/json"}
    protocol.error_of(client.post("/api/models/ann/r/preupload/main", headers=headers, content=body), 422)
