"""/v1/bases over HTTP: administrators register folders, everybody signed in sees what there is."""

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.conftest import Person
from tests.support.files import LAYERS, safetensors
from tests.support.http import upload, upload_adapter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    weights = {f"{layer}.weight": ((8, 8), bytes(256)) for layer in LAYERS}
    (tmp_path / "model.safetensors").write_bytes(safetensors(weights))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    return tmp_path


def register(client: TestClient, person: Person, base_id: str, path: object, **more: Any) -> Any:
    return client.post("/v1/bases", headers=person.headers, json={"id": base_id, "path": str(path), **more})


def test_a_registered_base_is_listed_and_known_to_adapters(
    client: TestClient, ann: Person, admin: Person, folder: Path
) -> None:
    upload_adapter(client, ann.headers, "ann/early", base="org/tiny-4bit")
    answer = register(client, admin, "org/tiny", folder, aliases=["org/tiny-4bit"], dtype="bfloat16", licence="mit")
    assert answer.status_code == 201, answer.text
    base = answer.json()
    assert (base["id"], base["path"], base["dtype"], base["licence"]) == ("org/tiny", str(folder), "bfloat16", "mit")
    assert (base["aliases"], base["layers"], len(base["fingerprint"])) == (["org/tiny-4bit"], 2, 64)
    assert client.get("/v1/bases", headers=ann.headers).json() == [base]
    upload_adapter(client, ann.headers, "ann/late", base="org/tiny", seed=2)
    found = client.get("/v1/adapters?base_model=org/tiny", headers=ann.headers).json()["items"]
    assert [(item["repo"], item["base_id"]) for item in found] == [("ann/late", "org/tiny"), ("ann/early", "org/tiny")]


def test_only_administrators_register_and_only_members_look(
    client: TestClient, ann: Person, admin: Person, folder: Path
) -> None:
    assert register(client, ann, "org/tiny", folder).status_code == 403
    assert client.get("/v1/bases").status_code == 401
    assert client.get("/v1/bases", headers=ann.headers).json() == []


def test_what_is_no_base_is_refused_with_the_reason(client: TestClient, admin: Person, tmp_path: Path) -> None:
    answer = register(client, admin, "org/tiny", tmp_path / "absent")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_base")
    assert "config.json" in answer.json()["error"]["message"]


def test_a_name_that_means_another_base_is_a_conflict(client: TestClient, admin: Person, folder: Path) -> None:
    assert register(client, admin, "org/one", folder, aliases=["shared"]).status_code == 201
    taken = register(client, admin, "org/two", folder, aliases=["shared"])
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "base_exists")
    assert "shared" in taken.json()["error"]["message"]
    assert register(client, admin, "org/one", folder, aliases=["shared"], revision="2").json()["revision"] == "2"


def job(client: TestClient, person: Person, **body: Any) -> str:
    answer = client.post("/v1/jobs", headers=person.headers, json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_a_base_goes_when_no_job_needs_it_and_adapters_keep_its_name(
    client: TestClient, ann: Person, admin: Person, folder: Path
) -> None:
    for name in ("org/tiny", "org/other"):
        assert register(client, admin, name, folder, aliases=[f"{name}-4bit"]).status_code == 201
    upload_adapter(client, ann.headers, "ann/mine", base="org/tiny-4bit")
    rows = b'{"input": "a", "target": "b"}\n' * 9
    assert upload(client, ann.headers, "ann/rows", {"a.jsonl": rows}, kind="datasets").status_code == 201
    tried = job(client, ann, kind="generate", prompt="x", base="org/tiny-4bit")
    voted = job(
        client,
        ann,
        kind="par",
        name="ann/two",
        base="org/other",
        examples={"dataset": "ann/rows"},
        split={"teachers": [{"base": "org/tiny"}], "gold": {"dataset": "ann/rows"}},
    )
    for needed in (voted, tried):
        refused = client.delete("/v1/bases/org/tiny", headers=admin.headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "base_in_use")
        assert client.post(f"/v1/jobs/{needed}/cancel", headers=ann.headers).status_code == 200
    assert client.delete("/v1/bases/org/tiny", headers=ann.headers).status_code == 403
    assert client.delete("/v1/bases/org/tiny-4bit", headers=admin.headers).status_code == 404
    assert client.delete("/v1/bases/org/tiny", headers=admin.headers).status_code == 204
    assert client.delete("/v1/bases/org/tiny", headers=admin.headers).status_code == 404
    assert [base["id"] for base in client.get("/v1/bases", headers=ann.headers).json()] == ["org/other"]
    (mine,) = client.get("/v1/adapters/ann/mine", headers=ann.headers).json()["adapters"]
    assert (mine["base_model"], mine["base_id"]) == ("org/tiny-4bit", None)
    assert register(client, admin, "org/third", folder, aliases=["org/tiny-4bit"]).status_code == 201, (
        "the name is free"
    )
    events = client.get("/v1/audit", headers=admin.headers).json()
    assert ("base.removed", "org/tiny") in [(event["action"], event["subject"]) for event in events]
