"""The audit log: every act has its record, in the same transaction, for those who may read it, and no secret is in it."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.v1.teams import routes as routes
from hub import supervisor
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support import published
from tests.support.files import TINY, peft_folder
from tests.support.http import upload, upload_adapter


def log(client: TestClient, person: Person, **params: Any) -> list[dict[str, Any]]:
    answer = client.get("/v1/audit", headers=person.headers, params=params)
    assert answer.status_code == 200, answer.text
    return list(answer.json())


def test_what_people_do_is_written_down(client: TestClient, services: Services, ann: Person, admin: Person) -> None:
    published.base(services)
    upload_adapter(client, ann.headers, "ann/a")
    client.put("/v1/adapters/ann/a/aliases/prod", headers=ann.headers, json={"revision": "main"})
    job = {"kind": "generate", "prompt": "hi", "base": TINY}
    job_id = client.post("/v1/jobs", headers=ann.headers, json=job).json()["id"]
    client.post(f"/v1/jobs/{job_id}/cancel", headers=ann.headers)
    client.patch("/v1/adapters/ann/a", headers=ann.headers, json={"visibility": "public"})
    client.delete("/v1/adapters/ann/a", headers=ann.headers)
    client.post("/v1/adapters/ann/a/restore", headers=admin.headers)
    events = [(event["actor"], event["action"], event["subject"]) for event in log(client, ann, namespace="ann")]
    assert events == [
        ("ann", "repo.created", "ann/a"),
        ("ann", "commit.created", "ann/a"),
        ("ann", "alias.move", "ann/a@prod"),
        ("ann", "job.submitted", job_id),
        ("ann", "job.cancelled", job_id),
        ("ann", "visibility.set", "ann/a"),
        ("ann", "repo.deleted", "ann/a"),
        ("admin", "repo.restored", "ann/a"),
    ]


def test_what_is_refused_or_fails_leaves_no_record(client: TestClient, ann: Person, bob: Person) -> None:
    assert upload(client, bob.headers, "ann/a", peft_folder()).status_code == 403
    assert client.post("/v1/organizations", headers=bob.headers, json={"name": "ann"}).status_code == 409
    assert log(client, ann, namespace="ann") == []


def test_each_administrator_reads_the_log_of_their_namespaces(
    client: TestClient, ann: Person, bob: Person, admin: Person
) -> None:
    upload_adapter(client, ann.headers, "ann/a")
    upload_adapter(client, bob.headers, "bob/a")
    client.post("/v1/tokens", headers=ann.headers, json={"name": "laptop"})
    assert {event["namespace"] for event in log(client, ann)} == {"ann"}
    assert client.get("/v1/audit", headers=ann.headers, params={"namespace": "bob"}).status_code == 404
    everything = log(client, admin)
    assert {event["namespace"] for event in everything} == {"ann", "bob", None}
    assert ("ann", "token.created") in {(event["actor"], event["action"]) for event in everything}


def test_it_is_exported_whole_in_pieces(
    client: TestClient, ann: Person, admin: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "EXPORTED_AT_ONCE", 2)
    for number in range(3):
        upload_adapter(client, ann.headers, f"ann/a{number}", seed=number)
    answer = client.get("/v1/audit/export", headers=admin.headers)
    assert answer.headers["Content-Type"].startswith("application/jsonl")
    events = [json.loads(line) for line in answer.text.splitlines()]
    assert events == log(client, admin)
    assert len(events) == 6
    assert log(client, admin, after=events[3]["id"], limit=1) == [events[4]]
    assert log(client, admin, since=events[4]["at"]) == events[4:]


def test_no_secret_is_written_down(client: TestClient, ann: Person, admin: Person) -> None:
    token = client.post("/v1/tokens", headers=ann.headers, json={"name": "t"}).json()["secret"]
    client.put("/v1/me/password", headers=ann.headers, json={"new": "correct horse battery"})
    client.post("/v1/session", json={"name": "ann", "password": "correct horse battery"})
    client.post("/v1/session", json={"name": "ann", "password": "not the right one"})
    client.post("/v1/organizations", headers=ann.headers, json={"name": "weavers"})
    invitation = client.post("/v1/organizations/weavers/invitations", headers=ann.headers, json={}).json()["secret"]
    text = json.dumps(log(client, admin))
    for action in ("token.created", "password.set", "session.started", "sign_in.failed", "invitation.created"):
        assert action in text
    for secret in (token, "correct horse battery", "not the right one", invitation):
        assert secret not in text


def test_the_command_line_leaves_its_record(client: TestClient, services: Services, admin: Person) -> None:
    environment = {**os.environ, **supervisor.environment(services.settings)}
    for command in (["user", "zoe"], ["token", "zoe", "--name", "ci"]):
        subprocess.run([sys.executable, "-m", "hub", *command], cwd=supervisor.ROOT, env=environment, check=True)
    events = [(event["actor"], event["action"], event["subject"]) for event in log(client, admin)]
    assert events == [("(operator)", "user.created", "zoe"), ("(operator)", "token.created", "ci")]
