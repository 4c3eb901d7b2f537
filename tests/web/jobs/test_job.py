"""A job's page while it waits, runs and when it has ended; the list of jobs. Text of requests and results stays text."""

import json
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from html import unescape
from typing import Any

import pytest
from sqlalchemy import func, update
from starlette.testclient import TestClient

from hub.formats.report import Report
from hub.registry.jobs import leases, usage
from hub.registry.jobs.leases import Lease
from hub.registry.models.jobs import Job, WorkerProcess
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.web.report import ReportSummary, summarize_report
from tests.conftest import Person
from tests.support.jobs import RECIPE, queue_job
from tests.support.pages import EVIL, HTML, sign_in
from tests.support.published import WORKER

Submit = Callable[..., uuid.UUID]


@pytest.fixture
def submit(services: Services) -> Submit:
    return partial(queue_job, services)


def run(services: Services, job_id: uuid.UUID, *events: tuple[str, int, int, Mapping[str, float]]) -> Lease:
    with transaction(services.sessions) as session:
        lease = leases.claim(session, job_id, WORKER, 300)
        assert lease is not None
        for seq, event in enumerate(events, lease.next_seq):
            leases.record(session, lease, seq, *event)
    return lease


def end(services: Services, job_id: uuid.UUID, **values: Any) -> None:
    with transaction(services.sessions) as session:
        session.execute(update(Job).where(Job.id == job_id).values(**values))


def figure(mean: float, low: float, high: float) -> dict[str, float]:
    return {"mean": mean, "low": low, "high": high}


def test_a_waiting_job_says_what_is_before_it(
    client: TestClient, services: Services, ann: Person, bob: Person, submit: Submit
) -> None:
    submit(ann)
    for _ in range(3):
        submit(bob)
    submit(bob, queue="interactive")
    mine = submit(ann)
    sign_in(client, ann)
    page = client.get(f"/jobs/{mine}").text
    # One of her own; of Bob's three as many as go round until then; those of the other queue are nothing to it.
    assert "About 3 jobs are before it in the queue <code>gpu</code>, where 0 run now" in page
    first = client.get(f"/jobs/{submit(ann, queue='interactive')}").text
    assert "About 1 job is before it" in first


def test_a_waiting_job_says_whether_a_worker_is_there(
    client: TestClient, services: Services, ann: Person, submit: Submit
) -> None:
    job_id = submit(ann)
    sign_in(client, ann)
    page = client.get(f"/jobs/{job_id}").text
    assert "It is the next one of the queue <code>gpu</code>" in page
    assert "No worker of that queue is known." in page
    with transaction(services.sessions) as session:
        usage.announce(session, leases.Worker("elsewhere", "cpu"), ["interactive"])
        usage.announce(session, leases.Worker("here", "cpu"), ["gpu"])
    assert "No worker" not in client.get(f"/jobs/{job_id}").text
    with transaction(services.sessions) as session:
        session.execute(update(WorkerProcess).values(seen_at=func.now() - timedelta(minutes=3)))
    page = client.get(f"/jobs/{job_id}").text
    assert "has been seen for the last minute; the last one was" in page
    assert "3 min ago" in page


def test_a_running_job_is_complete_without_scripts(
    client: TestClient, services: Services, ann: Person, submit: Submit
) -> None:
    job_id = submit(ann)
    steps = [("train module", step, 40, {"loss": 4.0 / step, "seconds_left": 40.0 - step}) for step in range(1, 5)]
    run(services, job_id, ("load", 0, 0, {}), ("train module", 0, 0, {}), *steps)
    sign_in(client, ann)
    page = client.get(f"/jobs/{job_id}").text
    assert '<progress id="bar" max="40" value="4"' in page
    assert "4 of 40" in page
    assert "about 36 s" in page
    assert page.count("<circle") == 4, "the losses so far, drawn here"
    assert f'<noscript><p class="callout">This page does not move without scripts. <a href="/jobs/{job_id}">' in page
    log = re.findall(r"<td>(load|train module)</td>", page)
    assert log == ["train module"] * 5 + ["load"], "newest first"
    # What scripts carry on from: the stream after the last event shown, and the points so far.
    assert f'data-stream="/v1/jobs/{job_id}/stream" data-after="6"' in page
    (points,) = re.findall(r'data-points="([^"]*)"', page)
    assert [point["loss"] for point in json.loads(unescape(points)) if point["step"]] == [4.0, 2.0, 4 / 3, 1.0]


