"""Tokens that may do less than their owner: scopes, and limits to some repos."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support import published
from tests.support.files import TINY, peft_folder
from tests.support.http import upload, upload_adapter


def limited(client: TestClient, person: Person, **limits: Any) -> dict[str, str]:
    answer = client.post("/v1/tokens", headers=person.headers, json={"name": "limited", **limits})
    assert answer.status_code == 201, answer.text
    return {"Authorization": f"Bearer {answer.json()['secret']}"}


GENERATE = {"kind": "generate", "prompt": "hi", "base": TINY}


def may(client: TestClient, headers: dict[str, str]) -> dict[str, bool]:
    """What a token is good for: 403 means that it is not."""
    answers = {
        "read": client.get("/v1/adapters/ann/a", headers=headers),
        "write": upload(client, headers, "ann/b", peft_folder(seed=1)),
        "jobs": client.post("/v1/jobs", headers=headers, json=GENERATE),
        "admin": client.post("/v1/tokens", headers=headers, json={"name": "t"}),
    }
    for answer in answers.values():
        assert answer.status_code in (200, 201, 202) or answer.json()["error"]["code"] == "scope_missing", answer.text
    return {scope: answer.status_code < 400 for scope, answer in answers.items()}


@pytest.mark.parametrize("scopes", [[], ["write"], ["jobs"], ["admin"], ["write", "jobs"]])
def test_a_token_is_good_for_its_scopes_alone(
    client: TestClient, services: Services, ann: Person, scopes: list[str]
) -> None:
    published.base(services)
    upload_adapter(client, ann.headers, "ann/a", visibility="private")
    has = may(client, limited(client, ann, scopes=scopes))
    assert has == {scope: scope in ("read", *scopes) for scope in ("read", "write", "jobs", "admin")}


def test_a_job_with_a_result_needs_write_as_well(client: TestClient, services: Services, ann: Person) -> None:
    published.base(services)
    upload_adapter(client, ann.headers, "ann/a")
    rows = {"inline": [{"input": "a", "target": "b"}]}
    body = {"kind": "compose", "name": "ann/woven", "modules": [{"repo": "ann/a"}], "examples": rows}
    answer = client.post("/v1/jobs", headers=limited(client, ann, scopes=["jobs"]), json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "scope_missing")
    assert client.post("/v1/jobs", headers=limited(client, ann, scopes=["jobs", "write"]), json=body).status_code == 202


def test_an_administrator_s_token_without_admin_is_nobody_special(
    client: TestClient, ann: Person, admin: Person
) -> None:
    upload_adapter(client, ann.headers, "ann/hidden", visibility="private")
    assert client.get("/v1/adapters/ann/hidden", headers=admin.headers).status_code == 200
    plain = limited(client, admin, scopes=["read", "write"])
    assert client.get("/v1/adapters/ann/hidden", headers=plain).status_code == 404
    assert not client.get("/v1/me", headers=plain).json()["is_admin"]


def test_a_limited_token_sees_its_repos_and_public_ones(client: TestClient, services: Services, ann: Person) -> None:
    published.base(services)
    for name, visibility in (("mine", "private"), ("other", "private"), ("inner", "internal"), ("open", "public")):
        upload_adapter(client, ann.headers, f"ann/{name}", visibility=visibility, seed=len(name))
    headers = limited(client, ann, repos=["ann/mine"])
    seen = {item["repo"] for item in client.get("/v1/adapters", headers=headers).json()["items"]}
    assert seen == {"ann/mine", "ann/open"}
    assert client.get("/v1/adapters/ann/other", headers=headers).status_code == 404
    assert client.get("/ann/inner/resolve/main/README.md", headers=headers).status_code == 404
    repositories = client.get("/api/settings/repositories", headers=headers).json()
    assert {each["id"] for each in repositories} == {"ann/mine", "ann/open"}
    assert upload(client, headers, "ann/mine", peft_folder(seed=9)).status_code == 201
    for name in ("ann/open", "ann/new", "bob/new"):
        assert upload(client, headers, name, peft_folder(seed=8)).status_code == 403
    ask = {"kind": "generate", "prompt": "hi", "module": {"repo": "ann/other"}}
    assert client.post("/v1/jobs", headers=headers, json=ask).status_code == 404


def test_a_limit_to_a_namespace_is_for_all_of_it(client: TestClient, ann: Person) -> None:
    upload_adapter(client, ann.headers, "ann/a", visibility="private")
    headers = limited(client, ann, repos=["ann/*"])
    assert client.get("/v1/adapters/ann/a", headers=headers).status_code == 200
    assert upload(client, headers, "ann/new", peft_folder(seed=2)).status_code == 201


def test_a_limited_token_sees_the_jobs_whose_inputs_it_may_read(
    client: TestClient, services: Services, ann: Person
) -> None:
    published.base(services)
    ids = {}
    for name in ("a", "b"):
        upload_adapter(client, ann.headers, f"ann/{name}", visibility="private", seed=ord(name))
        ask = {"kind": "generate", "prompt": "hi", "module": {"repo": f"ann/{name}"}}
        ids[name] = client.post("/v1/jobs", headers=ann.headers, json=ask).json()["id"]
    headers = limited(client, ann, repos=["ann/a"])
    assert [job["id"] for job in client.get("/v1/jobs", headers=headers).json()] == [ids["a"]]
    assert client.get(f"/v1/jobs/{ids['b']}", headers=headers).status_code == 404


def test_no_limited_token_can_widen_itself(client: TestClient, ann: Person) -> None:
    headers = limited(client, ann, repos=["ann/a"])  # with all scopes, admin among them
    token = headers["Authorization"].partition(" ")[2]
    tries = (
        client.post("/v1/tokens", headers=headers, json={"name": "wide"}),
        client.put("/v1/me/password", headers=headers, json={"new": "correct horse battery"}),
        client.post("/v1/session", json={"token": token}),
        client.get("/v1/sessions", headers=headers),
        client.get("/v1/tokens", headers=headers),
        client.post("/v1/organizations", headers=headers, json={"name": "weavers"}),
        client.post("/device", headers=headers, data={"code": "AAAA-AAAA", "answer": "approve"}),
        client.get("/v1/audit", headers=headers, params={"namespace": "ann"}),
    )
    assert [answer.status_code for answer in tries] == [403, 403, 403, 403, 403, 403, 403, 404]
    weak = limited(client, ann, scopes=["read", "write"])["Authorization"].partition(" ")[2]
    assert client.post("/v1/session", json={"token": weak}).status_code == 403


@pytest.mark.parametrize("repos", [["ann"], ["ann/"], ["*/*"], ["ann/*/x"], ["ann/a b"]])
def test_limits_that_name_no_repos_are_refused(client: TestClient, ann: Person, repos: list[str]) -> None:
    answer = client.post("/v1/tokens", headers=ann.headers, json={"name": "t", "repos": repos})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_scope")
