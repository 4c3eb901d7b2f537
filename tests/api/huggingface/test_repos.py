"""Whole repos, their refs, what the API reports of them, and who may."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support import protocol
from tests.support.files import peft_folder
from tests.support.published import base

WEIGHTS = peft_folder()["adapter_model.safetensors"]


def info(client: TestClient, person: Person, name: str = "ann/r", kind: str = "models") -> Any:
    return client.get(f"/api/{kind}/{name}", headers=person.headers)


@pytest.mark.parametrize(
    ("said", "visibility"),
    [
        ({}, "internal"),
        ({"private": True}, "private"),
        ({"private": False}, "public"),
        ({"visibility": "public"}, "public"),
    ],
)
def test_a_new_repo_is_as_visible_as_asked(
    client: TestClient, ann: Person, said: dict[str, Any], visibility: str
) -> None:
    assert protocol.create(client, ann, "ann/r", **said)["url"] == "http://testserver/ann/r"
    repo = info(client, ann).json()
    assert (repo["visibility"], repo["private"]) == (visibility, visibility != "public")
    assert (repo["siblings"], len(repo["sha"])) == ([], 40)


def test_addresses_are_those_that_the_client_used(client: TestClient, ann: Person) -> None:
    headers = {**ann.headers, "X-Forwarded-Proto": "https", "X-Forwarded-Host": "hub.example"}
    answer = client.post("/api/repos/create", headers=headers, json={"name": "rows", "type": "dataset"})
    assert answer.json()["url"] == "https://hub.example/datasets/ann/rows"


def test_an_existing_repo_is_named_with_its_address_and_a_held_name_is_not(
    client: TestClient, ann: Person, bob: Person
) -> None:
    protocol.create(client, ann, "ann/r")
    body = {"name": "r", "organization": "ann"}
    again = client.post("/api/repos/create", headers=ann.headers, json=body)
    protocol.error_of(again, 409)
    assert again.json()["url"] == "http://testserver/ann/r"
    protocol.error_of(client.post("/api/repos/create", headers=bob.headers, json=body), 403)
    protocol.error_of(client.request("DELETE", "/api/repos/delete", headers=bob.headers, json=body), 403)
    assert client.request("DELETE", "/api/repos/delete", headers=ann.headers, json=body).status_code == 200
    protocol.error_of(info(client, ann), 404, "RepoNotFound")
    assert "was deleted" in protocol.error_of(client.post("/api/repos/create", headers=ann.headers, json=body), 403)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "ann/b/c"},
        {"name": "r.v3"},
        {"name": "-r"},
        {"name": "r", "type": "space"},
        {"name": "r", "visibility": "x"},
    ],
)
def test_a_name_that_cannot_be_is_refused(client: TestClient, ann: Person, body: dict[str, Any]) -> None:
    protocol.error_of(client.post("/api/repos/create", headers=ann.headers, json=body), 422)


def test_a_repo_moves_with_its_bytes(client: TestClient, services: Services, ann: Person, admin: Person) -> None:
    protocol.create(client, ann, "ann/r")
    protocol.committed(client, ann, "ann/r", peft_folder())
    move = {"fromRepo": "ann/r", "toRepo": "admin/s", "type": "model"}
    protocol.error_of(client.post("/api/repos/move", headers=ann.headers, json=move), 403)
    assert client.post("/api/repos/move", headers=admin.headers, json=move).status_code == 200
    protocol.error_of(info(client, admin), 404, "RepoNotFound")
    assert "actions" not in protocol.batch(client, admin, "admin/s", WEIGHTS)
    protocol.committed(client, admin, "admin/s", {"more": b"1"})
    found = client.get("/v1/adapters?q=admin/s", headers=admin.headers).json()["items"]
    assert [item["repo"] for item in found] == ["admin/s"]
    protocol.create(client, ann, "ann/r")
    protocol.error_of(
        client.post("/api/repos/move", headers=admin.headers, json={**move, "toRepo": "ann/r", "fromRepo": "admin/s"}),
        409,
    )


def test_a_copy_is_no_more_visible_than_its_source(client: TestClient, ann: Person, bob: Person) -> None:
    protocol.create(client, ann, "ann/r", visibility="internal")
    protocol.committed(client, ann, "ann/r", peft_folder())
    path = "/api/models/ann/r/duplicate"
    wider = client.post(path, headers=bob.headers, json={"repository": "bob/s", "visibility": "public"})
    assert "cannot be public" in protocol.error_of(wider, 403)
    assert (
        client.post(path, headers=bob.headers, json={"repository": "bob/s"}).json()["url"] == "http://testserver/bob/s"
    )
    assert info(client, bob, "bob/s").json()["visibility"] == "internal"
    assert client.get("/bob/s/resolve/v1/adapter_model.safetensors", headers=bob.headers).content == WEIGHTS
    protocol.error_of(client.post(path, headers=bob.headers, json={"repository": "bob/s"}), 409)
    mine = client.post(path, headers=ann.headers, json={"repository": "ann/s", "visibility": "public"})
    assert mine.status_code == 200


def test_settings(client: TestClient, ann: Person, bob: Person) -> None:
    protocol.create(client, ann, "ann/r")
    path = "/api/models/ann/r/settings"
    assert client.put(path, headers=ann.headers, json={"visibility": "public"}).json()["private"] is False
    assert client.get("/api/models/ann/r").status_code == 200
    assert client.put(path, headers=ann.headers, json={"private": True}).json()["visibility"] == "private"
    assert client.put(path, headers=ann.headers, json={"gated": False}).status_code == 200
    assert "no gated repos" in protocol.error_of(client.put(path, headers=ann.headers, json={"gated": "auto"}), 400)
    protocol.error_of(client.put(path, headers=bob.headers, json={"private": False}), 404, "RepoNotFound")


def test_auth_check(client: TestClient, ann: Person, bob: Person) -> None:
    protocol.create(client, ann, "ann/r")
    for person, path, status in [(ann, "", 200), (ann, "/write", 200), (bob, "", 200), (bob, "/write", 403)]:
        assert client.get(f"/api/models/ann/r/auth-check{path}", headers=person.headers).status_code == status
    protocol.error_of(client.get("/api/models/ann/r/auth-check"), 404, "RepoNotFound")


# Branches, tags and versions


def test_branches_and_tags(client: TestClient, ann: Person, bob: Person) -> None:
    protocol.create(client, ann, "ann/r")
    head = protocol.committed(client, ann, "ann/r", peft_folder())
    path = "/api/models/ann/r"
    assert client.post(f"{path}/branch/dev%2Fx", headers=ann.headers, json={"startingPoint": head}).status_code == 200
    assert client.post(f"{path}/tag/main", headers=ann.headers, json={"tag": "good", "message": "m"}).status_code == 200
    protocol.error_of(client.post(f"{path}/branch/dev%2Fx", headers=ann.headers), 409)
    protocol.error_of(client.post(f"{path}/branch/other", headers=bob.headers), 403)
    start = client.post(f"{path}/branch/y", headers=ann.headers, json={"startingPoint": "absent"})
    protocol.error_of(start, 404, "RevisionNotFound")
    refs = client.get(f"{path}/refs?include_prs=1", headers=ann.headers).json()
    assert [ref["name"] for ref in refs["branches"]] == ["dev/x", "main"]
    assert {(ref["name"], ref["ref"], ref["targetCommit"]) for ref in refs["tags"]} == {
        ("good", "refs/tags/good", head),
        ("v1", "refs/tags/v1", head),
    }
    assert (refs["converts"], refs["pullRequests"]) == ([], [])
    assert client.get(f"{path}/revision/dev%2Fx", headers=ann.headers).json()["sha"] == head
    assert client.delete(f"{path}/branch/dev%2Fx", headers=ann.headers).status_code == 200
    assert client.delete(f"{path}/tag/good", headers=ann.headers).status_code == 200
    protocol.error_of(client.delete(f"{path}/tag/good", headers=ann.headers), 404, "RevisionNotFound")
    protocol.error_of(client.delete(f"{path}/tag/v1", headers=ann.headers), 403)
    protocol.error_of(client.delete(f"{path}/branch/main", headers=ann.headers), 403)


@pytest.mark.parametrize(
    "name", ["v7", "0" * 40, "refs/pr/1", ".a", "-a", "a..b", "a//b", "a.lock", "a b", "x" * 256, "a\n"]
)
def test_names_that_no_branch_can_have(client: TestClient, ann: Person, name: str) -> None:
    protocol.create(client, ann, "ann/r")
    protocol.error_of(client.post("/api/models/ann/r/tag/main", headers=ann.headers, json={"tag": name}), 422)


def test_a_name_that_pins_a_version(client: TestClient, ann: Person) -> None:
    protocol.create(client, ann, "ann/r")
    first = protocol.committed(client, ann, "ann/r", peft_folder(seed=1))
    second = protocol.committed(client, ann, "ann/r", peft_folder(seed=2))
    repo = info(client, ann, "ann/r.v1").json()
    assert (repo["id"], repo["sha"]) == ("ann/r.v1", first)
    for revision in ("main", "v1", first):
        answer = client.get(f"/ann/r.v1/resolve/{revision}/adapter_model.safetensors", headers=ann.headers)
        assert answer.headers["X-Repo-Commit"] == first
        assert answer.content == peft_folder(seed=1)["adapter_model.safetensors"]
    for revision in ("v2", second, "absent"):
        answer = client.get(f"/ann/r.v1/resolve/{revision}/adapter_model.safetensors", headers=ann.headers)
        protocol.error_of(answer, 404, "RevisionNotFound")
    protocol.error_of(info(client, ann, "ann/r.v3"), 404, "RepoNotFound")
    assert client.get("/api/models/ann/r.v1/refs", headers=ann.headers).json()["branches"][0]["targetCommit"] == first
    protocol.error_of(client.post("/api/models/ann/r.v1/branch/x", headers=ann.headers), 403)


# What the API reports of a repo


def test_an_adapter_s_tags_come_from_its_files(client: TestClient, services: Services, ann: Person) -> None:
    base(services, "team/base", "tests/tiny-base")
    protocol.create(client, ann, "ann/r")
    protocol.committed(client, ann, "ann/r", peft_folder())
    repo = client.get("/api/models/ann/r?blobs=true&securityStatus=true&expand=tags", headers=ann.headers).json()
    wanted = ["peft", "safetensors", "lora", "base_model:tests/tiny-base", "base_model:adapter:tests/tiny-base"]
    assert repo["tags"][:5] == wanted
    assert {"base_model:adapter:team/base", "license:apache-2.0", "tiny", "test"} <= set(repo["tags"])
    assert (repo["library_name"], repo["pipeline_tag"], repo["baseModels"]) == (
        "peft",
        "text-generation",
        ["team/base"],
    )
    assert repo["cardData"]["license"] == "apache-2.0"
    assert repo["usedStorage"] == sum(map(len, peft_folder().values()))
    (weights,) = [file for file in repo["siblings"] if file["rfilename"] == "adapter_model.safetensors"]
    assert weights["lfs"] == {"sha256": protocol.sha256(WEIGHTS), "size": len(WEIGHTS), "pointerSize": 134}


def names(client: TestClient, person: Person | None, query: str, kind: str = "models") -> list[str]:
    """All pages of a list."""
    found: list[str] = []
    url = f"/api/{kind}?{query}"
    while url:
        answer = client.get(url, headers=person.headers if person else {})
        assert answer.status_code == 200, answer.text
        found += [repo["id"] for repo in answer.json()]
        url = protocol.local(answer.links["next"]["url"]) if "next" in answer.links else ""
    return found


def test_lists_are_filtered_searched_sorted_and_paged(
    client: TestClient, services: Services, ann: Person, bob: Person
) -> None:
    base(services, "team/base", "tests/tiny-base")
    for person, name, options in [
        (ann, "ann/first", {}),
        (ann, "ann/dora", {"use_dora": False, "task_type": "SEQ_CLS"}),
        (bob, "bob/Plain", None),
        (bob, "bob/hidden", {"seed": 3}),
    ]:
        protocol.create(client, person, name, visibility="private" if name == "bob/hidden" else "internal")
        protocol.committed(client, person, name, {"note": b"1"} if options is None else peft_folder(**options))
    protocol.committed(client, ann, "ann/first", {"more": b"1"})
    assert names(client, ann, "limit=1") == names(client, ann, "") == ["ann/first", "bob/Plain", "ann/dora"]
    assert names(client, ann, "sort=createdAt&limit=2") == ["bob/Plain", "ann/dora", "ann/first"]
    assert names(client, ann, "author=bob") == ["bob/Plain"]
    assert names(client, ann, "search=plain") == ["bob/Plain"]
    assert names(client, ann, "filter=lora&filter=license:apache-2.0&limit=1") == ["ann/first", "ann/dora"]
    assert names(client, ann, "filter=base_model:adapter:team/base") == ["ann/first", "ann/dora"]
    assert names(client, ann, "filter=base_model:adapter:other") == names(client, ann, "filter=absent") == []
    assert names(client, ann, "pipeline_tag=text-classification") == ["ann/dora"]
    assert names(client, None, "") == names(client, ann, "", kind="datasets") == []
    by_likes = client.get("/api/models?sort=likes", headers=ann.headers)
    assert "does not count likes" in by_likes.headers["X-HF-Warning"]
    full = client.get("/api/models?full=True&author=bob", headers=ann.headers).json()
    assert [file["rfilename"] for file in full[0]["siblings"]] == ["note"]
    protocol.error_of(client.get("/api/models?cursor=mine", headers=ann.headers), 422)


def test_what_a_list_is_not_filtered_by_is_said(client: TestClient, ann: Person) -> None:
    protocol.create(client, ann, "ann/r")
    answer = client.get("/api/models?apps=vllm&num_parameters=min:1B&gated=False", headers=ann.headers)
    assert len(answer.json()) == 1
    assert answer.headers.get_list("X-HF-Warning") == [
        f"{name}; This hub does not filter by {name}; the list is as without it." for name in ("apps", "num_parameters")
    ]
    assert client.get("/api/models?gated=true", headers=ann.headers).json() == []


def test_repos_without_a_namespace_are_not_there(client: TestClient, ann: Person) -> None:
    for path in ("/api/models/gpt2", "/api/models/gpt2/revision/main", "/gpt2/resolve/main/config.json"):
        protocol.error_of(client.get(path, headers=ann.headers), 404, "RepoNotFound")


# Cards


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        ("---\nlicense: mit\nbase_model: team/base\n---\n", 200, []),
        ("---\nlicense: mit\nbase_model: /home/me/base\n---\n", 200, ["a path of one machine"]),
        ("---\nbase_model: some/thing\n---\n", 200, ["not registered", "no license"]),
        ("no front matter", 200, ["no license"]),
        ("---\nlicense: [\n---\n", 400, []),
        ("---\n- a list\n---\n", 400, []),
    ],
)
def test_cards_are_checked_before_they_are_committed(
    client: TestClient, services: Services, ann: Person, content: str, status: int, words: list[str]
) -> None:
    base(services, "team/base")
    body = {"content": content, "repoType": "model"}
    answer = client.post("/api/validate-yaml", headers=ann.headers, json=body)
    assert answer.status_code == status
    assert len(answer.json()["errors"]) == (status == 400)
    warnings = [warning["message"] for warning in answer.json()["warnings"]]
    assert len(warnings) == len(words)
    assert all(word in warning for word, warning in zip(words, warnings, strict=True))


@pytest.mark.parametrize(
    ("method", "path", "sentence"),
    [
        ("POST", "super-squash/main", "stay as long as their repo"),
        ("GET", "lfs-files", "stay as long as their repo"),
        ("POST", "lfs-files/batch", "stay as long as their repo"),
        ("GET", "discussions?p=0", "no discussions"),
        ("POST", "discussions/1/comment", "no discussions"),
    ],
)
def test_what_is_not_offered_says_so(client: TestClient, ann: Person, method: str, path: str, sentence: str) -> None:
    answer = client.request(method, f"/api/models/ann/r/{path}", headers=ann.headers)
    assert sentence in protocol.error_of(answer, 400)


def test_other_kinds_of_repo_are_not_there(client: TestClient, ann: Person) -> None:
    for path in ("/api/spaces", "/api/spaces/ann/r", "/api/users/ann/likes"):
        assert "models and data sets" in protocol.error_of(client.get(path, headers=ann.headers), 404)
