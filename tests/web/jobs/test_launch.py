"""The forms that start jobs: what they offer, the problems they show, and that the job queued is the one typed."""

import html
import json
import re
from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from hub.registry.content import repos
from hub.registry.library.publishing import publish_model
from hub.registry.models.content import Commit
from hub.registry.models.jobs import Job
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.vocabulary import JobKind
from hub.web.pages.jobs.forms.kinds import FORMS
from tests.conftest import Person
from tests.support.files import TINY, examples_file
from tests.support.pages import EVIL, HTML, sign_in
from tests.support.published import adapter, base, dataset, incoming

PASTED = "a\tb\nc\td\ne\tf\n"
COMPOSE = {
    "act": "start",
    "key": "k",
    "base": TINY,
    "namespace": "ann",
    "result": "woven",
    "module": ["ann/a", "ann/b", ""],
    "examples.from": "paste",
    "examples.text": PASTED,
}


@pytest.fixture
def library(services: Services, ann: Person) -> None:
    base(services)
    for seed, name in enumerate(("ann/a", "ann/b", "ann/c")):
        adapter(services, ann, name, seed=seed, visibility="internal")


def started(client: TestClient, services: Services, kind: str, typed: dict[str, Any]) -> Job:
    answer = client.post(f"/new/{kind}", data=typed, follow_redirects=False)
    assert answer.status_code == 303, problems(answer.text)
    with transaction(services.sessions) as session:
        return session.get_one(Job, answer.headers["Location"].removeprefix("/jobs/"))


def problems(page: str) -> list[str]:
    """What the page says is wrong, on top and beside fields."""
    top = re.findall(r'id="problem">(.*?)</div>', page, re.DOTALL)
    beside = re.findall(r'<p class="wrong"[^>]*>(.*?)</p>', page, re.DOTALL)
    return [html.unescape(text).strip() for text in top + beside]


def ticked(page: str) -> list[str]:
    return re.findall(r'name="module" value="([^"]+)"[^>]* checked', page)


def rows(services: Services, pinned: dict[str, str]) -> list[Any]:
    with transaction(services.sessions) as session:
        entry = repos.file(session, session.get_one(Commit, pinned["commit"]), pinned["path"])
    return [json.loads(line) for line in services.storage.read(entry.sha256, 0, entry.size).splitlines()]


@pytest.mark.parametrize("kind", sorted(FORMS))
def test_a_form_shows_every_field_of_its_model_with_its_default_and_a_line(
    signed_in: TestClient, library: None, kind: JobKind
) -> None:
    page = signed_in.get(f"/new/{kind}").text
    special = {
        "kind",
        "name",
        "modules",
        "module",
        "start_from",
        "examples",
        "held_out",
        "datasets",
        "split",
        "subject",
    }
    inside = {"tune": 2, "lr_search": 2, "partition": 5, "sft": 12, "grpo": 22, "source": 4}
    for name, field in FORMS[kind].model.model_fields.items():
        if name in inside:
            assert len(set(re.findall(rf'name="{name}\.([\w.]+)"', page))) == inside[name]
        elif name not in special:
            assert f'name="{name}"' in page, name
            if name != "base":
                assert field.description is not None
                line = html.escape(field.description[1:], quote=True).replace("&#x27;", "&#39;")
                assert line in page, name
    assert "Learning rate" not in page or 'value="0.0005"' in page or kind in ("par", "compose")


