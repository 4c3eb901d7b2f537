"""Who knows the hash of a private file of another team gets neither its bytes nor the knowledge that it is there.

Each request is made twice: for a file that ann holds in private, and for one that nobody has. Bob must not be able to tell them apart.
"""

from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from hub.registry.models.content import Holding
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support import protocol
from tests.support.files import floats, safetensors
from tests.support.protocol import visible

SECRET = safetensors({"weight": ((64,), floats(64, 1))})
UNKNOWN = safetensors({"weight": ((64,), floats(64, 2))})
SMALL, NOWHERE = b"a small secret", b"that nobody has"


@pytest.fixture(autouse=True)
def secrets(client: TestClient, ann: Person, bob: Person) -> None:
    protocol.create(client, ann, "ann/hidden", private=True)
    protocol.committed(client, ann, "ann/hidden", {"model.safetensors": SECRET, "note.txt": SMALL})
    protocol.create(client, bob, "bob/own")


@pytest.mark.parametrize(("known", "unknown"), [(SECRET, UNKNOWN), (SMALL, NOWHERE[: len(SMALL)])])
def test_a_commit_by_hash_finds_nothing(client: TestClient, bob: Person, known: bytes, unknown: bytes) -> None:
    answers = [protocol.commit(client, bob, "bob/own", protocol.lfs_file("a.bin", data)) for data in (known, unknown)]
    assert visible(answers[0], known) == visible(answers[1], unknown)
    assert "are not held by 'bob'" in protocol.error_of(answers[0], 422)
    without_size = [
        protocol.commit(
            client, bob, "bob/own", protocol.line("lfsFile", path="a.bin", algo="sha256", oid=protocol.sha256(data))
        )
        for data in (known, unknown)
    ]
    assert visible(without_size[0], known) == visible(without_size[1], unknown)
    assert protocol.tree(client, bob, "bob/own") == {}


def test_the_lfs_batch_asks_for_the_bytes(client: TestClient, services: Services, bob: Person) -> None:
    answers = [protocol.batch(client, bob, "bob/own", data) for data in (SECRET, UNKNOWN)]
    assert [sorted(answer["actions"]) for answer in answers] == [["upload", "verify"]] * 2
    wrong = [protocol.put(client, answer, bytes(len(SECRET))) for answer in answers]
    assert "SHA-256" in protocol.error_of(wrong[0], 422)
    assert visible(wrong[0], SECRET) == visible(wrong[1], UNKNOWN)
    body = [{"oid": protocol.sha256(data), "size": len(data)} for data in (SECRET, UNKNOWN)]
    verified = [client.post("/bob/own.git/info/lfs/verify", headers=bob.headers, json=each) for each in body]
    assert visible(verified[0], SECRET) == visible(verified[1], UNKNOWN)
    assert verified[0].status_code == 422
    with transaction(services.sessions) as session:
        assert session.scalars(select(Holding.sha256).where(Holding.namespace == "bob")).all() == []


def test_preupload_tells_of_the_own_repo_alone(client: TestClient, bob: Person) -> None:
    answer = protocol.preupload(client, bob, "bob/own", {"model.safetensors": SECRET, "note.txt": SMALL})
    assert answer.json()["files"] == [
        {"path": "model.safetensors", "uploadMode": "lfs", "shouldIgnore": False},
        {"path": "note.txt", "uploadMode": "regular", "shouldIgnore": False},
    ]


def test_a_copy_reaches_no_other_repo(client: TestClient, ann: Person, bob: Person) -> None:
    head = client.get("/api/models/ann/hidden", headers=ann.headers).json()["sha"]
    for revision in (head, "0" * 40):
        answer = protocol.commit(
            client,
            bob,
            "bob/own",
            protocol.line("copyFile", path="a.bin", srcPath="model.safetensors", srcRevision=revision),
        )
        assert "has no branch, tag, version or commit" in protocol.error_of(answer, 404, "RevisionNotFound")
    answer = protocol.commit(
        client, bob, "bob/own", protocol.line("copyFile", path="a.bin", srcPath="model.safetensors")
    )
    protocol.error_of(answer, 404, "EntryNotFound")


def test_the_repo_answers_as_if_it_were_not_there(client: TestClient, ann: Person, bob: Person) -> None:
    head = client.get("/api/models/ann/hidden", headers=ann.headers).json()["sha"]
    requests: list[tuple[str, str, Any]] = [
        ("GET", "/api/models/{}", None),
        ("GET", "/api/models/{}/revision/main", None),
        ("GET", f"/api/models/{{}}/revision/{head}", None),
        ("GET", "/api/models/{}/tree/main", None),
        ("POST", "/api/models/{}/paths-info/main", {"paths": ["model.safetensors"]}),
        ("GET", "/api/models/{}/refs", None),
        ("GET", "/api/models/{}/commits/main", None),
        ("GET", "/{}/resolve/main/model.safetensors", None),
        ("HEAD", "/{}/resolve/main/model.safetensors", None),
        ("GET", f"/{{}}/resolve/{head}/model.safetensors", None),
        ("GET", "/{}.v1/resolve/main/model.safetensors", None),
        ("GET", "/api/models/{}/auth-check", None),
        ("GET", "/api/models/{}/auth-check/write", None),
        ("POST", "/api/models/{}/preupload/main", []),
        ("POST", "/api/models/{}/branch/other", []),
        ("POST", "/api/models/{}/duplicate", [{"repository": "bob/mine"}]),
        ("PUT", "/api/models/{}/settings", [{"private": False}]),
        ("POST", "/api/models/{}/commit/main", None),
    ]
    for method, path, body in requests:
        for headers in (bob.headers, {}):
            answers = []
            for name in ("ann/hidden", "ann/absent"):
                given = {"data": body} if isinstance(body, dict) else {"json": body[0] if body else {"files": []}}
                sent = given if method in ("POST", "PUT") else {}
                answer = client.request(method, path.format(name), headers=headers, **sent)
                answers.append(
                    (answer.status_code, answer.text.replace(name, "NAME"), answer.headers.get("X-Error-Code"))
                )
            assert answers[0] == answers[1], path
            assert answers[0][0] in (404, 401), path
            if answers[0][0] == 404:
                assert answers[0][2] == "RepoNotFound"


def test_a_copy_of_the_bytes_is_a_right_to_them(client: TestClient, services: Services, bob: Person) -> None:
    """Whoever sends the same bytes holds them too."""
    assert protocol.put(client, protocol.batch(client, bob, "bob/own", SECRET), SECRET).status_code == 200
    assert "actions" not in protocol.batch(client, bob, "bob/own", SECRET)
    assert protocol.commit(client, bob, "bob/own", protocol.lfs_file("a.bin", SECRET)).status_code == 200
    assert client.get("/bob/own/resolve/main/a.bin", headers=bob.headers).content == SECRET
