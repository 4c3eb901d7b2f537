"""/v1/adapters over HTTP: upload, refusals, list, one adapter, download, visibility, delete and restore."""

import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from hub.registry.access.permissions import AdministerHub, authorize
from hub.registry.content import repos
from hub.registry.models.content import Blob, Repo
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import RepoNotFound
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.files import peft_folder
from tests.support.http import upload, upload_adapter


def zipped(files: dict[str, bytes], folder: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, data in files.items():
            archive.writestr(folder + path, data)
    return buffer.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_what_goes_in_comes_out(client: TestClient, ann: Person) -> None:
    files = peft_folder(rank=2)
    answer = upload(client, ann.headers, "ann/first", files, message="The first")
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert (body["repo"], body["version"]) == ("ann/first", "v1")

    found = client.get("/v1/adapters/ann/first", headers=ann.headers).json()
    assert (found["commit"], found["message"], found["visibility"]) == (body["commit"], "The first", "internal")
    (folder,) = found["adapters"]
    assert (folder["rank"], folder["base_model"], folder["base_id"]) == (2, "tests/tiny-base", None)
    assert {finding["code"] for finding in folder["findings"]} >= {"unknown_base"}
    assert {entry["path"]: entry["sha256"] for entry in found["files"]} == {
        path: hashlib.sha256(data).hexdigest() for path, data in files.items()
    }
    assert {ref["name"] for ref in found["refs"]} == {"main", "v1"}

    for path, data in files.items():
        reply = client.get(f"/v1/adapters/ann/first/files/{path}", headers=ann.headers)
        assert reply.content == data
        assert reply.headers["ETag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    archive = client.get("/v1/adapters/ann/first/archive", headers=ann.headers)
    with zipfile.ZipFile(io.BytesIO(archive.content)) as unpacked:
        assert {name: unpacked.read(name) for name in unpacked.namelist()} == files
        assert unpacked.testzip() is None


@pytest.mark.parametrize(("name", "pack"), [("a.zip", zipped), ("a.tar.gz", tarred)])
def test_an_archive_is_as_good_as_files(client: TestClient, ann: Person, name: str, pack: Any) -> None:
    files = peft_folder()
    answer = upload(client, ann.headers, "ann/packed", {name: pack(files)})
    assert answer.status_code == 201, answer.text
    found = client.get("/v1/adapters/ann/packed", headers=ann.headers).json()
    assert {entry["path"] for entry in found["files"]} == set(files)


def test_ranges(client: TestClient, ann: Person) -> None:
    upload_adapter(client, ann.headers, "ann/ranged")
    path = "/v1/adapters/ann/ranged/files/adapter_config.json"
    whole = client.get(path, headers=ann.headers).content

    def part(header: str) -> Any:
        return client.get(path, headers={**ann.headers, "Range": header})

    first = part("bytes=0-0")
    assert (first.status_code, first.content) == (206, whole[:1])
    assert first.headers["Content-Range"] == f"bytes 0-0/{len(whole)}"
    assert part("bytes=5-").content == whole[5:]
    assert part("bytes=-7").content == whole[-7:]
    assert part("bytes=2-4").content == whole[2:5]
    assert part("items=0-1").status_code == 200
    assert part(f"bytes={len(whole)}-").status_code == 416


def broken(**changes: bytes | None) -> dict[str, bytes]:
    files: dict[str, bytes | None] = {**peft_folder(), **changes}
    return {path: data for path, data in files.items() if data is not None}


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n"


@pytest.mark.parametrize(
    "files",
    [
        broken(**{"adapter_model.safetensors": b"not safetensors at all, really"}),
        broken(**{"adapter_model.safetensors": peft_folder()["adapter_model.safetensors"][:-9]}),
        broken(**{"adapter_model.safetensors": POINTER}),
        broken(**{"adapter_model.safetensors": None, "adapter_model.bin": b"\x80\x04."}),
        broken(**{"adapter_config.json": b"{}"}),
        broken(**{"adapter_config.json": b"{"}),
        broken(**{"adapter_config.json": None}),
        broken(**{"adapter_model.safetensors": peft_folder(rank=3)["adapter_model.safetensors"]}),
    ],
)
def test_what_is_broken_is_refused_with_its_findings_and_nothing_is_kept(
    client: TestClient, services: Services, ann: Person, files: dict[str, bytes]
) -> None:
    answer = upload(client, ann.headers, "ann/broken", files)
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert error["code"]
    assert any(finding["severity"] == "error" and finding["remedy"] for finding in error["findings"])
    with transaction(services.sessions) as session:
        assert session.query(Repo).count() == 0
        assert session.query(Blob).count() == 0


def test_nobody_uploads_without_signing_in_or_into_another_s_namespace(
    client: TestClient, ann: Person, bob: Person
) -> None:
    assert upload(client, {}, "ann/x", peft_folder()).status_code == 401
    assert upload(client, {"Authorization": "Bearer ll_wrong"}, "ann/x", peft_folder()).status_code == 401
    refused = upload(client, bob.headers, "ann/x", peft_folder())
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    assert upload(client, bob.headers, "nobody/x", peft_folder()).status_code == 403


@pytest.mark.parametrize("name", ["x", "ann/", "ann/a b", "ann/../x", "ann/a--b", "ann/x.v3", "ann/.x"])
def test_bad_names(client: TestClient, ann: Person, name: str) -> None:
    answer = upload(client, ann.headers, name, peft_folder())
    assert answer.status_code == 422, answer.text


def test_versions_follow_the_weights(client: TestClient, ann: Person) -> None:
    assert upload_adapter(client, ann.headers, "ann/v", seed=1)["version"] == "v1"
    again = upload_adapter(client, ann.headers, "ann/v", seed=1)
    assert again["version"] == "v1"
    assert upload_adapter(client, ann.headers, "ann/v", seed=2)["version"] == "v2"
    old = client.get("/v1/adapters/ann/v?revision=v1", headers=ann.headers).json()
    assert old["commit"] == again["commit"]
    assert client.get("/v1/adapters/ann/v?revision=v9", headers=ann.headers).status_code == 404


def test_a_card_alone_makes_a_commit_but_no_version(client: TestClient, ann: Person) -> None:
    files = peft_folder()
    first = upload(client, ann.headers, "ann/card", files).json()
    files["README.md"] += b"More.\n"
    second = upload(client, ann.headers, "ann/card", files).json()
    assert second["commit"] != first["commit"]
    assert second["version"] is None


def names(client: TestClient, headers: dict[str, str] | None = None, **query: Any) -> list[str]:
    answer = client.get("/v1/adapters", headers=headers or {}, params=query)
    assert answer.status_code == 200, answer.text
    return [item["repo"] for item in answer.json()["items"]]


def test_filters(client: TestClient, ann: Person, bob: Person) -> None:
    upload_adapter(client, ann.headers, "ann/plurals", rank=2, base="org/base-a")
    upload_adapter(client, ann.headers, "ann/capitals", rank=4, base="org/base-b")
    upload_adapter(client, bob.headers, "bob/plural-verbs", rank=2, base="org/base-b")
    assert names(client, ann.headers) == ["bob/plural-verbs", "ann/capitals", "ann/plurals"]
    assert names(client, ann.headers, q="plural") == ["bob/plural-verbs", "ann/plurals"]
    assert names(client, ann.headers, q="plural base-a") == ["ann/plurals"]
    assert names(client, ann.headers, q="100%") == []
    assert names(client, ann.headers, rank=4) == ["ann/capitals"]
    assert names(client, ann.headers, owner="bob") == ["bob/plural-verbs"]
    assert names(client, ann.headers, base_model="org/base-b") == ["bob/plural-verbs", "ann/capitals"]
    assert names(client, ann.headers, tag="tiny", method="lora") == names(client, ann.headers)
    assert names(client, ann.headers, tag="absent") == []


def test_pages(client: TestClient, ann: Person) -> None:
    made = [f"ann/a{i}" for i in range(5)]
    for name in made:
        upload_adapter(client, ann.headers, name)
    seen: list[str] = []
    cursor = None
    while True:
        page = client.get(
            "/v1/adapters", headers=ann.headers, params={"limit": 2, **({"cursor": cursor} if cursor else {})}
        )
        seen += [item["repo"] for item in page.json()["items"]]
        cursor = page.json()["cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]
    assert client.get("/v1/adapters?cursor=!!", headers=ann.headers).status_code == 422


def test_private_is_not_there_for_others(client: TestClient, ann: Person, bob: Person, admin: Person) -> None:
    """Everything about a private repo answers exactly as if it did not exist."""
    upload_adapter(client, ann.headers, "ann/secret", visibility="private")
    paths = ["", "/archive", "/files/README.md"]
    for headers in (bob.headers, {}):
        for path in paths:
            hidden = client.get(f"/v1/adapters/ann/secret{path}", headers=headers)
            absent = client.get(f"/v1/adapters/ann/absent{path}", headers=headers)
            assert hidden.status_code == absent.status_code == 404
            assert hidden.text.replace("secret", "absent") == absent.text
        assert names(client, headers) == []
    assert client.delete("/v1/adapters/ann/secret", headers=bob.headers).status_code == 404
    assert client.get("/v1/adapters/ann/secret", headers=admin.headers).status_code == 200


def test_internal_is_for_members_and_public_for_all(client: TestClient, ann: Person, bob: Person) -> None:
    upload_adapter(client, ann.headers, "ann/internal")
    upload_adapter(client, ann.headers, "ann/public", visibility="public")
    assert names(client) == ["ann/public"]
    assert names(client, bob.headers) == ["ann/public", "ann/internal"]
    assert client.get("/v1/adapters/ann/internal").status_code == 404
    assert client.delete("/v1/adapters/ann/public", headers=bob.headers).status_code == 403
    assert upload(client, bob.headers, "ann/public", peft_folder(seed=3)).status_code == 403


def test_delete_and_restore(client: TestClient, services: Services, ann: Person, admin: Person) -> None:
    first = upload_adapter(client, ann.headers, "ann/gone")
    assert client.delete("/v1/adapters/ann/gone", headers=ann.headers).status_code == 204
    assert client.get("/v1/adapters/ann/gone", headers=ann.headers).status_code == 404
    assert names(client, ann.headers) == []
    held = upload(client, ann.headers, "ann/gone", peft_folder(seed=2))
    assert (held.status_code, held.json()["error"]["code"]) == (409, "repo_exists")
    assert client.post("/v1/adapters/ann/gone/restore", headers=ann.headers).status_code == 403
    back = client.post("/v1/adapters/ann/gone/restore", headers=admin.headers)
    assert back.status_code == 200
    assert client.get("/v1/adapters/ann/gone", headers=ann.headers).json()["commit"] == first["commit"]
    assert names(client, ann.headers) == ["ann/gone"]
    client.delete("/v1/adapters/ann/gone", headers=ann.headers)
    with transaction(services.sessions) as session, pytest.raises(RepoNotFound):
        repos.restore(session, authorize(admin.viewer, AdministerHub), "model", "ann/gone", days=0)


def test_too_much_is_refused_before_it_is_stored(services: Services, ann: Person) -> None:
    small = replace(services, settings=services.settings.model_copy(update={"max_upload_bytes": 1000}))
    with TestClient(create_app(small)) as client:
        answer = upload(client, ann.headers, "ann/big", peft_folder())
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")

        def unannounced() -> Any:
            for _ in range(100):
                yield b"x" * 100

        headers = {**ann.headers, "Content-Type": "multipart/form-data; boundary=b"}
        assert client.post("/v1/adapters", headers=headers, content=unannounced()).status_code == 413


def test_one_error_shape(client: TestClient, ann: Person) -> None:
    replies = [
        client.get("/v1/adapters/no/such", headers=ann.headers),
        client.get("/v1/nothing"),
        client.post("/v1/jobs", headers=ann.headers, json={"kind": "dance"}),
        client.get("/v1/me"),
        client.put("/v1/me"),
        client.post("/v1/adapters", headers=ann.headers, data={"name": "ann/x"}),
    ]
    for reply in replies:
        assert reply.status_code >= 400
        assert set(reply.json()["error"]) >= {"code", "message"}, reply.text
        assert json.dumps(reply.json())
