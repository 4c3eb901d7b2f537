"""Organizations: members, roles, invitations and accounts for programs, over HTTP."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from hub.registry.access import organizations
from hub.registry.access.permissions import ManageAccount, authorize
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support import published
from tests.support.http import upload_adapter

ORG = "/v1/organizations/weavers"


def ask(client: TestClient, person: Person, method: str, path: str, **body: Any) -> Any:
    return client.request(method, path, headers=person.headers, json=body)


@pytest.fixture
def weavers(client: TestClient, ann: Person) -> None:
    answer = ask(client, ann, "POST", "/v1/organizations", name="weavers")
    assert (answer.status_code, answer.json()) == (201, {"name": "weavers", "role": "admin"})


def invite(client: TestClient, host: Person, role: str = "read") -> str:
    answer = ask(client, host, "POST", f"{ORG}/invitations", role=role)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["secret"])


def join(client: TestClient, guest: Person, secret: str) -> Any:
    return ask(client, guest, "POST", "/v1/invitations/accept", secret=secret)


@pytest.mark.parametrize("name", ["ann", "ANN", "weavers", "Weavers"])
@pytest.mark.usefixtures("weavers")
def test_a_name_is_taken_once_by_people_and_organizations_together(client: TestClient, bob: Person, name: str) -> None:
    answer = ask(client, bob, "POST", "/v1/organizations", name=name)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "name_taken")


def test_an_organization_cannot_shadow_an_address(client: TestClient, ann: Person) -> None:
    assert ask(client, ann, "POST", "/v1/organizations", name="jobs").status_code == 422


@pytest.mark.usefixtures("weavers")
def test_an_invitation_makes_one_person_a_member(
    client: TestClient, ann: Person, bob: Person, make_user: Callable[..., Person]
) -> None:
    upload_adapter(client, ann.headers, "weavers/secret", visibility="private")
    assert client.get("/v1/adapters/weavers/secret", headers=bob.headers).status_code == 404
    secret = invite(client, ann, "write")
    assert len(ask(client, ann, "GET", f"{ORG}/invitations").json()) == 1
    assert join(client, bob, secret).json() == {"name": "weavers", "role": "write"}
    assert client.get("/v1/adapters/weavers/secret", headers=bob.headers).status_code == 200
    upload_adapter(client, bob.headers, "weavers/more", seed=1)
    again = join(client, make_user("carl"), secret)
    assert (again.status_code, again.json()["error"]["code"]) == (404, "invitation_not_found")
    assert ask(client, ann, "GET", f"{ORG}/invitations").json() == []
    members = ask(client, bob, "GET", f"{ORG}/members").json()
    assert [(each["name"], each["role"]) for each in members] == [("ann", "admin"), ("bob", "write")]
    whoami = client.get("/api/whoami-v2", headers=bob.headers).json()
    assert [(org["name"], org["roleInOrg"]) for org in whoami["orgs"]] == [("weavers", "write")]


@pytest.mark.usefixtures("weavers")
def test_of_two_who_accept_at_once_one_becomes_a_member(
    client: TestClient, services: Services, ann: Person, make_user: Callable[..., Person]
) -> None:
    secret = invite(client, ann)
    guests = [make_user(f"guest{number}") for number in range(4)]

    def accept(guest: Person) -> bool:
        try:
            with transaction(services.sessions) as session:
                organizations.accept(session, authorize(guest.viewer, ManageAccount), secret)
        except organizations.InvitationNotFound:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(accept, guests)) == [False, False, False, True]
    assert len(ask(client, ann, "GET", f"{ORG}/members").json()) == 2


@pytest.mark.usefixtures("weavers")
def test_an_invitation_can_be_withdrawn_and_lowers_nobody(client: TestClient, ann: Person, bob: Person) -> None:
    answer = ask(client, ann, "POST", f"{ORG}/invitations", role="read").json()
    assert ask(client, ann, "DELETE", f"{ORG}/invitations/{answer['id']}").status_code == 204
    assert join(client, bob, answer["secret"]).status_code == 404
    assert join(client, ann, invite(client, ann, "read")).json()["role"] == "admin"


@pytest.mark.usefixtures("weavers")
def test_the_last_administrator_stays(client: TestClient, ann: Person, bob: Person) -> None:
    for change in (("PUT", {"role": "read"}), ("DELETE", {})):
        answer = ask(client, ann, change[0], f"{ORG}/members/ann", **change[1])
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "last_administrator")
    join(client, bob, invite(client, ann, "admin"))
    assert ask(client, bob, "PUT", f"{ORG}/members/ann", role="read").status_code == 204
    assert ask(client, ann, "POST", f"{ORG}/invitations").status_code == 403
    assert ask(client, ann, "DELETE", f"{ORG}/members/ann").status_code == 204  # whoever wants to may leave
    assert ask(client, ann, "GET", f"{ORG}/members").status_code == 404


@pytest.mark.usefixtures("weavers")
def test_a_removed_member_sees_nothing_any_more_also_of_jobs(
    client: TestClient, services: Services, ann: Person, bob: Person
) -> None:
    published.base(services)
    upload_adapter(client, ann.headers, "weavers/a", visibility="private")
    join(client, bob, invite(client, ann, "write"))
    rows = {"inline": [{"input": "a", "target": "b"}]}
    body = {"kind": "compose", "name": "weavers/woven", "modules": [{"repo": "weavers/a"}], "examples": rows}
    job = ask(client, ann, "POST", "/v1/jobs", **body).json()["id"]
    assert client.get(f"/v1/jobs/{job}", headers=bob.headers).status_code == 200
    ask(client, ann, "DELETE", f"{ORG}/members/bob")
    for path in (f"/v1/jobs/{job}", f"/v1/jobs/{job}/events", "/v1/adapters/weavers/a"):
        assert client.get(path, headers=bob.headers).status_code == 404


def test_a_person_s_namespace_has_no_other_members(client: TestClient, ann: Person) -> None:
    answer = ask(client, ann, "POST", "/v1/organizations/ann/invitations", role="read")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "not_an_organization")


@pytest.mark.usefixtures("weavers")
def test_a_service_account_works_for_its_organization_until_it_is_stopped(
    client: TestClient, services: Services, ann: Person
) -> None:
    published.base(services)
    answer = ask(client, ann, "POST", f"{ORG}/services", name="ci", scopes=["write", "jobs"])
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert (body["account"], body["scopes"]) == ("weavers-ci", ["read", "write", "jobs"])
    headers = {"Authorization": f"Bearer {body['secret']}"}
    upload_adapter(client, headers, "weavers/from-ci")
    # What nobody named a place for goes to the organization.
    job = client.post("/v1/jobs", headers=headers, json={"kind": "generate", "prompt": "hi", "base": "tests/tiny-base"})
    assert job.json()["namespace"] == "weavers", job.text
    assert client.post("/v1/tokens", headers=headers, json={"name": "more"}).status_code == 403
    assert ask(client, ann, "DELETE", f"{ORG}/services/ci").status_code == 204
    assert client.get("/v1/me", headers=headers).status_code == 401
    assert client.get("/v1/adapters/weavers/from-ci", headers=ann.headers).status_code == 200
    assert ask(client, ann, "DELETE", f"{ORG}/services/ci").status_code == 204  # again does no harm