def test_a_long_job_is_shown_by_some_hundred_events_up_to_the_last(
    client: TestClient, services: Services, ann: Person, submit: Submit
) -> None:
    job_id = submit(ann)
    run(services, job_id, *(("search", step, 2_000, {"loss": 1.0, "best": 1.0}) for step in range(1, 1_501)))
    sign_in(client, ann)
    page = client.get(f"/jobs/{job_id}").text
    assert "1500 of 2000" in page, "of the newest event, not of the thousandth"
    assert page.count("<circle") == 500
    assert page.count("<td>search</td>") == 200


def test_time_left_is_estimated_from_the_steps_of_this_part(
    client: TestClient, services: Services, ann: Person, submit: Submit
) -> None:
    job_id = submit(ann, kind="compose")
    with transaction(services.sessions) as session:
        lease = leases.claim(session, job_id, WORKER, 300)
    assert lease is not None
    for seq, event in enumerate([("search", 0, 0, {}), ("search", 1, 5, {"loss": 1.0})], 1):
        with transaction(services.sessions) as session:
            leases.record(session, lease, seq, *event)
    sign_in(client, ann)
    (left,) = re.findall(r'id="left">about ([\d.]+) s<', client.get(f"/jobs/{job_id}").text)
    assert 0 <= float(left) < 60


def test_inputs_and_settings_are_readable(client: TestClient, ann: Person, submit: Submit) -> None:
    commit = "0123456789" * 4
    params = {
        "modules": [{"repo": "ann/a", "commit": commit, "folder": ""}],
        "examples": {"repo": "ann/d", "commit": commit, "path": "train.jsonl"},
        "tune": {"steps": 20, "learning_rate": 0.001},
        "rank": None,
        "per_layer": False,
        "optimizer": EVIL,
    }
    job_id = submit(ann, kind="compose", **params)
    sign_in(client, ann)
    page = client.get(f"/jobs/{job_id}").text
    assert f'<a href="/adapters/ann/a?revision={commit}">ann/a</a>' in page
    assert f'<a href="/datasets/ann/d?revision={commit}">ann/d</a>' in page
    assert "<dt>tune learning rate</dt><dd>0.001</dd><dt>tune steps</dt><dd>20</dd>" in page
    assert "<dt>per layer</dt><dd>no</dd>" in page
    assert "<dt>rank</dt>" not in page, "it was left out"
    assert EVIL not in page
    assert f'href="/new/compose?again={job_id}"' in page


def test_who_only_reads_sees_no_way_to_cancel(
    client: TestClient, services: Services, ann: Person, bob: Person, submit: Submit
) -> None:
    made = client.post("/v1/organizations", json={"name": "weavers"}, headers=ann.headers)
    assert made.status_code == 201, made.text
    offered = client.post("/v1/organizations/weavers/invitations", json={"role": "read"}, headers=ann.headers).json()
    accepted = client.post("/v1/invitations/accept", json={"secret": offered["secret"]}, headers=bob.headers)
    assert accepted.status_code < 300, accepted.text
    job_id = submit(ann)
    end(services, job_id, namespace="weavers")
    sign_in(client, bob)
    assert "Cancel this job" not in client.get(f"/jobs/{job_id}").text
    sign_in(client, ann)
    assert "Cancel this job" in client.get(f"/jobs/{job_id}").text


