"""The pages: what they show, to whom, and that nothing of an upload becomes code in them."""

import re
import uuid

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from hub.http.identity import COOKIE
from hub.registry.library import scores
from hub.registry.models.jobs import Job
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.files import examples_file, peft_folder
from tests.support.http import upload, upload_adapter
from tests.support.jobs import queue_job
from tests.support.pages import EVIL, HTML, sign_in


def test_the_list_shows_what_the_visitor_may_see(client: TestClient, ann: Person) -> None:
    upload_adapter(client, ann.headers, "ann/open", visibility="public")
    upload_adapter(client, ann.headers, "ann/hidden", visibility="private", seed=1)
    visitor = client.get("/").text
    assert "ann/open" in visitor
    assert "ann/hidden" not in visitor
    sign_in(client, ann)
    assert "ann/hidden" in client.get("/").text


def test_a_module_shows_facts_findings_card_and_files(client: TestClient, ann: Person) -> None:
    files = peft_folder(base=None)
    files["README.md"] = b"# Card\n\nIt *answers*.\n"
    assert upload(client, ann.headers, "ann/odd", files, visibility="public").status_code == 201
    page = client.get("/adapters/ann/odd").text
    assert "<em>answers</em>" in page
    assert "Set base_model_name_or_path" in page, "the remedy of a finding"
    assert "Add license:" in page
    assert "adapter_model.safetensors" in client.get("/adapters/ann/odd/files").text
    assert ">v1</a>" in client.get("/adapters/ann/odd/versions").text


def test_what_one_may_not_see_is_not_found(client: TestClient, ann: Person, bob: Person) -> None:
    upload_adapter(client, ann.headers, "ann/hidden", visibility="private")
    sign_in(client, bob)
    hidden = client.get("/adapters/ann/hidden", headers=HTML)
    missing = client.get("/adapters/ann/missing", headers=HTML)
    assert hidden.status_code == missing.status_code == 404
    assert hidden.text.replace("hidden", "missing") == missing.text


def test_text_of_an_upload_is_text(client: TestClient, ann: Person) -> None:
    files = peft_folder(base=f"{EVIL}/base")
    card = f"---\ntags: ['{EVIL}']\nlicense: '{EVIL}'\n---\n{EVIL}\n\n[click](javascript:alert(1)) ![x](http://tracker.example/x.png)\n"
    files["README.md"] = card.encode()
    assert upload(client, ann.headers, "ann/evil", files, visibility="public", message=EVIL).status_code == 201
    for path in ("/", "/adapters/ann/evil"):
        answer = client.get(path)
        assert EVIL not in answer.text
        assert 'href="javascript:' not in answer.text
        assert 'src="http' not in answer.text, "no image of the card, only our own icon"
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_no_page_holds_inline_script_or_style(client: TestClient, ann: Person) -> None:
    """Which the policy would block: a page that relied on them would be broken."""
    upload_adapter(client, ann.headers, "ann/open", visibility="public")
    sign_in(client, ann)
    for path in ("/", "/adapters/ann/open", "/jobs", "/scores", "/login"):
        page = client.get(path).text
        assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page) == [], path


def test_signing_in_and_out(client: TestClient, ann: Person) -> None:
    refused = client.post("/login", data={"token": "ll_wrong"})
    assert refused.status_code == 401
    assert "not valid" in refused.text
    assert COOKIE not in refused.cookies
    sign_in(client, ann)
    assert "Sign out" in client.get("/").text
    client.post("/logout", follow_redirects=False)
    assert "Sign out" not in client.get("/").text, "the session is over, whatever cookie the browser still sends"


def test_forms_from_other_sites_are_refused(client: TestClient, ann: Person) -> None:
    elsewhere = {"Sec-Fetch-Site": "cross-site"}
    assert client.post("/login", data={"token": ann.token}, headers=elsewhere).status_code == 403
    sign_in(client, ann)
    assert client.post("/logout", headers=elsewhere).status_code == 403
    assert client.post(f"/jobs/{uuid.uuid4()}/cancel", headers=elsewhere).status_code == 403


