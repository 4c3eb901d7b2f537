"""Aliases: they move with a record, roll back past rollbacks, and a gate lets pass what is shown to be not worse, and nothing else."""

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from hub.registry.models.content import Commit
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.http import json_of
from tests.support.published import adapter, base, dataset
from tests.support.scores import answers, measure

X = "/v1/adapters/ann/x"


@pytest.fixture
def versions(services: Services, ann: Person) -> list[Commit]:
    base(services)
    return [adapter(services, ann, "ann/x", seed=seed) for seed in range(4)]


def put(client: TestClient, person: Person, path: str, body: dict[str, object]) -> Response:
    return client.put(f"{X}/aliases/{path}", json=body, headers=person.headers)


def moved(client: TestClient, person: Person, revision: str, alias: str = "prod") -> dict[str, Any]:
    answer = put(client, person, alias, {"revision": revision})
    assert answer.status_code == 200, answer.text
    return json_of(answer)


def back(client: TestClient, person: Person, alias: str = "prod") -> Response:
    return client.post(f"{X}/aliases/{alias}/rollback", headers=person.headers)


GATE = {"metric": "exact_match", "dataset": "ann/exam", "path": "train.jsonl", "template": "plain", "tolerance": 0.05}


def test_an_alias_moves_with_a_record_and_clients_ask_for_it(
    client: TestClient, ann: Person, versions: list[Commit]
) -> None:
    first = moved(client, ann, "v1")
    assert (first["name"], first["commit"], first["version"]) == ("prod", versions[0].id, "v1")
    found = moved(client, ann, "v3")
    assert [(m["action"], m["commit"], m["by"]) for m in found["moves"]] == [
        ("move", versions[2].id, "ann"),
        ("move", versions[0].id, "ann"),
    ]
    assert len(moved(client, ann, "v3")["moves"]) == 2, "to where it stands already is no move"
    assert client.get(f"{X}?revision=prod", headers=ann.headers).json()["commit"] == versions[2].id
    kinds = {ref["name"]: ref["kind"] for ref in client.get(X, headers=ann.headers).json()["refs"]}
    assert kinds["prod"] == "alias"
    refs = client.get("/api/models/ann/x/refs", headers=ann.headers).json()
    assert {tag["name"]: tag["targetCommit"] for tag in refs["tags"]}["prod"] == versions[2].id
    assert client.get("/ann/x/resolve/prod/adapter_config.json", headers=ann.headers).status_code == 200
    assert [alias["name"] for alias in client.get(f"{X}/aliases", headers=ann.headers).json()] == ["prod"]


def test_rolling_back_goes_one_move_back_each_time(client: TestClient, ann: Person, versions: list[Commit]) -> None:
    for revision in ("v1", "v2", "v3"):
        moved(client, ann, revision)
    assert back(client, ann).json()["version"] == "v2"
    moved(client, ann, "v4")
    assert back(client, ann).json()["version"] == "v2"
    assert back(client, ann).json()["version"] == "v1"
    refused = back(client, ann)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "nothing_to_roll_back")
    moves = client.get(f"{X}/aliases", headers=ann.headers).json()[0]["moves"]
    assert [move["action"] for move in moves] == ["rollback", "rollback", "move", "rollback", "move", "move", "move"]


def test_what_was_before_a_removal_is_no_place_to_go_back_to(
    client: TestClient, ann: Person, versions: list[Commit]
) -> None:
    moved(client, ann, "v1")
    moved(client, ann, "v2")
    assert client.delete(f"{X}/aliases/prod", headers=ann.headers).status_code == 204
    assert client.get(f"{X}/aliases", headers=ann.headers).json() == []
    assert client.get(f"{X}?revision=prod", headers=ann.headers).status_code == 404
    assert back(client, ann).json()["error"]["code"] == "alias_not_found"
    moved(client, ann, "v3")
    assert back(client, ann).status_code == 409
    assert len(client.get(f"{X}/aliases", headers=ann.headers).json()[0]["moves"]) == 4, "the record stays"


