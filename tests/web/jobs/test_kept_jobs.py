"""Jobs that the code of 0.1.0 ran, on today's pages: everything that they found is shown."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from hub.registry.models.jobs import Job
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.vocabulary import JobKind
from tests.conftest import Person
from tests.support.jobs import queue_job
from tests.support.pages import sign_in

KEPT = Path(__file__).parents[2] / "data" / "0.1.0" / "jobs"
HEADINGS: dict[JobKind, list[str]] = {
    "compose": ["Weights"],
    "train": ["Training"],
    "par": ["Training", "Reinforcement", "Systems", "Partition"],
    "reduce": ["Trials"],
    "evaluate": ["Scores"],
    "convert": ["Conversion"],
    "generate": ["Answers"],
}


@pytest.mark.parametrize("folder", sorted(KEPT.iterdir()), ids=lambda folder: folder.name)
def test_a_kept_job_shows_all_it_found(client: TestClient, services: Services, ann: Person, folder: Path) -> None:
    kept: dict[str, Any] = json.loads((folder / "job.json").read_text())
    job_id = queue_job(services, ann, kept["kind"])
    with transaction(services.sessions) as session:
        values = {"state": "succeeded", "params": kept["params"], "result": kept["result"]}
        session.execute(update(Job).where(Job.id == job_id).values(values))
    sign_in(client, ann)
    page = client.get(f"/jobs/{job_id}")
    assert page.status_code == 200
    for heading in HEADINGS[kept["kind"]]:
        assert f"<h2>{heading}</h2>" in page.text
    for warning in kept["result"].get("warnings", ()):
        assert '<li class="warning">' in page.text, warning
    if report := kept["result"].get("report"):
        assert page.text.count('<svg class="whisker"') == len(report["arms"])
    assert client.get("/jobs").status_code == 200