def test_visitors_are_asked_to_sign_in_and_sent_back(client: TestClient) -> None:
    answer = client.get("/new/compose?module=ann/a", headers=HTML, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/login?next=%2Fnew%2Fcompose%3Fmodule%3Dann%2Fa"
    assert client.get("/new/nothing", headers=HTML).status_code != 500


def test_links_of_other_pages_fill_the_form(
    signed_in: TestClient, services: Services, ann: Person, library: None
) -> None:
    dataset(services, ann, "ann/task")
    assert 'name="module" list="modules-named" value="ann/a"' in signed_in.get("/new/train?from=ann/a").text
    for kind in ("compose", "train", "par", "reduce"):
        sent = form_of(signed_in.get(f"/new/{kind}?dataset=ann/task").text)
        assert (sent["examples.from"], sent["examples.dataset"]) == (["dataset"], ["ann/task"])
    assert form_of(signed_in.get("/new/evaluate?dataset=ann/task").text)["dataset"][0] == "ann/task"


def test_an_unknown_kind_is_not_found(signed_in: TestClient) -> None:
    assert signed_in.get("/new/nothing", headers=HTML).status_code == 404
    assert signed_in.post("/new/generate", headers=HTML).status_code == 404, "asked for where an adapter is tried"


def test_what_fits_is_offered_and_why_the_rest_does_not(
    signed_in: TestClient, services: Services, ann: Person, bob: Person, library: None
) -> None:
    adapter(services, ann, "ann/foreign", base="other/base", seed=7)
    adapter(services, bob, "bob/secret", seed=8, visibility="private")
    adapter(services, bob, "bob/shown", seed=9, visibility="internal")
    page = signed_in.get("/new/compose", params={"module": "ann/b"}).text
    assert ticked(page) == ["ann/b"]
    assert 'value="bob/shown"' in page
    assert "bob/secret" not in page
    assert "is for other/base, which is not registered here" in page
    assert 'name="module" value="ann/foreign"' not in page
    asked = signed_in.get("/new/compose", params={"module": "ann/foreign"}).text
    assert "is for other/base" in asked, "what a link named is not dropped without a word"


def test_ranks_must_be_equal_only_where_the_form_says_so(
    signed_in: TestClient, services: Services, ann: Person, library: None
) -> None:
    adapter(services, ann, "ann/wide", rank=4, seed=9)
    typed = {**COMPOSE, "act": "refresh", "form": "sum"}
    assert "needs rank" not in signed_in.post("/new/compose", data=typed).text
    page = signed_in.post("/new/compose", data={**typed, "form": "product"}).text
    assert "has rank 4, and the form product needs rank 2" in page
    page = signed_in.post("/new/compose", data={**typed, "form": "product", "module": "ann/wide"}).text
    assert page.count("has rank 2, and the form product needs rank 4") == 3


def test_compose_queues_what_was_typed(signed_in: TestClient, services: Services, library: None) -> None:
    typed = {**COMPOSE, "search": "nevergrad", "budget": "12", "l1": "0.2", "tune.steps": "5", "visibility": "private"}
    job = started(signed_in, services, "compose", typed)
    assert (job.kind, job.namespace, job.visibility) == ("compose", "ann", "private")
    asked = {key: job.params[key] for key in ("search", "budget", "l1", "bound", "result")}
    assert asked == {"search": "nevergrad", "budget": 12, "l1": 0.2, "bound": 1.5, "result": "ann/woven"}
    assert job.params["tune"] == {"steps": 5, "learning_rate": 0.001}
    assert [module["repo"] for module in job.params["modules"]] == ["ann/a", "ann/b"]
    assert [row["input"] for row in rows(services, job.params["examples"])] == ["a", "c", "e"]
    assert "held_out" not in job.params


def test_sent_twice_it_is_one_job_and_changed_it_is_another(
    signed_in: TestClient, services: Services, library: None
) -> None:
    first = started(signed_in, services, "compose", COMPOSE)
    assert started(signed_in, services, "compose", COMPOSE).id == first.id
    assert started(signed_in, services, "compose", {**COMPOSE, "budget": "3"}).id != first.id


def test_a_part_of_what_is_pasted_is_held_out(signed_in: TestClient, services: Services, library: None) -> None:
    job = started(signed_in, services, "compose", {**COMPOSE, "held_out.from": "share", "held_out.share": "34"})
    learnt, held = (rows(services, job.params[name]) for name in ("examples", "held_out"))
    assert (len(learnt), len(held)) == (2, 1)
    assert {row["input"] for row in learnt + held} == {"a", "c", "e"}


def test_namespaces_are_searched_through(signed_in: TestClient, services: Services, library: None) -> None:
    typed = {**COMPOSE, "choose": "namespaces", "from": "ann", "k": "2", "by": "loss", "pool": "50"}
    job = started(signed_in, services, "compose", typed)
    assert (len(job.params["modules"]), job.params["choose"]) == (3, 2)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"module": ""}, "Choose at least one adapter."),
        ({"examples.text": "a\tb\nonly one"}, "Line 2: There is one column only"),
        ({"examples.text": ""}, "There are no examples; paste some, or choose a data set."),
        ({"examples.from": "dataset"}, "Name a data set, or paste examples."),
        ({"examples.from": "dataset", "examples.dataset": "ann/none"}, "There is no dataset repo 'ann/none'"),
        ({"budget": "0"}, "This should be greater than or equal to 1."),
        ({"budget": "many"}, "This should be a valid integer, unable to parse string as an integer."),
        ({"tune.steps": "-1"}, "This should be greater than or equal to 1."),
        ({"form": "ties"}, "The form ties cannot be searched; give weights and search none."),
        ({"result": "no/good"}, "'no/good' is not a valid name"),
        ({"namespace": "bob"}, "You may not write in the namespace 'bob'"),
        ({"held_out.from": "share", "examples.from": "dataset", "examples.dataset": "x/y"}, "Only what is pasted"),
        ({"held_out.from": "share", "held_out.share": "200"}, "between 0 and 100"),
        ({"module": ["ann/a", "ann/a"]}, "is chosen twice"),
    ],
)
def test_a_problem_is_shown_and_everything_typed_stays(
    signed_in: TestClient, services: Services, bob: Person, library: None, change: dict[str, Any], problem: str
) -> None:
    typed = {**COMPOSE, "l1": "0.25", "held_out.text": "kept\tas it was", **change}
    answer = signed_in.post("/new/compose", data=typed)
    assert 400 <= answer.status_code < 500
    assert any(problem in text for text in problems(answer.text)), problems(answer.text)
    change.pop("namespace", None)  # it is chosen from a list that has it no more
    for value in ("0.25", *[value for value in change.values() if isinstance(value, str) and "\n" not in value]):
        assert f'value="{value}"' in answer.text or f">{value}<" in answer.text
    assert "kept\tas it was" in answer.text
    with transaction(services.sessions) as session:
        assert session.query(Job).count() == 0


