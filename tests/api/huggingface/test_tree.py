"""Listings: pages of a tree, folders, single paths, the commit that last changed a file, and the commits of a line."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from api.huggingface import tree as tree_route
from hub.registry.content import history, repos, trees
from hub.registry.content.history import Entry
from hub.registry.models.content import Commit
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support import protocol

PATHS = ["a", "a-b/x", "a.txt", "b/c/d", "b/c-/e", "b/d", "b/é", "ä/z", "Z"]


@pytest.fixture(autouse=True)
def repo(client: TestClient, ann: Person) -> None:
    protocol.create(client, ann, "ann/r")
    protocol.committed(client, ann, "ann/r", {path: path.encode() for path in PATHS})


def listed(client: TestClient, person: Person, path: str) -> list[Any]:
    """All pages, each by the Link of the one before."""
    found: list[Any] = []
    url: str | None = f"/api/models/ann/r/{path}"
    while url:
        answer = client.get(url, headers=person.headers)
        assert answer.status_code == 200, answer.text
        found.append([item["path"] for item in answer.json()])
        assert answer.links.get("next", {}).get("url", "http://testserver").startswith("http://testserver")
        url = protocol.local(answer.links["next"]["url"]) if "next" in answer.links else None
    return found


@pytest.mark.parametrize("limit", [1, 2, 3, 8, 100])
def test_pages_hold_every_file_once_and_each_folder_before_its_files(
    client: TestClient, ann: Person, limit: int
) -> None:
    pages = listed(client, ann, f"tree/main?recursive=True&limit={limit}")
    everything = [path for page in pages for path in page]
    files = [path for path in everything if path in PATHS]
    assert files == sorted(PATHS, key=str.encode)
    assert set(everything) - set(PATHS) == {"a-b", "b", "b/c", "b/c-", "ä"}
    assert len(everything) == len(set(everything))
    for path in PATHS:
        folder = path.rpartition("/")[0]
        if folder:
            assert everything.index(folder) < everything.index(path)
    assert all(sum(path in PATHS for path in page) <= limit for page in pages)


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_a_folder_shows_what_lies_directly_in_it(client: TestClient, ann: Person, limit: int) -> None:
    def flat(path: str) -> list[str]:
        return [item for page in listed(client, ann, f"{path}?limit={limit}") for item in page]

    assert flat("tree/main") == ["Z", "a", "a-b", "a.txt", "b", "ä"]
    assert flat("tree/main/b") == ["b/c", "b/c-", "b/d", "b/é"]
    assert flat("tree/main/b%2Fc") == flat("tree/main/b/c/") == ["b/c/d"]
    assert flat("tree/main/%C3%A4") == ["ä/z"]


def test_folders_have_identities_that_change_with_the_tree(client: TestClient, ann: Person) -> None:
    def oids() -> dict[str, str]:
        items = client.get("/api/models/ann/r/tree/main", headers=ann.headers).json()
        return {item["path"]: item["oid"] for item in items if item["type"] == "directory"}

    before = oids()
    assert all(len(oid) == 40 for oid in before.values())
    assert len(set(before.values())) == 3
    protocol.committed(client, ann, "ann/r", {"b/new": b"1"})
    assert oids()["b"] != before["b"]


@pytest.mark.parametrize("path", ["absent", "b/c/d", "b/c/d/e", "B"])
def test_what_is_no_folder_is_not_found(client: TestClient, ann: Person, path: str) -> None:
    for recursive in (False, True):
        answer = client.get(f"/api/models/ann/r/tree/main/{path}?recursive={recursive}", headers=ann.headers)
        protocol.error_of(answer, 404, "EntryNotFound")
    protocol.error_of(client.get("/api/models/ann/r/tree/absent", headers=ann.headers), 404, "RevisionNotFound")


def test_paths_info(client: TestClient, ann: Person) -> None:
    answer = client.post(
        "/api/models/ann/r/paths-info/main",
        headers=ann.headers,
        data={"paths": ["b", "a.txt", "absent", "b/c/"], "expand": "True"},
    )
    shown = answer.json()
    assert [(item["type"], item["path"]) for item in shown] == [
        ("directory", "b"),
        ("file", "a.txt"),
        ("directory", "b/c"),
    ]
    assert shown[1]["lastCommit"]["title"] == "A change"
    one = client.post("/api/models/ann/r/paths-info/main", headers=ann.headers, data={"paths": "a"}).json()
    assert one == [{"type": "file", "path": "a", "oid": protocol.git_oid(b"a"), "size": 1}]
    protocol.error_of(client.post("/api/models/ann/r/paths-info/main", headers=ann.headers), 422)


def test_each_file_names_the_commit_that_gave_it_its_bytes(
    client: TestClient, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_route, "EXPANDED_PAGE", 2)
    first = client.get("/api/models/ann/r", headers=ann.headers).json()["sha"]
    second = protocol.committed(client, ann, "ann/r", {"a": b"other", "new": b"1"})
    third = protocol.committed(client, ann, "ann/r", {"a": b"a"})  # as it was, yet given again
    assert len(listed(client, ann, "tree/main?expand=True")) == 4
    changed: dict[str, str] = {}
    url = "/api/models/ann/r/tree/main?expand=True&recursive=True"
    while url:
        answer = client.get(url, headers=ann.headers)
        changed |= {item["path"]: item["lastCommit"]["id"] for item in answer.json() if item["type"] == "file"}
        url = protocol.local(answer.links["next"]["url"]) if "next" in answer.links else ""
    assert changed == {**dict.fromkeys(PATHS, first), "new": second, "a": third}


def test_commits_of_a_line_in_pages(client: TestClient, ann: Person) -> None:
    first = client.get("/api/models/ann/r", headers=ann.headers).json()["sha"]
    client.post("/api/models/ann/r/branch/dev%2Fx", headers=ann.headers)
    second = protocol.committed(client, ann, "ann/r", {"a": b"2"})
    branch = protocol.committed(client, ann, "ann/r", {"a": b"3"}, at="dev%2Fx")
    page = client.get("/api/models/ann/r/commits/main?limit=2", headers=ann.headers)
    assert [commit["id"] for commit in page.json()] == [second, first]
    rest = client.get(protocol.local(page.links["next"]["url"]), headers=ann.headers)
    assert [commit["title"] for commit in rest.json()] == ["initial commit"]
    assert "next" not in rest.links
    on_branch = client.get("/api/models/ann/r/commits/dev%2Fx", headers=ann.headers).json()
    assert [commit["id"] for commit in on_branch][:2] == [branch, first]


def test_ten_thousand_files_come_in_pages(client: TestClient, services: Services, ann: Person) -> None:
    with transaction(services.sessions) as session:
        repo = repos.find(session, ann.viewer, "model", "ann/r")
        some = repos.files(session, repos.resolve(session, repo))[0]
        entries = [Entry(f"data/{n // 100:03}/{n:05}.txt", some.sha256, some.size, some.git_oid) for n in range(10_000)]
        history.publish(session, repo, entries, author_id=ann.viewer.id, message="many")
    pages = listed(client, ann, "tree/main?recursive=true")
    assert [sum(path.endswith(".txt") for path in page) for page in pages] == [1_000] * 10
    assert len(listed(client, ann, "tree/main/data")[0]) == 100
    with transaction(services.sessions) as session:
        commit = session.get_one(Commit, repos.resolve(session, repo).id)
        assert len(trees.history(session, commit, 10)) == 3


# What is sent by LFS


@pytest.mark.parametrize(
    ("path", "size", "lfs"),
    [
        ("model.safetensors", 1, True),
        ("MODEL.SAFETENSORS", 1, True),
        ("model.safetensors", 0, False),
        ("notes.txt", 2**20, False),
        ("notes.txt", 2**20 + 1, True),
        ("tokenizer.json", 100, False),
    ],
)
def test_lfs_is_a_matter_of_name_and_size(path: str, size: int, lfs: bool) -> None:
    assert trees.is_lfs(path, size) is lfs