def test_a_failed_job_says_why_and_leads_on(
    client: TestClient, services: Services, ann: Person, submit: Submit
) -> None:
    job_id = submit(ann)
    end(services, job_id, state="failed", error_code="training_diverged", error_message=f"Lower the rate. {EVIL}")
    sign_in(client, ann)
    page = client.get(f"/jobs/{job_id}").text
    assert 'role="alert"><p>Lower the rate.' in page
    assert EVIL not in page
    assert "<code>training_diverged</code>" in page
    assert "Run it again with changes" in page
    assert "job.js" not in page, "nothing is live any more"


@pytest.mark.parametrize(
    ("against_base", "against_other", "held_out", "tone", "words"),
    [
        ((0.2, 0.1, 0.3), (0.2, 0.1, 0.3), 120, "good", "It helped, and is better than all"),
        ((0.2, 0.1, 0.3), (0.1, -0.1, 0.3), 120, "", "not shown to beat all"),
        ((0.2, 0.1, 0.3), (-0.2, -0.3, -0.1), 120, "warn", "something simpler is better still"),
        ((0.0, -0.1, 0.1), (0.2, 0.1, 0.3), 120, "", "not shown to help"),
        ((-0.2, -0.3, -0.1), (0.2, 0.1, 0.3), 120, "bad", "worse than the base"),
        ((0.2, 0.1, 0.3), (0.2, 0.1, 0.3), 99, "", "Too few held-out examples"),
    ],
)
def test_the_headline_says_whether_it_helped(
    against_base: tuple[float, float, float],
    against_other: tuple[float, float, float],
    held_out: int,
    tone: str,
    words: str,
) -> None:
    def summary(metric: str, sign: int) -> ReportSummary:
        def difference(mean: float, low: float, high: float) -> dict[str, float]:
            return figure(mean, low, high) if sign > 0 else figure(-mean, -high, -low)

        arms = [{"name": name, "made_by": {}, metric: figure(0.5, 0.4, 0.6)} for name in ("base", "lora", "module")]
        lines = [
            {"against": "base", metric: difference(*against_base)},
            {"against": "lora", metric: difference(*against_other)},
        ]
        report = {"arms": arms, "comparisons": lines, "held_out": held_out, "verdict": ""}
        return summarize_report(Report.model_validate(report))

    for metric, sign in (("exact_match", 1), ("target_loss", -1)):  # of a loss, less is better
        found = summary(metric, sign)
        assert (found.tone, words in found.headline) == (tone, True), found.headline
        assert found.ours == "module"


def test_weights_are_bars_the_largest_first(
    client: TestClient, services: Services, ann: Person, submit: Submit
) -> None:
    weights = {"ann/a@01234567": 0.25, "ann/b/sub@89abcdef": -0.5, f"{EVIL}@0": 0.0}
    job_id = submit(ann, kind="compose")
    end(services, job_id, state="succeeded", result={"weights": weights})
    sign_in(client, ann)
    page = client.get(f"/jobs/{job_id}").text
    assert page.index("-0.500") < page.index("+0.250") < page.index("+0.000")
    assert '<a href="/adapters/ann/b?revision=89abcdef">ann/b/sub</a>' in page
    assert 'class="minus" x="0.0" width="100.0"' in page
    assert 'class="plus" x="100.0" width="50.0"' in page
    assert EVIL not in page