def test_text_is_text(signed_in: TestClient, library: None) -> None:
    typed = {**COMPOSE, "result": EVIL, "module": EVIL, "examples.text": f"{EVIL}\t{EVIL}", "examples.dataset": EVIL}
    for answer in (
        signed_in.post("/new/compose", data={**typed, "act": "refresh"}),
        signed_in.post("/new/compose", data=typed),
        signed_in.post("/new/preview", data={**typed, "act": "preview:examples"}),
        signed_in.post("/new/preview", data={**typed, "act": f"preview:{EVIL}"}),
        signed_in.get("/new/train", params={"base": EVIL, "rank": EVIL}),
    ):
        assert EVIL not in answer.text


def test_a_preview_shows_rows_problems_and_a_guess_at_tokens(signed_in: TestClient, library: None) -> None:
    text = "question\tanswer\n你好\thello\nonly one\nlong\t" + "x" * 400
    page = signed_in.post("/new/preview", data={"act": "preview:examples", "base": TINY, "examples.text": text}).text
    assert "<strong>2 examples</strong>, tab-separated" in page
    assert "About 105 tokens, the longest about 102: a guess from the bytes" in " ".join(page.split())
    assert "line 3</span> There is one column only" in page
    assert "你好" in page


def test_a_preview_of_a_data_set_shows_its_files_and_rows(
    signed_in: TestClient, services: Services, ann: Person, bob: Person, library: None
) -> None:
    dataset(services, ann, "ann/task", {"train.jsonl": examples_file(4), "test.jsonl": examples_file(2)})
    dataset(services, bob, "bob/secret", visibility="private")
    typed = {"act": "preview:held_out", "base": TINY, "held_out.from": "dataset", "held_out.dataset": "ann/task"}
    page = signed_in.post("/new/preview", data=typed).text
    assert "Choose a file of it: test.jsonl, train.jsonl." in page
    assert '<option value="train.jsonl">' in page
    page = signed_in.post("/new/preview", data={**typed, "held_out.path": "train.jsonl"}).text
    assert "<strong>4 examples</strong>, JSON lines" in page
    hidden = signed_in.post("/new/preview", data={**typed, "held_out.dataset": "bob/secret"}).text
    assert "There is no dataset repo" in html.unescape(hidden)


