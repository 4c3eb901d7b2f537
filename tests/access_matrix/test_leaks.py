"""Each way in which the name, the text or the hash of something private could come out to somebody who may not see it."""

import hashlib
from typing import Any

import pytest
from starlette.testclient import TestClient

from hub.registry.content import history, repos
from hub.registry.models.adapters import Lineage
from hub.registry.models.content import Commit
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support import published
from tests.support.files import TINY, peft_folder
from tests.support.http import upload, upload_adapter

SECRET = "ann/merger-with-acme"
ROWS = {"inline": [{"input": "a", "target": "b"}]}


@pytest.fixture
def secret(client: TestClient, services: Services, ann: Person) -> str:
    """The commit of ann's private module."""
    published.base(services)
    return str(upload_adapter(client, ann.headers, SECRET, visibility="private", seed=7)["commit"])


def related(services: Services, child: str, parent: str) -> None:
    with transaction(services.sessions) as session:
        session.add(Lineage(child=child, parent=parent, role="module", weight=0.5))


def everything(client: TestClient, person: Person, name: str) -> str:
    """Everything that any protocol returns about an adapter."""
    paths = (f"/v1/adapters/{name}", f"/adapters/{name}", f"/api/models/{name}", f"/v1/adapters/{name}/similar")
    answers = [client.get(path, headers=person.headers) for path in paths]
    assert all(answer.status_code == 200 for answer in answers), [answer.status_code for answer in answers]
    return "\n".join(answer.text for answer in answers)


def test_lineage_names_a_parent_only_to_those_who_may_see_it(
    client: TestClient, services: Services, ann: Person, bob: Person, secret: str
) -> None:
    child = upload_adapter(client, ann.headers, "ann/shown", visibility="public")["commit"]
    related(services, child, secret)
    seen = everything(client, bob, "ann/shown")
    assert "private module" in seen
    assert SECRET not in seen
    assert secret not in seen
    assert SECRET in everything(client, ann, "ann/shown")


def test_a_child_is_listed_only_for_those_who_may_see_it(
    client: TestClient, services: Services, ann: Person, bob: Person, secret: str
) -> None:
    parent = upload_adapter(client, ann.headers, "ann/parent", visibility="public")["commit"]
    related(services, secret, parent)
    assert SECRET not in everything(client, bob, "ann/parent")
    assert SECRET in everything(client, ann, "ann/parent")


def test_a_near_duplicate_is_named_only_for_those_who_may_see_it(
    client: TestClient, ann: Person, bob: Person, secret: str
) -> None:
    uploaded = upload_adapter(client, bob.headers, "bob/same", visibility="public", seed=7)
    assert "near_duplicate" not in {finding["code"] for finding in uploaded["findings"]}
    assert SECRET not in everything(client, bob, "bob/same")
    mine = upload_adapter(client, ann.headers, "ann/same", seed=7)
    assert "near_duplicate" in {finding["code"] for finding in mine["findings"]}


def test_lists_searches_counts_and_the_map_leave_it_out(
    client: TestClient, ann: Person, bob: Person, secret: str
) -> None:
    upload_adapter(client, ann.headers, "ann/the-same", visibility="private", seed=7)  # the map shows what is alike
    paths = ("/v1/adapters?q=acme", "/?q=acme", f"/v1/map?base_model={TINY}", f"/map?base_model={TINY}", "/api/models")
    for path in paths:
        assert SECRET not in client.get(path, headers=bob.headers).text, path
        assert SECRET in client.get(path, headers=ann.headers).text, path


def test_a_job_cannot_be_looked_at_by_its_number(client: TestClient, ann: Person, bob: Person, secret: str) -> None:
    body = {"kind": "compose", "name": "ann/woven", "modules": [{"repo": SECRET}], "examples": ROWS}
    job = client.post("/v1/jobs", headers=ann.headers, json=body).json()["id"]
    for path in ("", "/events", "/stream"):
        answer = client.get(f"/v1/jobs/{job}{path}", headers=bob.headers)
        nowhere = client.get(f"/v1/jobs/{'0' * 8}-0000-0000-0000-{'0' * 12}{path}", headers=bob.headers)
        assert answer.status_code == nowhere.status_code == 404
        assert answer.text.replace(job, "ID") == nowhere.text.replace(f"{'0' * 8}-0000-0000-0000-{'0' * 12}", "ID")


def unseen(answer: Any, name: str, other: str) -> str:
    return str(answer.text).replace(name, "NAME").replace(name.replace("/", "%2F"), "NAME").replace(other, "NAME")


