"""What the tests of pages share: to sign in, to ask for HTML, and text that must never become code."""

from starlette.testclient import TestClient

from hub.http.identity import COOKIE
from tests.conftest import Person

HTML = {"Accept": "text/html"}
EVIL = "<script>alert(1)</script>"


def sign_in(client: TestClient, person: Person) -> TestClient:
    answer = client.post("/login", data={"token": person.token}, follow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    client.cookies.set(COOKIE, answer.cookies[COOKIE])
    return client
