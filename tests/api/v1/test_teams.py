"""/v1/me, tokens, sessions and users over HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.testclient import TestClient

from tests.conftest import Person


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def new_token(client: TestClient, person: Person, **body: Any) -> Any:
    answer = client.post("/v1/tokens", headers=person.headers, json={"name": "laptop", **body})
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_who_am_i(client: TestClient, ann: Person, admin: Person) -> None:
    me = client.get("/v1/me", headers=ann.headers).json()
    assert me == {"name": "ann", "is_admin": False, "namespaces": ["ann"]}
    assert client.get("/v1/me", headers=admin.headers).json()["is_admin"]
    nobody = client.get("/v1/me")
    assert (nobody.status_code, nobody.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert client.get("/v1/me", headers=bearer("ll_wrong")).status_code == 401


def test_a_token_s_secret_is_shown_once_and_works_until_the_token_is_deleted(
    client: TestClient, ann: Person, bob: Person
) -> None:
    made = new_token(client, ann)
    assert client.get("/v1/me", headers=bearer(made["secret"])).json()["name"] == "ann"
    listed = client.get("/v1/tokens", headers=ann.headers)
    assert [token["name"] for token in listed.json()] == ["test", "laptop"]
    assert made["secret"] not in listed.text
    assert "hash" not in listed.text
    assert client.delete(f"/v1/tokens/{made['id']}", headers=bob.headers).status_code == 404
    assert client.get("/v1/me", headers=bearer(made["secret"])).status_code == 200
    assert client.delete(f"/v1/tokens/{made['id']}", headers=ann.headers).status_code == 204
    assert client.get("/v1/me", headers=bearer(made["secret"])).status_code == 401
    assert client.delete(f"/v1/tokens/{made['id']}", headers=ann.headers).status_code == 404


def test_a_token_that_has_expired_signs_nobody_in(client: TestClient, ann: Person) -> None:
    def until(delta: timedelta) -> str:
        return str(new_token(client, ann, expires_at=(datetime.now(UTC) + delta).isoformat())["secret"])

    assert client.get("/v1/me", headers=bearer(until(timedelta(hours=1)))).status_code == 200
    assert client.get("/v1/me", headers=bearer(until(timedelta(seconds=-1)))).status_code == 401


def test_a_session_is_begun_with_a_token_and_ended(client: TestClient, ann: Person) -> None:
    assert client.post("/v1/session", json={"token": "ll_wrong"}).status_code == 401
    assert not client.cookies
    answer = client.post("/v1/session", json={"token": f" {ann.token}\n"})
    assert answer.status_code == 204
    cookie = answer.headers["Set-Cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert ann.token not in cookie
    assert client.get("/v1/me").json()["name"] == "ann"
    secret = dict(client.cookies)
    assert client.delete("/v1/session").status_code == 204
    assert client.get("/v1/me").status_code == 401
    client.cookies.update(secret)
    assert client.get("/v1/me").status_code == 401  # ended here, and not only forgotten by the browser


def test_an_administrator_makes_users_who_can_sign_in(client: TestClient, ann: Person, admin: Person) -> None:
    made = client.post("/v1/users", headers=admin.headers, json={"name": "carl"})
    assert made.status_code == 201, made.text
    me = client.get("/v1/me", headers=bearer(made.json()["secret"])).json()
    assert me == {"name": "carl", "is_admin": False, "namespaces": ["carl"]}
    taken = client.post("/v1/users", headers=admin.headers, json={"name": "Carl"})
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "name_taken")
    bad = client.post("/v1/users", headers=admin.headers, json={"name": "c/d"})
    assert (bad.status_code, bad.json()["error"]["code"]) == (422, "bad_name")
    assert client.post("/v1/users", headers=ann.headers, json={"name": "dora"}).status_code == 403