def test_jobs_need_a_signed_in_user(client: TestClient) -> None:
    answer = client.get("/jobs", headers=HTML, follow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?next=%2Fjobs")


@pytest.fixture
def queued(client: TestClient, services: Services, ann: Person) -> uuid.UUID:
    return queue_job(services, ann, "compose", optimizer=EVIL)


def test_a_job_is_shown_to_its_owner_and_cancelled(
    client: TestClient, ann: Person, bob: Person, queued: uuid.UUID
) -> None:
    sign_in(client, bob)
    assert client.get(f"/jobs/{queued}", headers=HTML).status_code == 404
    assert client.post(f"/jobs/{queued}/cancel").status_code == 404
    sign_in(client, ann)
    assert str(queued) in client.get("/jobs").text
    page = client.get(f"/jobs/{queued}").text
    assert "Waiting for a worker" in page
    assert f"/v1/jobs/{queued}/stream" in page
    after = client.post(f"/jobs/{queued}/cancel")
    assert ">cancelled<" in after.text
    assert "job.js" not in after.text, "nothing is live any more"


def test_a_finished_job_shows_its_report_and_trace(
    client: TestClient, services: Services, ann: Person, queued: uuid.UUID
) -> None:
    estimate = {"mean": 0.5, "low": 0.4, "high": 0.6}
    both = {"exact_match": estimate, "target_loss": estimate}
    report = {
        "arms": [{"name": name, "made_by": {}, **both} for name in ("base", "composition")],
        "comparisons": [{"against": "base", **both}],
        "verdict": f"It loses. {EVIL}",
        "held_out": 120,
    }
    at = {"weights": [0.25], "objective": None, "cached": False}
    trace = [{"step": step, "loss": 3.0 / step, "best": 3.0 / step, **at} for step in (1, 2, 3)]
    result = {"report": report, "trace": trace, "weights": {"ann/a@1": 0.25}, "warnings": ["Mind the gap."]}
    with transaction(services.sessions) as session:
        session.execute(update(Job).where(Job.id == queued).values(state="succeeded", result=result))
    sign_in(client, ann)
    page = client.get(f"/jobs/{queued}").text
    assert "It loses." in page
    assert EVIL not in page
    assert page.count('r="2.5"') == 3, "the trace"
    assert "+0.250" in page
    assert "Mind the gap." in page
    assert "+0.500" in page


def test_scores_are_a_table_of_modules_by_data_set(
    client: TestClient, services: Services, ann: Person, queued: uuid.UUID
) -> None:
    module = upload_adapter(client, ann.headers, "ann/m", visibility="public")
    data = upload(
        client, ann.headers, "ann/d", {"d.jsonl": examples_file()}, kind="datasets", visibility="public"
    ).json()
    with transaction(services.sessions) as session:
        for commit, value in ((module["commit"], 0.75), (None, 0.25)):
            figure = scores.Measurement("exact_match", value, 0.1, 0.9, 3, "base", data["commit"], "d.jsonl", "plain")
            scores.keep(session, figure, commit_id=commit, job_id=queued)
    page = client.get("/scores").text
    assert "0.750" in page
    assert "base alone" in page
    assert "ann/d" in page
    module_page = client.get("/adapters/ann/m").text
    assert re.search(r"0\.750 .*?0\.250 ", module_page, re.DOTALL), "the adapter beside the base alone"


def test_the_api_is_described_without_help_from_elsewhere(client: TestClient) -> None:
    page = client.get("/v1/docs").text
    routes = client.get("/v1/openapi.json").json()["paths"]
    for path, methods in routes.items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in page
    assert 'id="ComposeRequest"' in page
    assert "evaluations of the loss" in page
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)


def test_static_files_are_those_of_the_list(client: TestClient) -> None:
    assert client.get("/static/style.css").headers["Content-Type"].startswith("text/css")
    assert client.get("/static/..%2Fpages.py").status_code == 404
    assert client.get("/static/pages.py").status_code == 404


@pytest.mark.parametrize(
    "next", ["/jobs?kind=train", "//evil.example", "/\\evil.example", "https://evil.example", "/a b", ""]
)
def test_signing_in_leads_back_to_this_hub_alone(client: TestClient, ann: Person, next: str) -> None:
    answer = client.post("/login", data={"token": ann.token, "next": next}, follow_redirects=False)
    assert answer.headers["Location"] == (next if next == "/jobs?kind=train" else "/")
