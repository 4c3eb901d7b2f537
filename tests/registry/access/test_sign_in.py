"""Signing in by password, by token and by a real OpenID Connect provider; sessions that can be ended."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from hub.registry.access import credentials
from hub.registry.access.secret_hashes import hash_secret
from hub.registry.models.access import OpenIdentity, User
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services, connect
from tests.conftest import Person

PASSWORD = "correct horse battery"


def set_password(client: TestClient, person: Person, new: str = PASSWORD, current: str = "") -> int:
    body = {"current": current, "new": new}
    return int(client.put("/v1/me/password", headers=person.headers, json=body).status_code)


def sign_in(client: TestClient, name: str, password: str = PASSWORD) -> int:
    return int(client.post("/v1/session", json={"name": name, "password": password}).status_code)


def test_a_password_signs_its_user_in_however_the_name_is_written(client: TestClient, ann: Person) -> None:
    assert sign_in(client, "ann", "") == 401  # there is none yet
    assert set_password(client, ann) == 204
    for name, password, status in (("ann", PASSWORD, 204), ("ANN", PASSWORD, 204), ("ann", "wrong", 401)):
        client.cookies.clear()
        assert sign_in(client, name, password) == status
        assert client.get("/v1/me").status_code == (200 if status == 204 else 401)


def test_nothing_tells_a_wrong_name_from_a_wrong_password(client: TestClient, ann: Person) -> None:
    set_password(client, ann)
    answers = [
        client.post("/v1/session", json={"name": name, "password": "wrong password"}) for name in ("ann", "nobody")
    ]
    assert answers[0].json() == answers[1].json()


def test_a_password_is_kept_as_argon2id_and_changed_by_who_knows_it(
    client: TestClient, services: Services, ann: Person
) -> None:
    assert set_password(client, ann) == 204
    with transaction(services.sessions) as session:
        kept = session.get_one(User, ann.viewer.id).password_hash
    assert kept is not None
    assert kept.startswith("$argon2id$")
    assert PASSWORD not in kept
    assert set_password(client, ann, "another long one") == 401
    assert set_password(client, ann, "another long one", current=PASSWORD) == 204
    assert set_password(client, ann, "short", current="another long one") == 422
    assert sign_in(client, "ann") == 401
    assert sign_in(client, "ann", "another long one") == 204


def test_a_new_password_ends_the_other_sessions(client: TestClient, services: Services, ann: Person) -> None:
    set_password(client, ann)
    with TestClient(create_app(services), base_url="http://testserver") as elsewhere:
        assert sign_in(elsewhere, "ann") == 204
        sign_in(client, "ann")
        own = client.put("/v1/me/password", json={"current": PASSWORD, "new": "something else"})
        assert own.status_code == 204
        assert client.get("/v1/me").status_code == 200
        assert elsewhere.get("/v1/me").status_code == 401


def test_sessions_are_listed_and_ended_one_by_one_or_all(client: TestClient, ann: Person, bob: Person) -> None:
    for person in (ann, ann, ann, bob):
        client.cookies.clear()
        answer = client.post("/v1/session", json={"token": person.token}, headers={"User-Agent": "browser 7"})
        assert answer.status_code == 204
    listed = client.get("/v1/sessions", headers=ann.headers).json()
    assert [each["agent"] for each in listed] == ["browser 7"] * 3
    gone = listed[0]["id"]
    assert client.delete(f"/v1/sessions/{gone}", headers=bob.headers).status_code == 404
    assert client.delete(f"/v1/sessions/{gone}", headers=ann.headers).status_code == 204
    assert len(client.get("/v1/sessions", headers=ann.headers).json()) == 2
    assert client.delete("/v1/sessions", headers=ann.headers).status_code == 204
    assert client.get("/v1/sessions", headers=ann.headers).json() == []
    assert len(client.get("/v1/sessions", headers=bob.headers).json()) == 1


def test_the_form_signs_in_by_either_and_says_what_is_wrong(client: TestClient, ann: Person) -> None:
    set_password(client, ann)
    for form in ({"name": "ann", "password": PASSWORD}, {"token": ann.token}):
        client.cookies.clear()
        answer = client.post("/login", data=form, follow_redirects=False)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/")
        assert client.get("/v1/me").json()["name"] == "ann"
    wrong = client.post("/login", data={"name": "ann", "password": "no"})
    assert wrong.status_code == 401
    assert "The name or the password is wrong" in wrong.text
    assert "login/oidc" not in wrong.text  # none is set up


# --- OpenID Connect ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """A real provider, in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "oidc_provider_mock",
        "--port",
        str(port),
        "--require-nonce",
        "true",
    ]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx2.get(f"{url}/.well-known/openid-configuration").raise_for_status()
                break
            except httpx2.HTTPError:
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.1)
        yield url
        process.terminate()


