"""/v1/jobs over HTTP: submit, look, events, cancel; another user's job is not there."""

import uuid
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from hub.registry.jobs import leases, queueing
from hub.registry.jobs.queueing import Submission
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services, connect
from hub.vocabulary import JOB_KINDS, JOB_STATES
from tests.conftest import Person
from tests.support.files import TINY
from tests.support.http import upload_adapter
from tests.support.published import WORKER, AnyParams, base
from tests.support.statements import statements

ASK = {"kind": "generate", "prompt": "hi", "base": TINY}


@pytest.fixture(autouse=True)
def tiny_base(services: Services) -> None:
    base(services)


def submit(client: TestClient, person: Person, body: Mapping[str, Any] = ASK, key: str | None = None) -> Any:
    headers = {**person.headers, **({"Idempotency-Key": key} if key else {})}
    return client.post("/v1/jobs", headers=headers, json=dict(body))


def submitted(client: TestClient, person: Person, body: Mapping[str, Any] = ASK) -> str:
    answer = submit(client, person, body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def claimed(services: Services, job_id: str) -> leases.Lease:
    with transaction(services.sessions) as session:
        lease = leases.claim(session, uuid.UUID(job_id), WORKER, 30)
    assert lease is not None
    return lease


def compose(**more: Any) -> dict[str, Any]:
    rows = [{"input": "a", "target": "b"}]
    body = {"kind": "compose", "name": "ann/result", "modules": [{"repo": "ann/a"}], "examples": {"inline": rows}}
    return {**body, **more}


def test_a_job_is_accepted_and_said_where_to_find(client: TestClient, services: Services, ann: Person) -> None:
    commit = upload_adapter(client, ann.headers, "ann/a")["commit"]
    answer = submit(client, ann, compose())
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert (job["kind"], job["state"], job["attempt"], job["result_commit"]) == ("compose", "queued", 0, None)
    assert [module["commit"] for module in job["params"]["modules"]] == [commit]
    assert client.get(answer.headers["Location"], headers=ann.headers).json() == job
    assert client.get("/v1/jobs", headers=ann.headers).json() == [job]
    assert services.queue.depth("gpu") == 1


def test_the_same_key_gives_the_same_job(client: TestClient, ann: Person, bob: Person) -> None:
    first = submit(client, ann, key="k").json()
    again = submit(client, ann, key="k")
    assert (again.status_code, again.json()["id"]) == (202, first["id"])
    other = submit(client, ann, {**ASK, "prompt": "ho"}, key="k")
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert submit(client, bob, key="k").json()["id"] != first["id"]
    assert len(client.get("/v1/jobs", headers=ann.headers).json()) == 1
    assert submit(client, ann, key="k" * 201).status_code == 422


def test_without_a_broker_a_job_is_accepted_all_the_same(services: Services, ann: Person) -> None:
    cut_off = connect(services.settings.model_copy(update={"broker_url": "redis://127.0.0.1:9/0"}))
    with TestClient(create_app(cut_off)) as client:
        assert submit(client, ann).status_code == 202
    cut_off.close()


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"modules": [{"repo": "ann/absent"}]}, 404, "repo_not_found"),
        ({"modules": [{"repo": "ann/a", "revision": "v9"}]}, 404, "revision_not_found"),
        ({"modules": [{"repo": "ann/a", "folder": "sub"}]}, 422, "not_an_adapter"),
        ({"modules": [{"repo": "ann/a"}] * 2}, 422, "incompatible_modules"),
        ({"base": "org/absent"}, 404, "base_not_found"),
        ({"examples": {"dataset": "ann/absent"}}, 404, "repo_not_found"),
        ({"name": "bob/result"}, 403, "forbidden"),
        ({"name": "ann/result.v1"}, 422, "bad_name"),
        ({"budget": 0}, 422, "invalid_request"),
        ({"surprise": 1}, 422, "invalid_request"),
    ],
)
def test_what_cannot_run_is_refused_with_its_cause(
    client: TestClient, ann: Person, bob: Person, change: dict[str, Any], status: int, code: str
) -> None:
    upload_adapter(client, ann.headers, "ann/a")
    answer = submit(client, ann, compose(**change))
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert client.get("/v1/jobs", headers=ann.headers).json() == []


