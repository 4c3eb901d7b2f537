"""One instance for the whole matrix: an organization, somebody in each role, and repos of each visibility that are made when needed."""

import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from hub.registry.access import credentials, users
from hub.registry.access.permissions import UseJobs, authorize
from hub.registry.access.viewer import viewer_of
from hub.registry.jobs import queueing
from hub.registry.jobs.submit import submit
from hub.registry.models.access import Membership
from hub.registry.platform import schema
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services, connect
from hub.registry.platform.settings import Settings
from tests.conftest import Person
from tests.support import published
from tests.support.requests import REQUESTS

ORGANIZATION = "weavers"


@dataclass
class Instance:
    """People by role, and the things that a request may name: made once for each visibility, and again after `spend`."""

    services: Services
    client: TestClient
    people: dict[str, Person]
    things: dict[str, dict[str, str]] = field(default_factory=dict)
    counter: Iterator[int] = field(default_factory=itertools.count)

    def named(self, visibility: Any) -> dict[str, str]:
        if visibility not in self.things:
            number, owner = next(self.counter), self.people["owner"]
            repo, dataset = f"{ORGANIZATION}/m{number}", f"{ORGANIZATION}/d{number}"
            published.adapter(self.services, owner, repo, visibility=visibility, seed=number)
            published.dataset(self.services, owner, dataset, visibility=visibility)
            self.things[visibility] = {"repo": repo, "dataset": dataset, "job_id": self._ended_job(repo, number)}
        return {**self.things[visibility], "fresh": str(next(self.counter))}

    def spend(self, visibility: str) -> None:
        self.things.pop(visibility)

    def _ended_job(self, repo: str, number: int) -> str:
        """Cancelled, so that its stream of events ends at once. Its result would be the organization's, so its members see it."""
        owner = self.people["owner"]
        examples = {"inline": [{"input": "a", "target": "b"}]}
        body = {
            "kind": "compose",
            "name": f"{ORGANIZATION}/w{number}",
            "modules": [{"repo": repo}],
            "examples": examples,
        }
        job = submit(self.services, authorize(owner.viewer, UseJobs), REQUESTS.validate_python(body))
        with transaction(self.services.sessions) as session:
            queueing.cancel(session, authorize(owner.viewer, UseJobs), job.id)
        return str(job.id)


def new_person(services: Services, name: str, role: str | None = None, *, is_admin: bool = False) -> Person:
    with transaction(services.sessions) as session:
        user = users.create_user(session, name, is_admin=is_admin)
        if role:
            session.add(Membership(namespace=ORGANIZATION, user_id=user.id, role=role))
        _, secret = credentials.issue_token(session, user.id, "test")
        return Person(name, secret, viewer_of(user))


def limited(services: Services, person: Person, repo: str) -> Person:
    """The same person with a token that has all scopes and is limited to one repo."""
    with transaction(services.sessions) as session:
        _, secret = credentials.issue_token(session, person.viewer.id, "limited", repos=[repo])
        return Person(person.name, secret, credentials.identify_token(session, secret))


@pytest.fixture(scope="package")
def instance(base_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    name = f"loraloom_test_{uuid.uuid4().hex[:12]}"
    url = schema.copy_database(base_settings.database_url, name)
    cache: Path = tmp_path_factory.mktemp("cache")
    # Nothing is limited here: the matrix fails to sign in more often than anybody should.
    changes = {"database_url": url, "broker_prefix": f"{name}:", "cache_dir": cache, "sign_in_attempts": 0}
    changes["webhook_hosts"] = "hooks.example.org"
    services = connect(base_settings.model_copy(update=changes))
    published.base(services)
    people = {"owner": new_person(services, "olga")}
    with transaction(services.sessions) as session:
        users.create_namespace(session, ORGANIZATION, "organization", people["owner"].viewer.id)
    people["stranger"] = new_person(services, "sven")
    people["reader"] = new_person(services, "rita", "read")
    people["writer"] = new_person(services, "walter", "write")
    people["administrator"] = new_person(services, "anna", is_admin=True)
    people["limited token"] = limited(services, people["administrator"], f"{ORGANIZATION}/elsewhere")
    new_person(services, "guest", "read")
    with TestClient(create_app(services), base_url="http://testserver") as client:
        yield Instance(services, client, people)
    services.close()
    schema.drop_database(schema.server_url(base_settings.database_url), name)
