"""The map of a library and the table of scores: what is drawn, for whom, and what is called the best."""

import re
from collections.abc import Callable
from html import unescape

import pytest
from starlette.testclient import TestClient

from hub.registry.jobs import queueing
from hub.registry.jobs.queueing import Submission
from hub.registry.library import scores
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.vocabulary import Metric
from tests.conftest import Person
from tests.support.files import TINY
from tests.support.pages import HTML, sign_in
from tests.support.published import AnyParams, adapter, base, dataset


def test_the_map_shows_what_the_visitor_may_see(
    client: TestClient, services: Services, ann: Person, bob: Person
) -> None:
    base(services)
    one = adapter(services, ann, "ann/one", seed=1, visibility="public")
    adapter(services, ann, "ann/hidden", seed=1, visibility="private")
    adapter(services, bob, "bob/two", seed=1, visibility="public")
    adapter(services, bob, "bob/three", seed=2, visibility="public")
    adapter(services, bob, "bob/odd", init_lora_weights="pissa", visibility="public")
    page = client.get("/map").text
    assert f'<option value="{TINY}" selected>{TINY} (4 adapters)' in page, "that of the most adapters, if none is named"
    assert "cosine 1.00" in page
    (scatter,) = re.findall(r'<svg class="scatter"[^>]*role="group".*?</svg>', page, re.S)
    dots = dict(re.findall(r'<circle class="(group\d)"[^>]*><title>([^<]+)</title>', scatter))
    assert set(re.findall(r"<title>([^<]+)</title>", scatter)) == {"ann/one", "bob/two", "bob/three"}
    assert dots["group0"] == "bob/three", "the one outside the cluster of two"
    assert f'<a href="/adapters/ann/one?revision={one.id}">' in scatter
    (grid,) = re.findall(r'<svg class="heat cosine".*?</svg>', page, re.S)
    assert grid.count("<rect") == 9
    assert "ann/one and bob/two: cosine 1.00 ± 0.00" in grid
    assert "Not compared" in page
    assert "bob/odd" in page
    assert "ann/hidden" not in page
    sign_in(client, ann)
    assert "ann/hidden" in client.get("/map").text
    module = client.get("/adapters/ann/one/similar").text
    assert ">1.00</td>" in module
    own = client.get("/map", params={"base_model": TINY, "owner": "bob"}).text
    assert "ann/one" not in own
    assert "Every adapter stands alone" in own


def test_a_map_of_nothing_says_what_to_do(client: TestClient, services: Services, ann: Person) -> None:
    assert "No adapters yet" in client.get("/map").text
    assert "No adapters here" in client.get("/map", params={"base_model": "org/<b>none"}).text
    adapter(services, ann, "ann/alone", visibility="public")
    assert "the only one" in client.get("/map").text
    assert client.get("/map?owner=%00", headers=HTML).status_code == 422


