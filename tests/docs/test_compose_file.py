"""docker-compose.yml: valid by the Compose Specification's schema, and its commands are the ones that `hub up` runs.

No docker engine is needed, so the images themselves are not built here; docs/operations.md says so.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from hub import supervisor

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "tests/data/compose-spec/schema.json").read_text())


def compose(name: str = "docker-compose.yml") -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return loaded


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker/gpu.yml"])
def test_schema(name: str) -> None:
    assert [error.message for error in Draft7Validator(SCHEMA).iter_errors(compose(name))] == []


def test_the_schema_would_notice() -> None:
    wrong = compose()
    wrong["services"]["api"]["restarts"] = "always"
    assert not Draft7Validator(SCHEMA).is_valid(wrong)


@pytest.mark.parametrize("name", ["api", "worker-gpu", "worker-interactive", "sweep"])
def test_the_commands_are_those_of_hub_up(name: str) -> None:
    """tests/e2e runs these very commands as plain processes."""
    command = compose()["services"][name]["command"]
    assert command[0] == "python"
    assert command[1:] == supervisor.commands("0.0.0.0", 8000)[name][1:]


def test_every_service_says_whether_it_is_healthy() -> None:
    services = compose()["services"]
    one_shot = {"migrate", "seed"}
    loops = {"sweep"}  # it exits, and is started again, when it loses its lock or its database
    for name, service in services.items():
        assert ("healthcheck" in service) == (name not in one_shot | loops), name


def test_no_secret_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert "${POSTGRES_PASSWORD:?" in text
    assert "${S3_SECRET:?" in text