def test_train_queues_what_was_typed(signed_in: TestClient, services: Services, ann: Person, library: None) -> None:
    typed = {
        **{name: COMPOSE[name] for name in ("act", "base", "namespace", "result", "examples.from", "examples.text")},
        "rank": "16",
        "targets": "q_proj",
        "epochs": "3",
        "steps": "40",
        "compare": ["", "lora"],
        "dora": ["false", "true"],
        "search_rate": "yes",
        "lr_search.rates": "0.001, 0.002",
    }
    job = started(signed_in, services, "train", typed)
    recipe = job.params["recipe"]
    assert (recipe["rank"], recipe["target_modules"], recipe["steps"], recipe["dora"]) == (16, ["q_proj"], 40, True)
    assert (job.params["rates"], job.params["compare"]) == ([0.001, 0.002], ["lora"])


def test_a_module_is_trained_further_with_what_it_decides_left_alone(
    signed_in: TestClient, services: Services, library: None
) -> None:
    typed = {**COMPOSE, "module": "ann/a", "rank": "8", "dropout": "0", "dora": "false", "targets": "all-linear"}
    assert started(signed_in, services, "train", typed).params["start"]["repo"] == "ann/a"
    answer = signed_in.post("/new/train", data={**typed, "rank": "16", "result": "other"})
    assert any("decides this" in problem for problem in problems(answer.text))


def test_par_reduce_and_evaluate_queue_what_was_typed(
    signed_in: TestClient, services: Services, ann: Person, library: None
) -> None:
    common = {name: COMPOSE[name] for name in ("act", "base", "namespace", "result", "examples.from", "examples.text")}
    labelled = "input\ttarget\tsystem\na\tb\t1\nc\td\t2"
    par = started(
        signed_in,
        services,
        "par",
        {**common, "examples.text": labelled, "partition.theta": "0.8", "compare": ["", "pissa_rl"]},
    )
    assert (par.params["split"], par.params["compare"], par.params["changes"]["partition"]) == (
        "labels",
        ["pissa_rl"],
        {"theta": 0.8},
    )
    assert [row["system"] for row in rows(services, par.params["examples"])] == [1, 2]
    vote = {**common, "result": "voted", "split": "vote", "teachers": TINY, "gold.from": "paste", "gold.text": labelled}
    assert started(signed_in, services, "par", vote).params["teachers"][0]["base"]["id"] == TINY
    reduced = {**common, "result": "better", "top": "5", "loss_budget": "0.01"}
    assert started(signed_in, services, "reduce", reduced).params["top"] == 5
    smaller = {**common, "result": "smaller", "subject": "module", "module": "ann/a", "loss_budget": "0.5", "top": "10"}
    assert started(signed_in, services, "reduce", smaller).params["loss_budget"] == 0.5
    dataset(services, ann, "ann/task")
    measured = {
        "act": "start",
        "base": TINY,
        "module": ["ann/a", ""],
        "dataset": ["ann/task", "", ""],
        "path": ["", "", ""],
    }
    job = started(signed_in, services, "evaluate", {**measured, "include_base": "false", "metrics": ["", "contains"]})
    assert (job.params["include_base"], job.params["metrics"]) == (False, ["contains"])
    assert [each["path"] for each in job.params["datasets"]] == ["train.jsonl"]
    answer = signed_in.post("/new/evaluate", data={**measured, "metrics": "", "dataset": "ann/task"})
    assert any("at least 1 item" in problem for problem in problems(answer.text))


