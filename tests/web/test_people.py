"""Pages of what is one's own and of teams: secrets shown once, forms that say what is wrong, and nothing to whom it does not concern."""

import re

from starlette.testclient import TestClient

from hub.http.identity import COOKIE
from tests.conftest import Person
from tests.support.pages import sign_in

HTML = {"Accept": "text/html"}


def as_(client: TestClient, person: Person) -> None:
    client.cookies.clear()
    sign_in(client, person)


def test_a_token_is_made_shown_once_and_revoked(client: TestClient, ann: Person) -> None:
    sign_in(client, ann)
    made = client.post("/account/tokens", data={"name": "ci", "scopes": ["write"], "repos": "ann/*", "days": "30"})
    assert made.status_code == 201
    (secret,) = set(re.findall(r"ll_[\w-]{20,}", made.text))
    headers = {"Authorization": f"Bearer {secret}"}
    assert client.get("/v1/me", headers=headers).json()["name"] == "ann"
    page = client.get("/account").text
    assert secret not in page
    assert "ann/*" in page
    token = next(each for each in client.get("/v1/tokens", headers=ann.headers).json() if each["name"] == "ci")
    assert token["scopes"] == ["read", "write"]
    client.post(f"/account/tokens/{token['id']}/revoke")
    assert client.get("/v1/me", headers=headers).status_code == 401


def test_a_wrong_field_is_said_and_what_was_typed_stays(client: TestClient, ann: Person) -> None:
    sign_in(client, ann)
    for data in ({"name": "ci", "repos": "everything"}, {"name": "ci", "days": "soon"}, {"name": " ", "repos": "a/b"}):
        answer = client.post("/account/tokens", data=data)
        assert answer.status_code == 422
        assert 'role="alert"' in answer.text
        assert f'value="{data.get("repos", "")}"' in answer.text
    assert len(client.get("/v1/tokens", headers=ann.headers).json()) == 1, "none was made"


def test_a_password_is_set_and_then_asked_for(client: TestClient, ann: Person) -> None:
    sign_in(client, ann)
    assert "Ten characters or more" in client.get("/account").text
    assert client.post("/account/password", data={"new": "short"}).status_code == 422
    assert "The password is set" in client.post("/account/password", data={"new": "a good password"}).text
    wrong = client.post("/account/password", data={"new": "another password", "current": "no"}, headers=HTML)
    assert (wrong.status_code, "current password is wrong" in wrong.text) == (401, True)
    client.cookies.clear()
    answer = client.post("/login", data={"name": "ann", "password": "a good password"}, follow_redirects=False)
    assert answer.status_code == 303


def test_a_session_is_ended_elsewhere(client: TestClient, ann: Person) -> None:
    sign_in(client, ann)
    other = next(cookie.value for cookie in client.cookies.jar if cookie.name == COOKIE)
    as_(client, ann)
    (ended,) = [
        each["id"] for each in client.get("/v1/sessions", headers=ann.headers).json()[1:]
    ]  # newest first: the older one
    client.post(f"/account/sessions/{ended}/end")
    assert client.get("/account").status_code == 200
    client.cookies.clear()
    client.cookies.set(COOKIE, other or "")
    assert client.get("/account", headers=HTML, follow_redirects=False).status_code == 303, "not signed in any more"


def test_a_team_is_made_and_joined_by_a_link(client: TestClient, ann: Person, bob: Person) -> None:
    sign_in(client, ann)
    assert client.post("/teams", data={"name": "weavers"}).url.path == "/teams/weavers"
    taken = client.post("/teams", data={"name": "bob"})
    assert (taken.status_code, 'value="bob"' in taken.text) == (409, True)
    invited = client.post("/teams/weavers/invitations", data={"role": "write"})
    (link,) = set(re.findall(r"http://testserver(/join\?invitation=[\w-]+)", invited.text))
    assert link not in client.get("/teams/weavers").text

    as_(client, bob)
    assert client.get("/teams/weavers", headers=HTML).status_code == 404, "to others it is not there"
    assert "Accept" in client.get(link).text, "opening it does nothing yet"
    assert client.get("/teams/weavers").status_code == 404
    joined = client.post("/join", data={"invitation": f"http://testserver{link}"})
    assert joined.url.path == "/teams/weavers"
    assert "you: write" in joined.text
    assert "Invitations" not in joined.text
    assert client.post("/join", data={"invitation": link}).status_code == 404, "it is good for one"


def test_roles_are_changed_and_the_last_administrator_stays(client: TestClient, ann: Person) -> None:
    sign_in(client, ann)
    client.post("/teams", data={"name": "weavers"})
    for path in ("members/ann/remove", "members/ann"):
        refused = client.post(f"/teams/weavers/{path}", data={"role": "read"})
        assert refused.status_code == 409
        assert "no administrator left" in refused.text
    service = client.post("/teams/weavers/services", data={"name": "ci", "role": "write", "scopes": ["write"]})
    (secret,) = set(re.findall(r"ll_[\w-]{20,}", service.text))
    assert client.get("/v1/me", headers={"Authorization": f"Bearer {secret}"}).json()["name"] == "weavers-ci"
    again = client.post("/teams/weavers/services", data={"name": "ci", "role": "write", "days": "x"})
    assert again.status_code == 422
    client.post("/teams/weavers/services/ci/stop")
    assert client.get("/v1/me", headers={"Authorization": f"Bearer {secret}"}).status_code == 401


def test_activity_is_what_one_administers(client: TestClient, ann: Person, bob: Person) -> None:
    sign_in(client, ann)
    client.post("/teams", data={"name": "weavers"})
    page = client.get("/activity").text
    assert "organization created" in page
    assert client.get("/activity", params={"namespace": "weavers"}).status_code == 200
    as_(client, bob)
    assert "weavers" not in client.get("/activity").text
    assert client.get("/activity", params={"namespace": "weavers"}).status_code == 404


def test_activity_is_paged_newest_first(client: TestClient, ann: Person) -> None:
    sign_in(client, ann)
    for number in range(60):
        client.post("/teams", data={"name": f"team{number:02}"})
    first = client.get("/activity").text
    assert first.index("<td>team59") < first.index("<td>team30")
    (older,) = re.findall(r'href="(/activity\?before=\d+)"', first)
    assert "<td>team00" not in first
    assert "<td>team00" in client.get(older).text


def test_the_system_is_shown_to_administrators_who_make_users_and_set_limits(
    client: TestClient, ann: Person, admin: Person
) -> None:
    sign_in(client, ann)
    assert client.get("/system", headers=HTML).status_code == 403
    as_(client, admin)
    page = client.get("/system").text
    assert "No worker has been seen" in page
    assert "No job has run this month" in page
    made = client.post("/system/users", data={"name": "dora"})
    (secret,) = set(re.findall(r"ll_[\w-]{20,}", made.text))
    assert client.get("/v1/me", headers={"Authorization": f"Bearer {secret}"}).json()["name"] == "dora"
    assert client.post("/system/users", data={"name": "dora"}).status_code == 409
    client.post("/system/quota", data={"namespace": "dora", "gigabytes": "1.5", "jobs": "2"})
    limits = client.get("/v1/namespaces/dora/quota", headers=admin.headers).json()
    assert (limits["quota_bytes"], limits["quota_jobs"]) == (1_500_000_000, 2)
    for data in ({"gigabytes": "much"}, {"jobs": "-1"}, {"namespace": "nobody"}):
        answer = client.post("/system/quota", data={"namespace": "dora", **data})
        assert answer.status_code in (404, 422)
        assert 'role="alert"' in answer.text