def test_errors_read_the_same_whether_or_not_it_is_there(
    client: TestClient, ann: Person, bob: Person, secret: str
) -> None:
    """Every way to name a module in a request, once with the private one's name and once with one that nobody has."""

    def tries(name: str) -> list[Any]:
        compose = {"kind": "compose", "name": "bob/woven", "modules": [{"repo": name}], "examples": ROWS}
        return [
            client.get(f"/v1/adapters/{name}", headers=bob.headers),
            client.get(f"/v1/adapters/{name}?revision=v1", headers=bob.headers),
            client.delete(f"/v1/adapters/{name}", headers=bob.headers),
            client.patch(f"/v1/adapters/{name}", headers=bob.headers, json={"visibility": "public"}),
            client.post("/v1/jobs", headers=bob.headers, json=compose),
            client.post("/v1/jobs", headers=bob.headers, json={**compose, "name": name, "modules": [{"repo": "x/y"}]}),
            upload(client, bob.headers, name, peft_folder(seed=3)),
            client.post("/api/repos/create", headers=bob.headers, json={"name": name}),
            client.post("/api/repos/move", headers=bob.headers, json={"fromRepo": name, "toRepo": "bob/mine"}),
            client.post(f"/api/models/{name}/duplicate", headers=bob.headers, json={"repository": "bob/mine"}),
            client.get(f"/{name}/resolve/main/README.md", headers=bob.headers),
            client.get(f"/{name}/resolve/main/README.md"),
            client.get(f"/api/models/{name}/auth-check"),
        ]

    nobody_s = "ann/nothing-of-this-name"
    for there, not_there in zip(tries(SECRET), tries(nobody_s), strict=True):
        assert there.status_code == not_there.status_code
        assert unseen(there, SECRET, "-") == unseen(not_there, nobody_s, "-")
        assert there.headers.get("X-Error-Code") == not_there.headers.get("X-Error-Code")


def test_knowing_a_hash_gives_nothing(
    client: TestClient, services: Services, ann: Person, bob: Person, secret: str
) -> None:
    weights = peft_folder(seed=7)["adapter_model.safetensors"]
    oid = hashlib.sha256(weights).hexdigest()
    upload_adapter(client, bob.headers, "bob/mine", seed=1)

    def batch(person: Person, name: str) -> Any:
        body = {"operation": "upload", "objects": [{"oid": oid, "size": len(weights)}]}
        answer = client.post(f"/{name}.git/info/lfs/objects/batch", headers=person.headers, json=body)
        return answer.json()["objects"][0]

    assert "actions" not in batch(ann, SECRET)  # its own namespace learns that it is there already
    assert "upload" in batch(bob, "bob/mine")["actions"]
    entry = history.Entry("adapter_model.safetensors", oid, len(weights), "0" * 40)
    with transaction(services.sessions) as session:
        repo = repos.find(session, bob.viewer, "model", "bob/mine")
        with pytest.raises(history.BytesMissing):
            history.publish(session, repo, [entry], author_id=bob.viewer.id, message="theft")


def test_a_commit_s_id_opens_it_in_its_own_repo_alone(
    client: TestClient, services: Services, bob: Person, secret: str
) -> None:
    upload_adapter(client, bob.headers, "bob/mine", seed=1)
    for path in (f"/v1/adapters/bob/mine?revision={secret}", f"/bob/mine/resolve/{secret}/README.md"):
        assert client.get(path, headers=bob.headers).status_code == 404
    with transaction(services.sessions) as session:
        assert session.get(Commit, secret) is not None


def test_a_result_is_as_visible_as_its_least_visible_input_and_widening_it_says_what_it_reveals(
    client: TestClient, services: Services, ann: Person, secret: str
) -> None:
    body = {"kind": "compose", "name": "ann/woven", "modules": [{"repo": SECRET}], "examples": ROWS}
    wider = client.post("/v1/jobs", headers=ann.headers, json={**body, "visibility": "public"})
    assert (wider.status_code, wider.json()["error"]["code"]) == (403, "wider_than_inputs")
    assert client.post("/v1/jobs", headers=ann.headers, json=body).status_code == 202
    examples = client.get("/v1/datasets/ann/woven-examples", headers=ann.headers).json()
    assert examples["visibility"] == "private"  # the text of the examples, too
    child = upload_adapter(client, ann.headers, "ann/made", visibility="private")["commit"]
    related(services, child, secret)
    asked = client.patch("/v1/adapters/ann/made", headers=ann.headers, json={"visibility": "internal"})
    assert (asked.status_code, asked.json()["error"]["reveals"]) == (409, [SECRET])