@pytest.fixture
def connected(services: Services, provider: str) -> Iterator[TestClient]:
    changes = {"oidc_issuer": provider, "oidc_client_id": "hub", "oidc_client_secret": "s", "oidc_label": "Acme"}
    hub = connect(services.settings.model_copy(update=changes))
    with TestClient(create_app(hub), base_url="http://testserver") as client:
        yield client
    hub.close()


def at_the_provider(client: TestClient, provider: str, subject: str, **claims: str) -> str:
    """Begin here, sign in there; the address that the provider sends the browser back to."""
    httpx2.put(f"{provider}/users/{subject}", json={"sub": subject, **claims}).raise_for_status()
    begun = client.get("/login/oidc", follow_redirects=False)
    assert begun.status_code == 303, begun.text
    asked = parse_qs(urlsplit(begun.headers["Location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    back = httpx2.post(begun.headers["Location"], data={"sub": subject})
    assert back.status_code == 302, back.text
    return str(back.headers["Location"])


def test_the_provider_sends_back_to_the_address_before_the_proxy(connected: TestClient, provider: str) -> None:
    proxied = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "hub.example.org"}
    begun = connected.get("/login/oidc", headers=proxied, follow_redirects=False)
    httpx2.put(f"{provider}/users/behind-a-proxy", json={"sub": "behind-a-proxy"}).raise_for_status()
    back = httpx2.post(begun.headers["Location"], data={"sub": "behind-a-proxy"}).headers["Location"]
    assert back.startswith("https://hub.example.org/login/oidc/callback?")
    path = back.removeprefix("https://hub.example.org")
    finished = connected.get(path, headers=proxied, follow_redirects=False)
    assert finished.status_code == 303, "the provider accepts the code for the address that it was asked with"


def test_whoever_the_provider_knows_gets_a_user_and_keeps_it(
    connected: TestClient, services: Services, provider: str
) -> None:
    assert "Sign in with Acme" in connected.get("/login").text
    for _ in range(2):
        connected.cookies.clear()
        back = at_the_provider(connected, provider, "s-1", preferred_username="dora.smith")
        answer = connected.get(back, follow_redirects=False)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/")
        assert connected.get("/v1/me").json()["name"] == "dora-smith"
    with transaction(services.sessions) as session:
        assert session.query(OpenIdentity).count() == 1


def test_the_provider_s_name_never_gives_another_user_s_account(
    connected: TestClient, provider: str, ann: Person
) -> None:
    connected.get(at_the_provider(connected, provider, "s-2", preferred_username="ann"))
    assert connected.get("/v1/me").json()["name"] == "ann-2"


def test_an_existing_user_is_connected_while_signed_in(connected: TestClient, provider: str, ann: Person) -> None:
    connected.post("/v1/session", json={"token": ann.token})
    connected.get(at_the_provider(connected, provider, "s-3", preferred_username="somebody"))
    connected.cookies.clear()
    connected.get(at_the_provider(connected, provider, "s-3", preferred_username="somebody"))
    assert connected.get("/v1/me").json()["name"] == "ann"


def test_another_browser_s_answer_signs_nobody_in(connected: TestClient, provider: str) -> None:
    back = at_the_provider(connected, provider, "s-4")
    connected.cookies.clear()
    assert connected.get(back).status_code == 401
    mine = at_the_provider(connected, provider, "s-4")
    wrong = re.sub(r"state=[^&]+", "state=forged", mine)
    assert connected.get(wrong).status_code == 401
    assert connected.get(re.sub(r"code=[^&]+", "code=forged", mine)).status_code == 401
    assert connected.get("/v1/me").status_code == 401


def test_who_is_not_admitted_gets_no_user(services: Services, provider: str) -> None:
    changes = {"oidc_issuer": provider, "oidc_client_id": "hub", "oidc_client_secret": "s", "oidc_admit": False}
    hub = connect(services.settings.model_copy(update=changes))
    with TestClient(create_app(hub), base_url="http://testserver") as client:
        answer = client.get(at_the_provider(client, provider, "s-5"))
        assert answer.status_code == 403
        assert "no user on this hub" in answer.text
    hub.close()
    with transaction(services.sessions) as session:
        assert session.query(User).count() == 0


def test_a_provider_that_does_not_answer_is_said(services: Services) -> None:
    changes = {"oidc_issuer": "http://127.0.0.1:9", "oidc_client_id": "hub"}
    hub = connect(services.settings.model_copy(update=changes))
    with TestClient(create_app(hub), base_url="http://testserver") as client:
        answer = client.get("/login/oidc", headers={"Accept": "text/html"}, follow_redirects=False)
        assert answer.status_code == 503
        assert "does not answer" in answer.text
    hub.close()


def test_no_secret_of_a_sign_in_is_kept(client: TestClient, services: Services, ann: Person) -> None:
    set_password(client, ann)
    sign_in(client, "ann")
    cookie: Any = client.cookies["loraloom_session"]
    with transaction(services.sessions) as session:
        (kept,) = credentials.sessions(session, ann.viewer.id)
        assert cookie not in (kept.hash, str(kept.id))
        assert kept.hash == hash_secret(cookie)