def foreign_weights(services: Services, person: Person, name: str) -> None:
    """A repo of type model with weights that PEFT cannot load."""
    files = incoming({"weights/lora.bin.pickle": b"pickled", "weights/other.bin.pickle": b"pickled"})
    publish_model(services, person.viewer, name, files, visibility="internal", message="Upload")


def test_convert_queues_what_was_typed(signed_in: TestClient, services: Services, ann: Person) -> None:
    foreign_weights(services, ann, "ann/old")
    linked = form_of(signed_in.get("/new/convert?module=ann/old").text)
    assert (linked["source.repo"], linked["namespace"], linked["result"]) == (["ann/old"], ["ann"], ["old"])
    typed = {
        **{"act": "start", "namespace": "ann", "result": "new", "source.repo": "ann/old", "source.folder": "weights"},
        **{"source.file": "lora.bin.pickle", "base": "other/base", "alpha": "16", "enable_lora": "true, false, true"},
    }
    job = started(signed_in, services, "convert", typed)
    assert (job.params["result"], job.params["source"]["path"]) == ("ann/new", "weights/lora.bin.pickle")
    assert (job.params["base_model"], job.params["alpha"]) == ("other/base", 16)
    assert job.params["enable_lora"] == [True, False, True]
    answer = signed_in.post("/new/convert", data={**typed, "source.file": "", "alpha": "0"})
    assert "This should be greater than 0." in problems(answer.text)
    answer = signed_in.post("/new/convert", data={**typed, "source.file": ""})
    assert any("has 2 files of weights" in problem for problem in problems(answer.text))


def test_a_prompt_is_tried_on_the_page_of_a_module(signed_in: TestClient, services: Services, library: None) -> None:
    assert 'name="module"' in signed_in.get("/new/generate").text
    moved = signed_in.get("/new/generate?module=ann/a", follow_redirects=False)
    assert moved.headers["Location"] == "/adapters/ann/a/try"
    signed_in.post("/adapters/ann/a/try", data={"prompt": "What is it?"})
    with transaction(services.sessions) as session:
        job_id = session.scalars(select(Job.id)).one()
    again = signed_in.get(f"/new/generate?again={job_id}")
    assert "What is it?</textarea>" in again.text
    assert str(again.url.path) == "/adapters/ann/a/try"
    body = {"kind": "generate", "prompt": "Hello", "base": TINY}
    job_id = signed_in.post("/v1/jobs", json=body, headers={"Origin": "http://testserver"}).json()["id"]
    assert "asked the base alone" in signed_in.get(f"/new/generate?again={job_id}").text


@pytest.mark.parametrize("kind", ["compose", "train", "par", "reduce", "evaluate", "convert"])
def test_again_fills_the_form_so_that_it_requests_the_same(
    signed_in: TestClient, services: Services, ann: Person, library: None, kind: str
) -> None:
    dataset(services, ann, "ann/task")
    common = {name: COMPOSE[name] for name in ("act", "base", "namespace", "result", "examples.from", "examples.text")}
    forms: dict[str, dict[str, Any]] = {
        "compose": {**COMPOSE, "l1": "0.3", "tuning": "no", "module": "ann/a@v1"},
        "train": {**common, "targets": "q_proj", "search_rate": "yes", "held_out.from": "share"},
        "par": {
            **common,
            "split": "vote",
            "teachers": TINY,
            "gold.from": "dataset",
            "gold.dataset": "ann/task",
            "sft.rank": "4",
        },
        "reduce": {**common, "subject": "module", "module": "ann/a", "score": "energy"},
        "evaluate": {"act": "start", "base": TINY, "dataset": "ann/task", "path": "train.jsonl", "metrics": "choice"},
        "convert": {
            **{"act": "start", "namespace": "ann", "result": "new", "enable_lora": "true, false", "alpha": "8"},
            **{"source.repo": "ann/old", "source.folder": "weights", "source.file": "lora.bin.pickle"},
        },
    }
    foreign_weights(services, ann, "ann/old")
    job = started(signed_in, services, kind, forms[kind])
    page = signed_in.get(f"/new/{kind}", params={"again": str(job.id)}).text
    again = {"act": "start", **form_of(page)}
    assert again["key"] != "k"
    same = started(signed_in, services, kind, again)
    assert same.id != job.id
    first, second = (
        {k: v for k, v in each.params.items() if k not in ("examples", "held_out")} for each in (job, same)
    )
    assert first == second
    wrong = "train" if kind != "train" else "par"
    moved = signed_in.get(f"/new/{wrong}", params={"again": str(job.id)}, follow_redirects=False)
    assert moved.headers["Location"] == f"/new/{kind}?again={job.id}"


