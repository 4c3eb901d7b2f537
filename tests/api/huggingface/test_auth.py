"""Who one is, and signing in a program by a code that a person enters on a page."""

import re
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import func, select, update
from starlette.testclient import TestClient

from hub.registry.access import users
from hub.registry.models.access import DeviceLogin, Token
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.api.huggingface.conftest import StartClient
from tests.conftest import Person
from tests.support import protocol

GRANT = "urn:ietf:params:oauth:grant-type:device_code"


def test_whoami(client: TestClient, services: Services, ann: Person) -> None:
    with transaction(services.sessions) as session:
        users.create_namespace(session, "weavers", "organization", ann.viewer.id)
    account = client.get("/api/whoami-v2", headers=ann.headers).json()
    assert (account["name"], [org["name"] for org in account["orgs"]]) == ("ann", ["weavers"])
    assert account["auth"]["accessToken"] == {"displayName": "test", "role": "write"}
    protocol.error_of(client.get("/api/whoami-v2"), 401)
    protocol.error_of(client.get("/api/whoami-v2", headers={"Authorization": "Bearer ll_wrong"}), 401)


def start(client: TestClient) -> dict[str, Any]:
    answer = client.post("/oauth/device", data={"client_id": "any"})
    assert answer.status_code == 200
    return dict(answer.json())


def poll(client: TestClient, codes: dict[str, Any]) -> Any:
    sent = {"grant_type": GRANT, "device_code": codes["device_code"], "client_id": "any"}
    return client.post("/oauth/token", data=sent)


def refusal(answer: Any) -> str:
    assert answer.status_code == 400
    assert set(answer.json()) == {"error", "error_description"}
    return str(answer.json()["error"])


@pytest.fixture
def signed_in(client: TestClient, ann: Person) -> TestClient:
    client.post("/v1/session", json={"token": ann.token})
    return client


def answer_page(client: TestClient, code: str, answer: str, **headers: str) -> Any:
    sent = {"code": code, "answer": answer}
    return client.post("/device", data=sent, headers={"Accept": "text/html", **headers}, follow_redirects=False)


def test_an_approved_program_gets_a_token_once(signed_in: TestClient) -> None:
    codes = start(signed_in)
    assert refusal(poll(signed_in, codes)) == "authorization_pending"
    page = signed_in.get(codes["verification_uri_complete"])
    assert f'value="{codes["user_code"]}"' in page.text
    typed = codes["user_code"].lower().replace("-", " ")
    assert "Done." in answer_page(signed_in, typed, "approve").text
    token = poll(signed_in, codes).json()["access_token"]
    signed_in.cookies.clear()
    account = signed_in.get("/api/whoami-v2", headers={"Authorization": f"Bearer {token}"}).json()
    assert account["name"] == "ann"
    assert refusal(poll(signed_in, codes)) == "expired_token"


def test_a_refused_program_gets_none(signed_in: TestClient, services: Services) -> None:
    codes = start(signed_in)
    assert "refused" in answer_page(signed_in, codes["user_code"], "deny").text
    assert refusal(poll(signed_in, codes)) == "access_denied"
    assert answer_page(signed_in, codes["user_code"], "approve").status_code == 404
    with transaction(services.sessions) as session:
        assert session.scalars(select(Token.name)).all() == ["test"]


def test_a_code_ends(signed_in: TestClient, services: Services) -> None:
    codes = start(signed_in)
    with transaction(services.sessions) as session:
        session.execute(update(DeviceLogin).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    assert answer_page(signed_in, codes["user_code"], "approve").status_code == 404
    assert refusal(poll(signed_in, codes)) == "expired_token"
    start(signed_in)
    with transaction(services.sessions) as session:
        assert session.scalar(select(func.count()).select_from(DeviceLogin)) == 1


def test_only_a_person_on_our_own_page_approves(client: TestClient, ann: Person) -> None:
    codes = start(client)
    asked = client.get("/device", headers={"Accept": "text/html"}, follow_redirects=False)
    assert asked.headers["Location"] == "/login?next=%2Fdevice"
    assert answer_page(client, codes["user_code"], "approve").headers["Location"] == "/login"
    client.post("/v1/session", json={"token": ann.token})
    cross = answer_page(client, codes["user_code"], "approve", **{"Sec-Fetch-Site": "cross-site"})
    assert cross.status_code == 403
    assert refusal(poll(client, codes)) == "authorization_pending"


def test_other_grants_are_not_offered(client: TestClient) -> None:
    answer = client.post("/oauth/token", data={"grant_type": "refresh_token", "refresh_token": "x"})
    assert refusal(answer) == "not_offered"


def test_hf_auth_login(hub_url: str, start_client: StartClient, ann: Person) -> None:
    """The bare command, and a person who opens the address that it prints."""
    with start_client(["hf", "auth", "login"], token=None) as process:
        end = threading.Timer(60, process.kill)
        end.start()
        assert process.stdout is not None
        said = ""
        while not (found := re.search(r"[B-Z]{4}-[B-Z]{4}", said)):
            line = process.stdout.readline()
            assert line, said
            said += line
        with httpx.Client(base_url=hub_url) as browser:
            browser.post("/v1/session", json={"token": ann.token})
            browser.post("/device", data={"code": found[0], "answer": "approve"})
        rest, _ = process.communicate()
        end.cancel()
        assert process.returncode == 0, said + rest
    with start_client(["hf", "auth", "whoami"], token=None) as process:
        assert "ann" in process.communicate()[0]


def test_hf_auth_login_with_a_token(start_client: StartClient, ann: Person) -> None:
    with start_client(["hf", "auth", "login", "--token", ann.token], token=None) as process:
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert ann.token not in said
    with start_client(["hf", "auth", "login", "--token", "ll_wrong"], token=None) as process:
        assert isinstance(process, subprocess.Popen)
        assert process.wait(timeout=60) != 0
