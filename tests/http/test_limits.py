"""Rate limits: of requests, with the headers that clients wait by, and of failed sign-ins; none where the broker is gone."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.utils._http import parse_ratelimit_headers
from starlette.testclient import TestClient

from api.app import create_app
from hub.registry.platform.services import Services, connect
from tests.conftest import Person


@contextmanager
def limited(services: Services, **changes: object) -> Iterator[TestClient]:
    hub = connect(services.settings.model_copy(update=changes))
    with TestClient(create_app(hub), base_url="http://testserver") as client:
        yield client
    hub.close()


def test_requests_over_the_limit_are_refused_with_the_time_to_wait(
    services: Services, ann: Person, bob: Person
) -> None:
    with limited(services, requests_per_minute=3) as client:
        answers = [client.get("/v1/me", headers=ann.headers) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[3].json()["error"]["code"] == "too_many_requests"
        left = [re.match(r'"api";r=(\d+);t=\d+', answer.headers["RateLimit"]) for answer in answers]
        assert [found and found[1] for found in left] == ["2", "1", "0", "0"]
        assert 0 < int(answers[3].headers["Retry-After"]) <= 60
        parsed = parse_ratelimit_headers(answers[3].headers)  # by the stock client itself
        assert parsed is not None
        assert (parsed.resource_type, parsed.remaining, parsed.limit, parsed.window_seconds) == ("api", 0, 3, 60)
        # Others have limits of their own, the hub's protocol is counted with the rest, and health is always answered.
        assert client.get("/v1/me", headers=bob.headers).status_code == 200
        assert client.get("/api/whoami-v2", headers=ann.headers).status_code == 429
        assert client.get("/healthz", headers=ann.headers).status_code == 200


def test_visitors_are_counted_by_address(services: Services, ann: Person) -> None:
    with limited(services, requests_per_minute=2) as client:
        assert [client.get("/v1/adapters").status_code for _ in range(3)] == [200, 200, 429]
        assert client.get("/v1/adapters", headers=ann.headers).status_code == 200


def test_two_processes_count_together(services: Services, ann: Person) -> None:
    with limited(services, requests_per_minute=2) as one, limited(services, requests_per_minute=2) as other:
        answers = [client.get("/v1/me", headers=ann.headers).status_code for client in (one, other, one)]
    assert answers == [200, 200, 429]


def test_passwords_cannot_be_tried_without_end(services: Services, ann: Person, bob: Person) -> None:
    with limited(services, sign_in_attempts=3) as client:
        for person in (ann, bob):
            client.put("/v1/me/password", headers=person.headers, json={"new": "correct horse battery"})

        def tried(name: str, *, right: bool = False) -> int:
            password = "correct horse battery" if right else "wrong password"
            return client.post("/v1/session", json={"name": name, "password": password}).status_code

        assert [tried("ann") for _ in range(4)] == [401, 401, 401, 429]
        assert tried("ANN", right=True) == 429  # not even with the right one
        assert tried("bob", right=True) == 204
        form = client.post("/login", data={"name": "ann", "password": "wrong"})
        assert form.status_code == 429
        assert "too many failed sign-ins" in form.text
        # A token goes on working: whoever guesses at a name locks nobody out of his programs.
        assert client.get("/v1/me", headers=ann.headers).status_code == 200


def test_tokens_cannot_be_tried_without_end(services: Services, ann: Person) -> None:
    with limited(services, sign_in_attempts=1) as client:
        for number in range(10):
            wrong = client.get("/v1/me", headers={"Authorization": f"Bearer ll_{number}"})
            assert wrong.status_code == 401
        assert client.get("/v1/me", headers={"Authorization": "Bearer ll_more"}).status_code == 429


def test_tokens_at_the_sign_in_are_counted_too(services: Services, ann: Person) -> None:
    with limited(services, sign_in_attempts=1) as client:
        for number in range(10):
            body = {"token": f"ll_{number}"}
            by_form = number % 2 == 0
            answer = client.post("/login", data=body) if by_form else client.post("/v1/session", json=body)
            assert answer.status_code == 401
        assert client.post("/v1/session", json={"token": ann.token}).status_code == 429


def test_without_a_broker_nothing_is_limited(services: Services, ann: Person) -> None:
    with limited(services, requests_per_minute=1, broker_url="redis://127.0.0.1:9/0") as client:
        assert [client.get("/v1/me", headers=ann.headers).status_code for _ in range(3)] == [200, 200, 200]
        assert client.post("/v1/session", json={"name": "ann", "password": "wrong"}).status_code == 401