def test_events_after_a_sequence_number(client: TestClient, services: Services, ann: Person) -> None:
    job_id = submitted(client, ann)
    lease = claimed(services, job_id)
    with transaction(services.sessions) as session:
        for seq in (1, 2, 3):
            leases.record(session, lease, seq, "search", seq, 3, {"loss": 1 / seq})
    events = client.get(f"/v1/jobs/{job_id}/events", headers=ann.headers).json()
    assert [(event["seq"], event["phase"], event["step"], event["total"]) for event in events] == [
        (1, "search", 1, 3),
        (2, "search", 2, 3),
        (3, "search", 3, 3),
    ]
    assert events[1]["numbers"] == {"loss": 0.5}
    later = client.get(f"/v1/jobs/{job_id}/events?after=2", headers=ann.headers).json()
    assert later == events[2:]
    assert client.get(f"/v1/jobs/{job_id}/events?after=-1", headers=ann.headers).status_code == 422


def test_a_job_is_cancelled_until_it_has_ended(client: TestClient, services: Services, ann: Person) -> None:
    queued = submitted(client, ann)
    assert client.post(f"/v1/jobs/{queued}/cancel", headers=ann.headers).json()["state"] == "cancelled"
    assert client.post(f"/v1/jobs/{queued}/cancel", headers=ann.headers).status_code == 200

    running = submitted(client, ann)
    lease = claimed(services, running)
    answer = client.post(f"/v1/jobs/{running}/cancel", headers=ann.headers).json()
    assert (answer["state"], answer["cancel_requested"]) == ("running", True)
    with transaction(services.sessions) as session:
        leases.fail(session, lease, "out_of_memory", "The base does not fit.")
    refused = client.post(f"/v1/jobs/{running}/cancel", headers=ann.headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "job_finished")
    ended = client.get(f"/v1/jobs/{running}", headers=ann.headers).json()
    assert ended["error"] == {"code": "out_of_memory", "message": "The base does not fit."}


def test_another_user_s_job_is_not_there(client: TestClient, ann: Person, bob: Person, admin: Person) -> None:
    job_id = submitted(client, ann)
    absent = str(uuid.uuid4())
    calls = [("GET", ""), ("GET", "/events"), ("GET", "/stream"), ("POST", "/cancel")]
    for method, path in calls:
        hidden = client.request(method, f"/v1/jobs/{job_id}{path}", headers=bob.headers)
        missing = client.request(method, f"/v1/jobs/{absent}{path}", headers=bob.headers)
        assert (hidden.status_code, hidden.json()["error"]["code"]) == (404, "job_not_found")
        assert hidden.text.replace(job_id, absent) == missing.text
        assert client.request(method, f"/v1/jobs/{job_id}{path}").status_code == 401
    assert client.get("/v1/jobs", headers=bob.headers).json() == []
    assert client.get(f"/v1/jobs/{job_id}", headers=admin.headers).status_code == 200
    assert client.get(f"/v1/jobs/{job_id}", headers=ann.headers).json()["state"] == "queued"


@pytest.mark.parametrize(("field", "unknown"), [("kind", "nonsense"), ("state", "done")])
def test_a_kind_or_state_that_there_is_not_is_refused(
    client: TestClient, ann: Person, field: str, unknown: str
) -> None:
    answer = client.get("/v1/jobs", headers=ann.headers, params={field: unknown})
    assert answer.status_code == 422
    assert field in answer.text
    for known in JOB_KINDS if field == "kind" else JOB_STATES:
        assert client.get("/v1/jobs", headers=ann.headers, params={field: known}).json() == []


def test_fifty_jobs_take_as_many_statements_as_one(client: TestClient, services: Services, ann: Person) -> None:
    """Today 3: the token's, the jobs and where their results are."""
    with transaction(services.sessions) as session:
        for _ in range(50):
            submission = Submission("generate", "interactive", AnyParams(), [], ann.name, "private")
            queueing.submit(session, services.queue, ann.viewer, submission, idempotency_key=None, request={})
    with statements(services) as sent:
        assert len(client.get("/v1/jobs", headers=ann.headers).json()) == 50
    assert len(sent) <= 8, sent


def test_your_jobs_newest_first(client: TestClient, ann: Person) -> None:
    made = [submitted(client, ann, {**ASK, "prompt": str(index)}) for index in range(3)]
    assert [job["id"] for job in client.get("/v1/jobs", headers=ann.headers).json()] == made[::-1]
    assert [job["id"] for job in client.get("/v1/jobs?limit=1", headers=ann.headers).json()] == made[2:]