def test_a_training_shows_both_rates_and_those_tried(
    client: TestClient, services: Services, ann: Person, submit: Submit
) -> None:
    settings = {**RECIPE, "learning_rate": 0.001, "ratio": 4.0, "steps": 30, "learnt": 36, "validated": 4}
    trials = [{"learning_rate": 0.001, "validation_loss": 0.25}, {"learning_rate": 0.1, "validation_loss": None}]
    result = {
        "settings": settings,
        "curve": {"module": {"every": 1, "losses": [3.0, 2.0], "validations": [(0, 3.0), (2, 1.0)]}},
        "search": {"module": {"trials": trials, "best": 0.001, "at_edge": True}},
        "tokens_per_second": 1234.5,
        "training_seconds": 61.0,
    }
    job_id = submit(ann)
    end(services, job_id, state="succeeded", result=result)
    sign_in(client, ann)
    page = client.get(f"/jobs/{job_id}").text
    assert "0.001 of A and 0.004 of B (4 times as large)" in page
    assert "0.001 (taken)" in page
    assert "diverged" in page
    assert "1.23 k tokens a second, 1 min 1 s in all" in page
    assert page.count('r="2.5"') == 2


def test_a_partition_is_a_map_of_layers_by_kinds(
    client: TestClient, services: Services, ann: Person, submit: Submit
) -> None:
    matrices = [
        {"matrix": f"model.layers.{layer}.mlp.up_proj {factor}", "system1": share, "system2": 0.0, "common": 0.1, "none": 0.9 - share}
        for layer, factor, share in ((0, "A", 0.4), (0, "B", 0.0), (10, "A", 0.2), (2, "A", 0.1))
    ]  # fmt: skip
    sizes = {"stage1": 0.3, "stage2": 0.2, "system1": 0.3, "system2": 0.2, "active": 0.4, "jaccard": 0.5}
    partition = {"elements": 1000, **sizes, "matrices": matrices}
    result = {
        "partition": partition,
        "split": {"by": "labels", "system1": 5, "system2": 6, "validated": 1},
        "accuracy": {"measure": "exact_match", "arms": {}},
    }
    job_id = submit(ann, kind="par")
    end(services, job_id, state="succeeded", result=result)
    sign_in(client, ann)
    page = client.get(f"/jobs/{job_id}").text
    (first,) = re.findall(r'<svg class="heat system1".*?</svg>', page, re.S)
    assert re.findall(r'class="across">(\d+)<', first) == ["0", "2", "10"], "in the order of the model"
    assert re.findall(r'class="y">([^<]+)<', first) == ["mlp.up_proj A", "mlp.up_proj B"]
    assert re.findall(r'fill-opacity="([\d.]+)"', first) == ["1.00", "0.00", "0.50", "0.25"], (
        "the largest share is the strongest"
    )
    assert "model.layers.10.mlp.up_proj A: 20.0% System 1 alone" in first
    assert '<td class="number">40.0%</td>' in page, "the same as a table"


def test_the_list_is_filtered_and_paged(client: TestClient, services: Services, ann: Person, submit: Submit) -> None:
    ids = [submit(ann, kind=kind) for kind in ["train"] * 51 + ["compose"]]
    run(services, ids[0], ("train module", 3, 9, {}))
    sign_in(client, ann)
    page = client.get("/jobs?kind=train").text
    assert re.findall(r'href="/jobs/([0-9a-f-]{36})"', page) == [str(each) for each in reversed(ids[1:51])]
    (older,) = re.findall(r'href="(/jobs\?[^"]*before=[^"]*)">Older', page)
    rest = client.get(unescape(older)).text
    assert re.findall(r'href="/jobs/([0-9a-f-]{36})"', rest) == [str(ids[0])]
    assert "train module 3/9" in rest
    assert "Older" not in rest
    assert str(ids[0]) in client.get("/jobs?state=running").text
    assert "No job matches" in client.get("/jobs?state=failed").text
    assert client.get("/jobs?namespace=ann&kind=compose").text.count('<th scope="row">') == 1
    assert client.get("/jobs?kind=nonsense", headers=HTML).status_code == 422


def test_an_empty_list_says_what_to_do(client: TestClient, bob: Person) -> None:
    sign_in(client, bob)
    page = client.get("/jobs").text
    assert "No jobs yet" in page
    assert 'href="/new/compose"' in page
