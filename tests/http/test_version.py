"""One version, written in one place and reported by everything that names it."""

import tomllib
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from hub.registry.platform.services import Services
from hub.version import HEADER, VERSION

ROOT = Path(__file__).parents[2]


def test_health_and_openapi_tell_it(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok", "version": VERSION}
    assert client.get("/v1/openapi.json").json()["info"]["version"] == VERSION


@pytest.mark.parametrize("path", ["/", "/healthz", "/static/style.css", "/v1/nothing", "/v1/adapters?limit=0"])
def test_every_answer_has_it_in_a_header(client: TestClient, path: str) -> None:
    assert client.get(path).headers[HEADER] == VERSION


def test_the_answer_to_an_unforeseen_error_has_it_too(services: Services) -> None:
    app = create_app(services)

    def fail() -> None:
        raise RuntimeError

    app.add_api_route("/v1/fails", fail)
    app.router.routes.insert(0, app.router.routes.pop())
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.get("/v1/fails")
    assert (answer.status_code, answer.headers[HEADER]) == (500, VERSION)


def test_the_package_takes_it_from_the_code() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in config["project"]
    assert config["project"]["dynamic"] == ["version"]
    assert config["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "hub.version.VERSION"