def test_too_many_modules_ask_for_an_owner(
    client: TestClient, services: Services, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.registry.library.similar.MAX_MODULES", 1)
    for seed in range(2):
        adapter(services, ann, f"ann/m{seed}", seed=seed, visibility="public")
    answer = client.get("/map")
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert 'name="owner"' in answer.text, "and has the field for it"


Score = Callable[..., None]


@pytest.fixture
def score(services: Services, ann: Person) -> Score:
    """Keep a figure as an evaluation would."""
    submission = Submission("evaluate", "interactive", AnyParams(), [], "ann", "private")
    with transaction(services.sessions) as session:
        job_id = queueing.submit(session, services.queue, ann.viewer, submission, idempotency_key=None, request={}).id

    def score(
        commit: str | None, on: str, value: float, low: float, high: float, metric: Metric = "exact_match"
    ) -> None:
        figure = scores.Measurement(metric, value, low, high, 50, TINY, on, "train.jsonl", "plain")
        with transaction(services.sessions) as session:
            scores.keep(session, figure, commit_id=commit, job_id=job_id)

    return score


def rows(page: str) -> list[str]:
    return [re.sub(r"<[^>]+>", "", row).strip() for row in re.findall(r'<tr><th scope="row">(.*?)</th>', page, re.S)]


def test_the_best_is_marked_only_where_it_is_clear(
    client: TestClient, services: Services, ann: Person, score: Score
) -> None:
    one, two = (adapter(services, ann, f"ann/m{seed}", seed=seed, visibility="public").id for seed in range(2))
    clear, close = (dataset(services, ann, f"ann/{name}", visibility="public").id for name in ("clear", "close"))
    for on, low in ((clear, 0.6), (close, 0.4)):
        score(one, on, 0.8, low, 0.9)
        score(two, on, 0.45, 0.3, 0.5)
        score(None, on, 0.1, 0.0, 0.2)
    page = client.get("/scores").text
    (ours,) = re.findall(r'<tr><th scope="row"><a href="/adapters/ann/m0.*?</tr>', page, re.S)
    cells = re.findall(r"<td.*?</td>", ours, re.S)
    assert ["best" in cell for cell in cells] == [True, False]
    assert 'title="0.800 [0.600, 0.900] on 50 examples"' in cells[0]
    assert 'class="level7"' in cells[0]
    assert f'<a href="/datasets/ann/clear?revision={clear}">ann/clear</a>' in page
    assert f'<a href="/adapters/ann/m0?revision={one}">ann/m0</a>' in page


def test_of_losses_the_least_is_the_best(client: TestClient, services: Services, ann: Person, score: Score) -> None:
    one, two = (adapter(services, ann, f"ann/m{seed}", seed=seed, visibility="public").id for seed in range(2))
    on = dataset(services, ann, "ann/d", visibility="public").id
    score(one, on, 3.0, 2.9, 3.1, "target_loss")
    score(two, on, 1.0, 0.9, 1.1, "target_loss")
    page = client.get("/scores?metric=target_loss").text
    (row,) = re.findall(r'<tr><th scope="row"><a href="/adapters/ann/m1.*?</tr>', page, re.S)
    assert "best" in row
    assert 'class="level9"' in row
    assert "The lower, the better" in page


def test_scores_are_sorted_and_filtered(
    client: TestClient, services: Services, ann: Person, bob: Person, score: Score
) -> None:
    one = adapter(services, ann, "ann/one", seed=1, visibility="public").id
    two = adapter(services, bob, "bob/two", seed=2, visibility="public").id
    on, other = (dataset(services, ann, f"ann/{name}", visibility="public").id for name in ("d", "e"))
    score(one, on, 0.2, 0.1, 0.3)
    score(two, on, 0.9, 0.8, 1.0)
    score(one, other, 0.5, 0.4, 0.6)
    page = client.get("/scores").text
    assert rows(page) == ["ann/one", "bob/two"]
    first, second = (unescape(address) for address in re.findall(r'href="(/scores\?[^"]*sort=[^"]*)"', page))
    assert rows(client.get(first).text) == ["bob/two", "ann/one"]
    assert 'aria-sort="descending"' in client.get(first).text
    assert rows(client.get(second).text) == ["ann/one", "bob/two"], "without a figure is last"
    assert rows(client.get("/scores?owner=bob").text) == ["bob/two"]
    assert rows(client.get("/scores", params={"base_model": TINY}).text) == ["ann/one", "bob/two"]
    assert "Nothing was measured that matches" in client.get("/scores?base_model=org/none").text
    assert client.get("/scores?metric=bogus", headers=HTML).status_code == 422


def test_scores_of_what_one_may_not_see_are_not_there(
    client: TestClient, services: Services, ann: Person, score: Score
) -> None:
    hidden = adapter(services, ann, "ann/hidden", visibility="private").id
    on = dataset(services, ann, "ann/d", visibility="public").id
    score(hidden, on, 0.2, 0.1, 0.3)
    assert "Nothing was measured yet" in client.get("/scores").text
    sign_in(client, ann)
    assert rows(client.get("/scores").text) == ["ann/hidden"]
