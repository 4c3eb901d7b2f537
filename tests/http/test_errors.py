"""What holds for every route: one shape of errors, one transaction a request, no writing from other sites, no body without bound."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select
from starlette.testclient import TestClient

from api.app import create_app
from hub.http.identity import COOKIE, ServicesDep, SessionDep
from hub.registry.models.access import Token
from hub.registry.models.instance import Mark
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import Conflict
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.files import peft_folder
from tests.support.http import upload, upload_adapter


def error_of(answer: Any) -> dict[str, Any]:
    """The one shape: a JSON object with `error`, which has a code for programs and a sentence for people."""
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    error = body["error"]
    assert error["code"].replace("_", "").isalnum()
    assert len(error["message"].split()) > 2
    return dict(error)


@pytest.mark.parametrize(
    ("method", "path", "signed_in", "status", "code"),
    [
        ("GET", "/v1/me", False, 401, "not_signed_in"),
        ("POST", "/v1/users", True, 403, "forbidden"),
        ("GET", "/v1/adapters/ann/absent", True, 404, "repo_not_found"),
        ("GET", "/v1/nothing", True, 404, "not_found"),
        ("PUT", "/v1/me", True, 405, "method_not_allowed"),
        ("GET", "/v1/adapters?limit=0", True, 422, "invalid_request"),
        ("GET", "/v1/adapters?cursor=mine", True, 422, "invalid_input"),
        ("GET", "/v1/jobs/not-a-uuid", True, 422, "invalid_request"),
    ],
)
def test_every_error_has_one_shape(
    client: TestClient, ann: Person, method: str, path: str, signed_in: bool, status: int, code: str
) -> None:
    json = {"name": "carl"} if method == "POST" else None
    answer = client.request(method, path, headers=ann.headers if signed_in else {}, json=json)
    assert (answer.status_code, error_of(answer)["code"]) == (status, code)


def test_a_conflict_and_what_is_too_large_have_the_same_shape(
    client: TestClient, services: Services, ann: Person
) -> None:
    upload_adapter(client, ann.headers, "ann/a")
    client.delete("/v1/adapters/ann/a", headers=ann.headers)
    held = upload(client, ann.headers, "ann/a", peft_folder(seed=2))
    assert (held.status_code, error_of(held)["code"]) == (409, "repo_exists")
    with TestClient(create_app(limited(services, 1_000))) as small:
        answer = upload(small, ann.headers, "ann/b", peft_folder())
        assert (answer.status_code, error_of(answer)["code"]) == (413, "too_large")


def test_an_invalid_request_says_where(client: TestClient, ann: Person) -> None:
    answer = client.post("/v1/jobs", headers=ann.headers, json={"kind": "generate", "prompt": ""})
    (problem,) = error_of(answer)["problems"]
    assert problem["where"] == "body.generate.prompt"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/adapters?q=%00",
        "/v1/adapters?tag=%00",
        "/v1/adapters?owner=%00",
        "/v1/adapters?rank=99999999999",
        "/v1/adapters/ann/%00",
        "/v1/adapters/%00/a",
        "/v1/adapters/ann/a?revision=%00",
        "/v1/adapters/ann/a/files/%00",
        "/v1/datasets?cursor=%00",
    ],
)
def test_values_that_the_database_cannot_hold_are_the_request_s_fault(
    client: TestClient, ann: Person, path: str
) -> None:
    upload_adapter(client, ann.headers, "ann/a")
    answer = client.get(path, headers=ann.headers)
    assert (answer.status_code, error_of(answer)["code"]) == (422, "invalid_input")


def test_nor_can_they_be_written(client: TestClient, services: Services, ann: Person) -> None:
    for answer in (
        upload(client, ann.headers, "ann/a", peft_folder(), message="a\0b"),
        upload(client, ann.headers, "ann\0/a", peft_folder()),
        client.post("/v1/tokens", headers=ann.headers, json={"name": "a\0b"}),
    ):
        assert (answer.status_code, error_of(answer)["code"]) == (422, "invalid_input")
    with transaction(services.sessions) as session:
        assert session.scalars(select(Token.name)).all() == ["test"]


# Other sites


CROSS = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://elsewhere.example"},
    {"Origin": "null"},
    {"Origin": "http://testserver:81"},
    {"Origin": "http://testserver", "Sec-Fetch-Site": "cross-site"},
]
SAME = [{}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": "http://testserver"}]


def token_names(services: Services) -> list[str]:
    with transaction(services.sessions) as session:
        return list(session.scalars(select(Token.name).order_by(Token.created_at)))


@pytest.mark.parametrize("headers", CROSS)
def test_another_site_s_form_writes_nothing_with_the_cookie(
    client: TestClient, services: Services, ann: Person, headers: dict[str, str]
) -> None:
    client.post("/v1/session", json={"token": ann.token})
    answer = client.post("/v1/tokens", headers=headers, json={"name": "stolen"})
    assert (answer.status_code, error_of(answer)["code"]) == (403, "forbidden")
    assert token_names(services) == ["test"]
    assert client.delete("/v1/session", headers=headers).status_code == 403
    assert client.get("/v1/me", headers=headers).status_code == 200  # reading changes nothing


@pytest.mark.parametrize("headers", SAME)
def test_the_hub_s_own_pages_write_with_the_cookie(
    client: TestClient, services: Services, ann: Person, headers: dict[str, str]
) -> None:
    client.post("/v1/session", json={"token": ann.token})
    assert client.post("/v1/tokens", headers=headers, json={"name": "mine"}).status_code == 201
    assert token_names(services) == ["test", "mine"]


@pytest.mark.parametrize("headers", CROSS)
def test_a_token_is_a_program_s_and_no_browser_sends_it_unasked(
    client: TestClient, ann: Person, headers: dict[str, str]
) -> None:
    answer = client.post("/v1/tokens", headers={**headers, **ann.headers}, json={"name": "mine"})
    assert answer.status_code == 201


def test_a_bad_token_is_not_made_good_by_a_good_cookie(client: TestClient, ann: Person) -> None:
    client.post("/v1/session", json={"token": ann.token})
    assert client.cookies[COOKIE]
    assert client.get("/v1/me", headers={"Authorization": "Bearer ll_wrong"}).status_code == 401


# Bodies


FORM = "multipart/form-data; boundary=b"


def limited(services: Services, limit: int) -> Services:
    return replace(services, settings=services.settings.model_copy(update={"max_upload_bytes": limit}))


def test_a_body_is_bounded_whether_or_not_it_says_its_length(services: Services, ann: Person) -> None:
    def unannounced() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 1_000

    headers = {**ann.headers, "Content-Type": "application/json"}
    with TestClient(create_app(limited(services, 10_000))) as client:
        said = client.post("/v1/jobs", headers=headers, content=b" " * 10_001)
        assert (said.status_code, error_of(said)["code"]) == (413, "too_large")
        assert client.post("/v1/jobs", headers=headers, content=b" " * 10_000).status_code == 422
        streamed = client.post("/v1/adapters", headers={**ann.headers, "Content-Type": FORM}, content=unannounced())
        assert (streamed.status_code, error_of(streamed)["code"]) == (413, "too_large")
        lying = {**ann.headers, "Content-Type": FORM, "Content-Length": "5"}
        assert client.post("/v1/adapters", headers=lying, content=b"--b" + b"x" * 20_000).status_code == 413


# Transactions


def with_routes(services: Services) -> FastAPI:
    """The application with routes that write a row, and then either answer, raise, or make the commit itself fail."""
    app = create_app(services)

    @app.post("/v1/test/{how}")
    def write(session: SessionDep, services: ServicesDep, how: str) -> dict[str, bool]:
        session.add(Mark(name=how))
        session.flush()
        if how == "raise":
            raise Conflict("It is there already.")
        if how == "commit-fails":
            session.connection().invalidate()
        with services.sessions() as other:
            return {"seen before the end": other.get(Mark, how) is not None}

    return app


def marks(services: Services) -> list[str]:
    with transaction(services.sessions) as session:
        return list(session.scalars(select(Mark.name)))


def test_a_request_is_one_transaction_committed_at_its_end(services: Services) -> None:
    with TestClient(with_routes(services)) as client:
        answer = client.post("/v1/test/write")
        assert (answer.status_code, answer.json()) == (200, {"seen before the end": False})
    assert marks(services) == ["write"]


def test_a_request_that_fails_leaves_nothing(services: Services) -> None:
    with TestClient(with_routes(services)) as client:
        answer = client.post("/v1/test/raise")
        assert (answer.status_code, error_of(answer)["code"]) == (409, "conflict")
    assert marks(services) == []


def test_no_answer_reports_success_before_the_commit(services: Services) -> None:
    with TestClient(with_routes(services), raise_server_exceptions=False) as client:
        assert client.post("/v1/test/commit-fails").status_code >= 500
    assert marks(services) == []
