"""A database of 0.1.0, upgraded: people sign in, repos, jobs, aliases and share links are read as before (tests/data/0.1.0)."""

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api.app import create_app
from hub.local import postgres
from hub.registry.access import credentials, organizations, quota
from hub.registry.access.viewer import Viewer
from hub.registry.content import aliases, repos, share_links
from hub.registry.jobs import job_queries
from hub.registry.library import provenance
from hub.registry.models.access import User
from hub.registry.platform import schema
from hub.registry.platform.db import connect, transaction
from hub.registry.platform.errors import NotFound
from hub.registry.platform.services import connect as connect_services
from hub.registry.platform.settings import Settings
from hub.vocabulary import JOB_KINDS, JOB_STATES

DATA = Path(__file__).parents[1] / "data/0.1.0"
SECRETS: dict[str, Any] = json.loads((DATA / "secrets.json").read_text())
JOBS: dict[str, dict[str, Any]] = SECRETS["jobs"]


@pytest.fixture(scope="module")
def upgraded(base_settings: Settings) -> Iterator[str]:
    """The URL of the restored database at the newest migration."""
    server = schema.server_url(base_settings.database_url)
    name = f"loraloom_upgrade_{uuid.uuid4().hex[:12]}"
    url = schema.create_database(server, name)
    psql = [
        str(postgres.programs() / "psql"),
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        f"--file={DATA / 'database.sql'}",
        url,
    ]
    restored = subprocess.run(psql, capture_output=True, text=True, check=False)
    assert restored.returncode == 0, restored.stderr
    schema.upgrade(url)
    yield url
    schema.drop_database(server, name)


@pytest.fixture
def session(upgraded: str) -> Iterator[Session]:
    sessions = connect(upgraded)
    with transaction(sessions) as session:
        yield session
    sessions.kw["bind"].dispose()


@pytest.fixture
def ann(session: Session) -> Viewer:
    return credentials.identify_token(session, SECRETS["tokens"]["ann"])


def test_the_schema_is_that_of_a_new_database(upgraded: str) -> None:
    schema.check(upgraded)


def test_people_sign_in(session: Session, ann: Viewer) -> None:
    assert ann.name == "ann"
    assert credentials.identify_token(session, SECRETS["tokens"]["admin"]).is_admin
    hashed = session.get_one(User, ann.id).password_hash
    assert credentials.password_fits(hashed, SECRETS["password"])
    assert not credentials.password_fits(hashed, "another one")


def test_tokens_are_good_for_what_they_were(session: Session) -> None:
    limited = credentials.identify_token(session, SECRETS["tokens"]["limited"])
    assert (limited.name, limited.scopes, limited.repos) == ("ann", frozenset({"read"}), ("ann/module1", "weavers/*"))
    service = credentials.identify_token(session, SECRETS["tokens"]["ci"])
    assert service.namespace == "weavers"


def test_a_team_has_its_members_and_limits(session: Session, ann: Viewer) -> None:
    assert {user.name: role for user, role in organizations.members(session, ann, "weavers")}["bob"] == "read"
    assert len(organizations.invitations(session, ann, "weavers")) == 1
    assert quota.usage(session, ann, "weavers").quota_bytes == 10**9


def test_repos_have_their_commits_versions_and_files(session: Session, ann: Viewer) -> None:
    repo = repos.find(session, ann, "model", "ann/versions")
    first, second = (repos.resolve(session, repo, version) for version in ("v1", "v2"))
    assert second.parent == first.id
    assert [repos.version_of(session, commit) for commit in (first, second)] == ["v1", "v2"]
    names = {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert {entry.path for entry in repos.files(session, second)} >= names
    (facts,) = repos.facts(session, second)
    assert facts.rank == 2
    with pytest.raises(NotFound):
        repos.find(session, ann, "model", "weavers/odd")  # was deleted


def test_an_alias_has_its_record_and_its_gate(session: Session, ann: Viewer) -> None:
    repo = repos.find(session, ann, "model", "ann/versions")
    (prod,) = aliases.listing(session, ann, repo)
    assert prod.commit == repos.resolve(session, repo, "v1").id
    assert [move.action for move in prod.moves] == ["gate", "rollback", "move", "move"]
    assert prod.gate is not None
    assert prod.gate.metric == "target_loss"


def test_a_share_link_still_opens(session: Session) -> None:
    repo, commit, _ = share_links.open_share_link(session, SECRETS["share"])
    assert (repo.full_name, repos.version_of(session, commit)) == ("ann/versions", "v1")


@pytest.mark.parametrize("name", JOBS)
def test_a_job_says_what_it_said(session: Session, ann: Viewer, name: str) -> None:
    expected = JOBS[name]
    job = job_queries.find(session, ann, uuid.UUID(expected["id"]))
    assert (job.kind, job.state) == (expected["kind"], expected["state"])
    published = job_queries.results(session, [job]).get(job.id)
    assert (published.repo if published else None) == expected["result_repo"]


def test_a_composition_has_its_modules_as_parents(session: Session, ann: Viewer) -> None:
    repo = repos.find(session, ann, "model", "ann/woven")
    parents = provenance.parents(session, ann, repos.resolve(session, repo))
    assert {parent.repo for parent in parents if parent.role == "module"} == {"ann/module1", "ann/module2"}


def test_all_kinds_but_one_and_all_states_are_among_them() -> None:
    assert {job["kind"] for job in JOBS.values()} == set(JOB_KINDS) - {"convert"}
    assert {job["state"] for job in JOBS.values()} == set(JOB_STATES)


@pytest.mark.parametrize("name", JOBS)
def test_the_api_and_the_page_show_a_job(base_settings: Settings, upgraded: str, tmp_path: Path, name: str) -> None:
    settings = base_settings.model_copy(update={"database_url": upgraded, "cache_dir": tmp_path})
    services = connect_services(settings)
    headers = {"Authorization": f"Bearer {SECRETS['tokens']['ann']}"}
    with TestClient(create_app(services), base_url="http://testserver") as client:
        answer = client.get(f"/v1/jobs/{JOBS[name]['id']}", headers=headers)
        page = client.get(f"/jobs/{JOBS[name]['id']}", headers=headers)
        listed = client.get("/v1/jobs", headers=headers)
    services.close()
    assert answer.status_code == 200, answer.text
    assert {key: answer.json()[key] for key in JOBS[name]} == JOBS[name]
    assert page.status_code == 200, page.text
    assert JOBS[name]["id"] in {job["id"] for job in listed.json()}