def test_again_keeps_the_revision_of_a_data_set(
    signed_in: TestClient, services: Services, ann: Person, library: None
) -> None:
    commit = dataset(services, ann, "ann/task")
    typed = {"act": "start", "base": TINY, "dataset": f"ann/task@{commit.id}", "path": "", "metrics": "choice"}
    job = started(signed_in, services, "evaluate", typed)
    dataset(services, ann, "ann/task", {"train.jsonl": examples_file(9)})
    again = form_of(signed_in.get("/new/evaluate", params={"again": str(job.id)}).text)
    assert again["dataset"][0] == f"ann/task@{commit.id}"
    same = started(signed_in, services, "evaluate", {"act": "start", **again})
    assert same.params["datasets"] == job.params["datasets"]


def test_nul_characters_are_left_out(signed_in: TestClient, services: Services, ann: Person, library: None) -> None:
    dataset(services, ann, "ann/task")
    assert 'value="ann/a"' in signed_in.get("/new/train", params={"from": "ann/a\0"}).text
    typed = {"act": "start", "base": TINY, "dataset": "ann/task\0", "path": "", "metrics": "choice"}
    assert started(signed_in, services, "evaluate", typed).params["datasets"][0]["repo"] == "ann/task"


def test_again_is_for_those_who_may_see_the_job(
    signed_in: TestClient, services: Services, bob: Person, library: None
) -> None:
    job = started(signed_in, services, "compose", COMPOSE)
    assert sign_in(signed_in, bob).get("/new/compose", params={"again": str(job.id)}, headers=HTML).status_code == 404


def test_a_job_without_a_stored_request_leads_to_an_empty_form(
    signed_in: TestClient, services: Services, library: None
) -> None:
    job = started(signed_in, services, "compose", COMPOSE)
    with transaction(services.sessions) as session:
        session.get_one(Job, job.id).request = None
    assert "is not known" in signed_in.get("/new/compose", params={"again": str(job.id)}).text


def form_of(page: str) -> dict[str, Any]:
    """What a browser would send of the page's own form, as it came."""
    form = page[page.index('id="launch"') : page.index('<datalist id="datasets"')]
    sent: dict[str, list[str]] = {}
    for tag in re.findall(r"<input [^>]*>", form):
        given = {key: html.unescape(value) for key, value in re.findall(r'([\w-]+)="([^"]*)"', tag)}
        ticks = given.get("type") in ("checkbox", "radio")
        if "name" in given and (not ticks or " checked" in tag):
            sent.setdefault(given["name"], []).append(given.get("value", ""))
    for name, options in re.findall(r'<select [^>]*name="([^"]*)"[^>]*>(.*?)</select>', form, re.DOTALL):
        found = re.findall(r"<option(?: value=\"([^\"]*)\")?( selected)?>([^<]*)", options)
        value, _, label = next((each for each in found if each[1]), found[0])
        sent.setdefault(name, []).append(html.unescape(value if f'value="{value}"' in options else label))
    for name, text in re.findall(r'<textarea [^>]*name="([^"]*)"[^>]*>\n?(.*?)</textarea>', form, re.DOTALL):
        sent.setdefault(name, []).append(html.unescape(text))
    return sent
