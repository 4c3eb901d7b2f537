"""Every kind of job has its place in the browser: in the list, as a form or where it is started instead, and to run again."""

import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from hub.registry.library.publishing import publish_model
from hub.registry.platform.services import Services
from hub.vocabulary import JOB_KINDS, JOB_STATES
from hub.web.pages.jobs.forms.kinds import FORMS, STARTED_ELSEWHERE
from tests.conftest import Person
from tests.support.files import TINY, peft_folder
from tests.support.pages import sign_in
from tests.support.published import adapter, base, dataset, incoming

EXAMPLES = {"dataset": "ann/task"}
REQUESTS: dict[str, dict[str, Any]] = {
    "compose": {"name": "ann/x", "modules": [{"repo": "ann/a"}], "examples": EXAMPLES},
    "train": {"name": "ann/x", "base": TINY, "examples": EXAMPLES},
    "par": {"name": "ann/x", "base": TINY, "examples": EXAMPLES},
    "reduce": {"name": "ann/x", "base": TINY, "examples": EXAMPLES},
    "evaluate": {"modules": [{"repo": "ann/a"}], "datasets": [EXAMPLES]},
    "convert": {"name": "ann/x", "source": {"repo": "ann/old"}},
    "generate": {"prompt": "Hello", "module": {"repo": "ann/a"}},
}


@pytest.fixture
def library(services: Services, ann: Person) -> None:
    base(services)
    adapter(services, ann, "ann/a")
    dataset(services, ann, "ann/task")
    files = incoming({"adapter_model.bin.pickle": b"pickled"})
    publish_model(services, ann.viewer, "ann/old", files, visibility="internal", message="Upload")


def test_a_kind_has_a_form_or_a_place_where_it_is_started() -> None:
    assert {*FORMS, *STARTED_ELSEWHERE} == set(JOB_KINDS)
    assert not set(FORMS) & set(STARTED_ELSEWHERE)


@pytest.mark.parametrize("kind", JOB_KINDS)
def test_a_job_of_a_kind_is_listed_shown_and_run_again(
    client: TestClient, ann: Person, library: None, kind: str
) -> None:
    body = {"kind": kind, **REQUESTS[kind]}
    answer = client.post("/v1/jobs", json=body, headers=ann.headers)
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["id"]
    sign_in(client, ann)
    listed = client.get(f"/jobs?kind={kind}")
    assert (listed.status_code, f"/jobs/{job_id}" in listed.text) == (200, True)
    other = next(name for name in JOB_KINDS if name != kind)
    assert f"/jobs/{job_id}" not in client.get(f"/jobs?kind={other}").text
    page = client.get(f"/jobs/{job_id}")
    assert page.status_code == 200
    (again,) = set(re.findall(r'href="(/new/[^"]*again=[^"]*)"', page.text))
    assert client.get(f"/new/{kind}").status_code == 200
    assert client.get(again).status_code == 200
    assert client.get(f"/new/{other}?again={job_id}").url == client.get(again).url


@pytest.mark.parametrize("state", JOB_STATES)
def test_jobs_are_filtered_by_each_state(client: TestClient, ann: Person, state: str) -> None:
    sign_in(client, ann)
    assert f"<option selected>{state}</option>" in client.get(f"/jobs?state={state}").text


def test_a_module_leads_to_its_conversion_where_that_would_help(
    client: TestClient, services: Services, ann: Person, library: None
) -> None:
    adapter(services, ann, "ann/pickled", files={**peft_folder(), "adapter_model.bin": b"pickled"})
    sign_in(client, ann)
    for name in ("ann/pickled", "ann/old"):
        (link,) = re.findall(r'href="(/new/convert[^"]+)"', client.get(f"/adapters/{name}").text)
        assert f'name="source.repo" value="{name}"' in client.get(link).text
    assert "/new/convert?" not in client.get("/adapters/ann/a").text