@pytest.mark.parametrize(
    ("alias", "status", "code"),
    [("main", 409, "ref_exists"), ("v7", 422, "bad_name"), ("v1", 409, "ref_exists"), ("-x", 422, "bad_name")],
)
def test_names_that_are_no_alias(
    client: TestClient, ann: Person, versions: list[Commit], alias: str, status: int, code: str
) -> None:
    answer = put(client, ann, alias, {"revision": "v1"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_an_alias_is_no_branch_and_no_tag(client: TestClient, ann: Person, versions: list[Commit]) -> None:
    moved(client, ann, "v1")
    headers = ann.headers
    assert client.delete("/api/models/ann/x/tag/prod", headers=headers).status_code == 404
    assert client.delete("/api/models/ann/x/branch/prod", headers=headers).status_code == 404
    assert client.post("/api/models/ann/x/branch/prod", json={}, headers=headers).status_code == 409
    client.post("/api/models/ann/x/branch/work", json={}, headers=headers)
    assert put(client, ann, "work", {"revision": "v1"}).json()["error"]["code"] == "ref_exists"
    assert client.get(f"{X}?revision=prod", headers=headers).json()["commit"] == versions[0].id


def test_who_may_read_may_not_move(client: TestClient, ann: Person, bob: Person, versions: list[Commit]) -> None:
    moved(client, ann, "v1")
    assert put(client, bob, "prod", {"revision": "v2"}).status_code == 403
    assert back(client, bob).status_code == 403
    assert client.delete(f"{X}/aliases/prod", headers=bob.headers).status_code == 403
    assert client.get(f"{X}/aliases", headers=bob.headers).status_code == 200
    client.patch(X, json={"visibility": "private"}, headers=ann.headers)
    for answer in (put(client, bob, "prod", {"revision": "v2"}), back(client, bob), client.get(f"{X}/aliases")):
        assert answer.status_code == 404


def test_a_gate_lets_pass_what_is_shown_to_be_not_worse(
    client: TestClient, services: Services, ann: Person, versions: list[Commit]
) -> None:
    exam = dataset(services, ann, "ann/exam")
    moved(client, ann, "v1")
    gated = put(client, ann, "prod/gate", GATE).json()
    assert (gated["gate"]["dataset_commit"], gated["gate_dataset"]) == (exam.id, "ann/exam")
    refused = put(client, ann, "prod", {"revision": "v2"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "gate_closed")
    assert "run an `evaluate` job" in refused.json()["error"]["message"]

    holder = answers(300)
    measure(services, ann, versions[0], exam, holder)
    worse = [value if index % 8 else 0.0 for index, value in enumerate(holder)]
    measure(services, ann, versions[1], exam, worse)
    refused = put(client, ann, "prod", {"revision": "v2"}).json()["error"]
    lost = sum(worse) / 400 - sum(holder) / 400
    assert f"is {lost:+.3f} better than the holder" in refused["message"]

    measure(services, ann, versions[2], exam, [1 - value for value in worse[:4]] + holder[4:])
    found = moved(client, ann, "v3")
    compared = found["moves"][0]["compared"]
    assert compared["examples"] == 400
    assert compared["low"] > -0.05
    assert back(client, ann).json()["version"] == "v1", "the way out asks no gate"


def test_equal_shares_of_unlike_answers_do_not_pass_as_not_worse(
    client: TestClient, services: Services, ann: Person, versions: list[Commit]
) -> None:
    """The interval is the difference's, example by example: the same share of other answers leaves it wide."""
    exam = dataset(services, ann, "ann/exam")
    measure(services, ann, versions[0], exam, answers(200, seed=1))
    measure(services, ann, versions[1], exam, answers(200, seed=2))
    moved(client, ann, "v1")
    put(client, ann, "prod/gate", GATE)
    assert put(client, ann, "prod", {"revision": "v2"}).json()["error"]["code"] == "gate_closed"
    measure(services, ann, versions[1], exam, answers(200, seed=1))
    assert moved(client, ann, "v2")["version"] == "v2"


def test_of_a_loss_less_is_better(client: TestClient, services: Services, ann: Person, versions: list[Commit]) -> None:
    exam = dataset(services, ann, "ann/exam")
    losses = [random.Random(7).random() for _ in range(150)]
    for commit, shift in zip(versions, (0.0, 0.5, -0.5), strict=False):
        measure(services, ann, commit, exam, [loss + shift for loss in losses], metric="target_loss")
    moved(client, ann, "v1")
    put(client, ann, "prod/gate", {**GATE, "metric": "target_loss", "tolerance": 0})
    assert put(client, ann, "prod", {"revision": "v2"}).status_code == 409
    assert moved(client, ann, "v3")["moves"][0]["compared"]["better_by"] == pytest.approx(0.5)


@pytest.mark.parametrize(("ours", "theirs"), [(99, 99), (400, 200)])
def test_too_few_or_other_examples_open_no_gate(
    client: TestClient, services: Services, ann: Person, versions: list[Commit], ours: int, theirs: int
) -> None:
    exam = dataset(services, ann, "ann/exam")
    measure(services, ann, versions[0], exam, [1.0] * theirs)
    measure(services, ann, versions[1], exam, [1.0] * ours)
    moved(client, ann, "v1")
    put(client, ann, "prod/gate", GATE)
    refused = put(client, ann, "prod", {"revision": "v2"}).json()["error"]
    assert f"{ours} and {theirs} examples" in refused["message"]


def test_the_evaluation_is_the_named_one(
    client: TestClient, services: Services, ann: Person, versions: list[Commit]
) -> None:
    old = dataset(services, ann, "ann/exam")
    new = dataset(services, ann, "ann/exam", {"train.jsonl": b'{"input": "a", "target": "b"}\n'})
    moved(client, ann, "v1")
    put(client, ann, "prod/gate", {**GATE, "revision": old.id})
    for commit in versions[:2]:
        measure(services, ann, commit, new, answers(300))
        measure(services, ann, commit, old, answers(300), template="chat")
        measure(services, ann, commit, old, answers(300), metric="contains")
    assert put(client, ann, "prod", {"revision": "v2"}).status_code == 409
    for commit in versions[:2]:
        measure(services, ann, commit, old, answers(300))
    assert moved(client, ann, "v2")["version"] == "v2"
    assert client.delete(f"{X}/aliases/prod/gate", headers=ann.headers).status_code == 204
    moved(client, ann, "v4")


def test_a_gate_names_no_data_set_that_the_viewer_may_not_see(
    client: TestClient, services: Services, ann: Person, bob: Person, versions: list[Commit]
) -> None:
    dataset(services, ann, "ann/secret-exam", visibility="private")
    moved(client, ann, "v1")
    put(client, ann, "prod/gate", {**GATE, "dataset": "ann/secret-exam"})
    (shown,) = client.get(f"{X}/aliases", headers=bob.headers).json()
    assert (shown["gate_dataset"], shown["gate"]["dataset_commit"]) == ("private data set", "")
    assert "secret" not in str(shown)
    assert put(client, ann, "prod/gate", {**GATE, "dataset": "bob/none"}).status_code == 404


def test_movers_at_the_same_time_leave_a_record_that_agrees_with_the_alias(
    client: TestClient, services: Services, ann: Person, versions: list[Commit]
) -> None:
    moved(client, ann, "v1")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: moved(client, ann, f"v{number % 4 + 1}"), range(24)))
    found = client.get(f"{X}/aliases", headers=ann.headers).json()[0]
    assert found["commit"] == found["moves"][0]["commit"]
    assert all(a["commit"] != b["commit"] for a, b in zip(found["moves"], found["moves"][1:], strict=False))
