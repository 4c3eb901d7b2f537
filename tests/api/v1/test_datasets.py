"""/v1/datasets over HTTP: examples go in and come out unchanged, pinned by commit, and nobody reads more than they may."""

import hashlib
import io
import zipfile
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.conftest import Person
from tests.support.files import examples_file
from tests.support.http import upload

ROWS = examples_file(5)


def sent(client: TestClient, person: Person, name: str, data: bytes = ROWS, **form: str) -> Any:
    answer = upload(client, person.headers, name, {"train.jsonl": data}, kind="datasets", **form)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_what_goes_in_comes_out(client: TestClient, ann: Person) -> None:
    body = sent(client, ann, "ann/task", message="Five rows")
    digest = hashlib.sha256(ROWS).hexdigest()
    assert body["files"] == [{"path": "train.jsonl", "size": len(ROWS), "sha256": digest}]
    assert body["visibility"] == "internal"
    assert client.get("/v1/datasets/ann/task", headers=ann.headers).json() == body
    file = client.get("/v1/datasets/ann/task/files/train.jsonl", headers=ann.headers)
    assert (file.content, file.headers["ETag"]) == (ROWS, f'"{digest}"')
    part = client.get("/v1/datasets/ann/task/files/train.jsonl", headers={**ann.headers, "Range": "bytes=3-9"})
    assert (part.status_code, part.content) == (206, ROWS[3:10])


def test_an_earlier_commit_keeps_its_rows(client: TestClient, ann: Person) -> None:
    first = sent(client, ann, "ann/task")
    second = sent(client, ann, "ann/task", examples_file(9))
    assert second["commit"] != first["commit"]
    path = f"/v1/datasets/ann/task?revision={first['commit']}"
    assert client.get(path, headers=ann.headers).json()["files"] == first["files"]
    path = f"/v1/datasets/ann/task/files/train.jsonl?revision={first['commit']}"
    assert client.get(path, headers=ann.headers).content == ROWS
    missing = client.get("/v1/datasets/ann/task?revision=v1", headers=ann.headers)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "revision_not_found")


@pytest.mark.parametrize("files", [{"notes.txt": b"no rows"}, {"empty.jsonl": b""}, {"data.csv": b"a,b\n1,2\n"}])
def test_what_has_no_examples_is_refused(client: TestClient, ann: Person, files: dict[str, bytes]) -> None:
    answer = upload(client, ann.headers, "ann/task", files, kind="datasets")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "no_examples")
    assert client.get("/v1/datasets/ann/task", headers=ann.headers).status_code == 404


@pytest.mark.parametrize("path", ["../up.jsonl", "/etc/x.jsonl", "a/../../x.jsonl"])
def test_a_file_s_name_stays_within_the_repo(client: TestClient, ann: Person, path: str) -> None:
    answer = upload(client, ann.headers, "ann/task", {path: ROWS}, kind="datasets")
    assert answer.status_code == 422, answer.text
    assert path in answer.json()["error"]["message"]


def test_who_may_read_and_write(client: TestClient, ann: Person, bob: Person) -> None:
    sent(client, ann, "ann/private", visibility="private")
    sent(client, ann, "ann/internal")
    sent(client, ann, "ann/public", visibility="public")

    def seen(headers: dict[str, str]) -> list[str]:
        return [item["repo"] for item in client.get("/v1/datasets", headers=headers).json()["items"]]

    assert seen(ann.headers) == ["ann/internal", "ann/private", "ann/public"]
    assert seen(bob.headers) == ["ann/internal", "ann/public"]
    assert seen({}) == ["ann/public"]
    for path in ("", "/files/train.jsonl"):
        hidden = client.get(f"/v1/datasets/ann/private{path}", headers=bob.headers)
        absent = client.get(f"/v1/datasets/ann/absent{path}", headers=bob.headers)
        assert (hidden.status_code, hidden.text.replace("private", "absent")) == (404, absent.text)
    assert client.delete("/v1/datasets/ann/private", headers=bob.headers).status_code == 404
    assert client.delete("/v1/datasets/ann/internal", headers=bob.headers).status_code == 403
    assert client.delete("/v1/datasets/ann/internal").status_code == 401
    refused = upload(client, bob.headers, "ann/internal", {"a.jsonl": ROWS}, kind="datasets")
    assert refused.status_code == 403
    assert client.delete("/v1/datasets/ann/internal", headers=ann.headers).status_code == 204
    assert seen(ann.headers) == ["ann/private", "ann/public"]


def test_pages(client: TestClient, ann: Person) -> None:
    for name in ("c", "a", "b"):
        sent(client, ann, f"ann/{name}")
    first = client.get("/v1/datasets?limit=2", headers=ann.headers).json()
    assert ([item["repo"] for item in first["items"]], first["cursor"]) == (["ann/a", "ann/b"], "ann/b")
    rest = client.get(f"/v1/datasets?limit=2&cursor={first['cursor']}", headers=ann.headers).json()
    assert ([item["repo"] for item in rest["items"]], rest["cursor"]) == (["ann/c"], None)
    assert client.get("/v1/datasets?limit=0", headers=ann.headers).status_code == 422


def test_a_deleted_data_set_is_restored_by_an_administrator(client: TestClient, ann: Person, admin: Person) -> None:
    body = sent(client, ann, "ann/task")
    assert client.delete("/v1/datasets/ann/task", headers=ann.headers).status_code == 204
    assert client.get("/v1/datasets/ann/task", headers=admin.headers).status_code == 404
    assert client.post("/v1/datasets/ann/task/restore", headers=ann.headers).status_code == 403
    restored = client.post("/v1/datasets/ann/task/restore", headers=admin.headers)
    assert restored.json() == {"repo": "ann/task", "visibility": "internal"}
    assert client.get("/v1/datasets/ann/task", headers=ann.headers).json() == body


def test_visibility_is_changed_and_the_whole_is_a_zip(client: TestClient, ann: Person, bob: Person) -> None:
    sent(client, ann, "ann/task", visibility="private")
    assert client.get("/v1/datasets/ann/task/archive", headers=bob.headers).status_code == 404
    refused = client.patch("/v1/datasets/ann/task", headers=bob.headers, json={"visibility": "public"})
    assert refused.status_code == 404
    changed = client.patch("/v1/datasets/ann/task", headers=ann.headers, json={"visibility": "public"})
    assert changed.json()["visibility"] == "public"
    archive = client.get("/v1/datasets/ann/task/archive").content
    with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
        assert {name: zipped.read(name) for name in zipped.namelist()} == {"train.jsonl": ROWS}
