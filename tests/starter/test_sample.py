"""What `make dev` fills an instance with, by the registry's own functions."""

from pathlib import Path

import pytest
from sqlalchemy import func, select

from hub.lora.core.built_in import BUILT_IN_SHA256, convert_built_in
from hub.registry.access import credentials, organizations
from hub.registry.jobs import job_queries
from hub.registry.models.content import Commit
from hub.registry.models.jobs import Job
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.starter import sample
from hub.starter.publish import MODULES, publish_module
from hub.starter.seed import NAMESPACE, register_base


@pytest.fixture
def seeded(services: Services, pytestconfig: pytest.Config) -> Services:
    """What the sample needs of the first start. The built-in base is converted once and kept between runs in pytest's cache."""
    base = convert_built_in(pytestconfig.cache.mkdir("built-in") / BUILT_IN_SHA256[:12])
    viewer = register_base(services, base)
    for name in ("plurals", "upper-case", "past-tense"):
        publish_module(services, viewer, MODULES / name, f"{NAMESPACE}/{name}", "public")
    return services


def counts(services: Services) -> tuple[int, int]:
    with transaction(services.sessions) as session:
        jobs, commits = (session.scalar(select(func.count()).select_from(table)) for table in (Job, Commit))
    return jobs or 0, commits or 0


def test_a_team_with_data_sets_a_module_and_jobs_made_once(seeded: Services, tmp_path: Path) -> None:
    tokens = sample.fill(seeded, tmp_path)
    with transaction(seeded.sessions) as session:
        bob = credentials.identify_token(session, tokens["bob"])
        members = organizations.members(session, bob, sample.TEAM)
        jobs = job_queries.listing(session, bob)
    assert {user.name: role for user, role in members} == sample.MEMBERS
    assert {job.kind for job, _ in jobs} == {"generate", "evaluate", "compose", "train"}
    assert (tmp_path / sample.TOKENS).stat().st_mode & 0o777 == 0o600

    before = counts(seeded)
    assert sample.fill(seeded, tmp_path) == tokens
    assert counts(seeded) == before
