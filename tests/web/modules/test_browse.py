"""The list of adapters: search, filters and orders as addresses, counts of what one may see, and what an empty list says."""

import html
import re

import pytest
from starlette.testclient import TestClient

from hub.web import render
from tests.conftest import Person
from tests.support.http import upload_adapter
from tests.support.pages import sign_in


def names(page: str) -> list[str]:
    return re.findall(r'<th scope="row"><a href="/adapters/([^"?]+)"', page)


def counts(fragment: str) -> dict[str, str]:
    found = re.findall(r'class="value">([^<]+)</span><span class="count">([^<]+)<', fragment)
    return {html.unescape(value): count for value, count in found}


@pytest.fixture
def three(client: TestClient, ann: Person) -> None:
    upload_adapter(client, ann.headers, "ann/alpha", visibility="public", rank=2)
    upload_adapter(client, ann.headers, "ann/beta", visibility="public", rank=4, seed=1)
    upload_adapter(client, ann.headers, "ann/gamma", visibility="private", rank=8, seed=2)


@pytest.mark.usefixtures("three")
def test_search_filters_and_orders_are_addresses(client: TestClient, ann: Person) -> None:
    assert names(client.get("/").text) == ["ann/beta", "ann/alpha"], "newest first, and nothing that is private"
    assert names(client.get("/?sort=name").text) == ["ann/alpha", "ann/beta"]
    assert names(client.get("/?sort=size").text) == ["ann/beta", "ann/alpha"]
    assert names(client.get("/?q=alpha").text) == ["ann/alpha"]
    assert names(client.get("/?rank=4&tag=tiny&tag=test&owner=ann").text) == ["ann/beta"]
    assert names(client.get("/?visibility=private").text) == []
    sign_in(client, ann)
    assert names(client.get("/?visibility=private").text) == ["ann/gamma"]


@pytest.mark.usefixtures("three")
def test_a_filter_is_taken_back_by_its_own_link(client: TestClient) -> None:
    page = client.get("/?q=a&owner=ann&tag=tiny&sort=name").text
    chosen = re.search(r'<p class="chosen">(.*?)</p>', page, re.DOTALL)
    assert chosen
    links = [html.unescape(link) for link in re.findall(r'class="badge" href="([^"]+)"', chosen[1])]
    assert links == ["/?q=a&tag=tiny&sort=name", "/?q=a&owner=ann&sort=name"]
    # A search from here keeps the filters.
    assert '<input type="hidden" name="owner" value="ann">' in page
    assert '<input type="hidden" name="sort" value="name">' in page


@pytest.mark.usefixtures("three")
def test_facets_count_what_one_may_see_and_come_apart_or_in_the_page(client: TestClient, ann: Person) -> None:
    visitor = client.get("/facets").text
    assert counts(visitor) == {
        "CAUSAL_LM": "2",
        "ann": "2",
        "lora": "2",
        "public": "2",
        "test": "2",
        "tests/tiny-base": "2",
        "tiny": "2",
    }
    assert "<html" not in visitor
    assert "private" not in visitor
    assert counts(client.get("/?filters=true").text) == counts(visitor), "for browsers that run no scripts"
    sign_in(client, ann)
    member = counts(client.get("/facets").text)
    assert (member["private"], member["ann"]) == ("1", "3")
    toggled = client.get("/facets?owner=ann&tag=tiny").text
    assert 'href="/?tag=tiny" aria-current="true"' in toggled, "chosen: its link takes it back"
    assert 'href="/?owner=ann&amp;tag=tiny&amp;tag=test"' in toggled, "a tag adds to the others"


def test_pages_follow_one_another_and_keep_what_was_asked(client: TestClient, ann: Person) -> None:
    for number in range(31):
        upload_adapter(client, ann.headers, f"ann/m{number:02}", visibility="public", seed=number)
    first = client.get("/?owner=ann&sort=name").text
    assert len(names(first)) == 30
    (following,) = re.findall(r'href="([^"]+cursor=[^"]+)">Next page', first)
    second = client.get(html.unescape(following)).text
    assert names(second) == ["ann/m30"]
    assert 'href="/?owner=ann&amp;sort=name">First page' in second
    # Everything that the first page makes a browser fetch.
    files = [render.STATIC[name].path for name in set(re.findall(r"/static/([^?\"]+)\?v=", first))]
    assert len(files) == 4
    assert len(first.encode()) + sum(path.stat().st_size for path in files) < 100_000


def test_an_empty_list_says_what_to_do(client: TestClient, ann: Person) -> None:
    assert "None is public here" in client.get("/").text
    assert "without the filters" in client.get("/?q=none&owner=ann").text
    assert "Every word must occur" in client.get("/?q=none").text
    sign_in(client, ann)
    assert 'href="/upload"' in client.get("/").text
    assert client.get("/?cursor=broken", headers={"Accept": "text/html"}).status_code == 422
