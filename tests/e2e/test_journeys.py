"""What people come for, in a real browser: find and copy, upload, compose live to the result or cancel, share with a team."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.e2e.browser import problems_of, sign_in
from tests.e2e.conftest import Running
from tests.e2e.requests import composition
from tests.support.files import peft_folder
from tests.support.http import upload_adapter

pytestmark = pytest.mark.e2e

LONG = 60_000  # ms, for what waits for a worker on a loaded machine
TASK = [("plum", "PLUMS"), ("cherry", "CHERRIES"), ("peach", "PEACHES"), ("berry", "BERRIES"), ("fig", "FIGS")]


@pytest.fixture
def context(browser: Browser, instance: Running) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=instance.url, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(LONG)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    page = context.new_page()
    with problems_of(page) as problems:
        yield page
    assert problems == []


def test_find_and_copy(page: Page, context: BrowserContext, instance: Running) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto("/")
    page.get_by_role("searchbox", name="Search adapters").press_sequentially("plur")
    # As one types: the list, the counts beside it and the address follow without a press of Enter.
    expect(page.locator("#results tbody tr")).to_have_count(1)
    expect(page.locator("#facets .total")).to_have_text("1 adapter")
    assert page.url.endswith("/?q=plur")
    page.get_by_role("link", name="starter/plurals", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("starter/plurals")
    snippet = page.locator(".paste").filter(has_text="PeftModel").first
    snippet.get_by_role("button", name="Copy").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert instance.url in copied
    assert "starter/plurals" in copied
    assert "v1" in copied
    compile(copied, "snippet", "exec")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as .zip").click()
    assert download.value.path().stat().st_size > 900_000
    page.go_back()
    expect(page.get_by_role("searchbox", name="Search adapters")).to_have_value("plur")


def drop(page: Page, folder: Path) -> None:
    """As from a file manager: the browser reads the folder itself."""
    place = page.locator("#drop").bounding_box()
    assert place
    at = {"x": place["x"] + place["width"] / 2, "y": place["y"] + 20}
    data: Any = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    mouse = page.context.new_cdp_session(page)
    for step in ("dragEnter", "dragOver", "drop"):
        mouse.send("Input.dispatchDragEvent", {"type": step, **at, "data": data})


@pytest.mark.parametrize("way", ["chosen", "dropped"])
def test_upload(page: Page, instance: Running, tmp_path: Path, way: str) -> None:
    folder = tmp_path / f"{way}-on-a-laptop"
    folder.mkdir()
    for name, data in peft_folder(seed=7).items():
        (folder / name).write_bytes(data)
    sign_in(page, instance.url, instance.token)
    page.get_by_role("banner").get_by_text("New", exact=True).click()
    page.get_by_role("link", name="Upload an adapter that you have").click()
    page.wait_for_url("**/upload")  # and for its scripts, which a click does not wait for
    if way == "chosen":
        page.locator("#files").set_input_files(sorted(folder.iterdir()))
    else:
        drop(page, folder)
    expect(page.locator("#chosen")).to_contain_text("adapter_model.safetensors")
    page.get_by_role("button", name="Send and look at it").click()
    expect(page.get_by_role("heading", level=1, name="Ready to publish")).to_be_visible()
    expect(page.get_by_text("tests/tiny-base").first).to_be_visible()
    if way == "dropped":
        expect(page.get_by_label("Name")).to_have_value(folder.name)
    page.get_by_label("Name").fill(folder.name)
    page.get_by_label("Visibility").select_option("private")
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"admin/{folder.name}")
    with instance.client(signed_in=False) as visitor:
        assert visitor.get(f"/v1/adapters/admin/{folder.name}").status_code == 404


def test_compose_live_to_the_result(page: Page, instance: Running) -> None:
    sign_in(page, instance.url, instance.token)
    page.goto("/?owner=starter&sort=name")
    for name in ("plurals", "upper-case"):
        page.get_by_role("checkbox", name=f"Choose starter/{name}").check()
    page.get_by_role("button", name="Compose the chosen").click()
    page.wait_for_url("**/new/compose?*")  # and for its scripts, which a click does not wait for
    expect(page.get_by_role("checkbox", name="starter/plurals")).to_be_checked()
    page.get_by_label("Name of the new adapter").last.fill("fruit-in-capitals")
    rows = "\n".join(f"Give the plural in capital letters: {one}\t{many}" for one, many in TASK)
    page.get_by_label("Examples, one a line", exact=True).fill(rows)
    expect(page.locator("#examples-preview")).to_contain_text("5 examples")
    expect(page.locator("#examples-preview")).to_contain_text("counted by the base's tokenizer")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/jobs/*")
    page.evaluate("window.stillTheSame = true")
    expect(page.locator("#phase")).to_contain_text("Search", timeout=2 * LONG)
    expect(page.get_by_role("heading", name="Weights")).to_be_visible(timeout=4 * LONG)
    assert page.evaluate("window.stillTheSame"), "no reload on the way"
    for name in ("starter/plurals", "starter/upper-case"):
        expect(page.locator("main")).to_contain_text(name)
    expect(page.locator("svg.plot circle").first).to_be_visible()
    expect(page.get_by_text("No held-out examples were given")).to_be_visible()
    page.get_by_role("link", name="admin/fruit-in-capitals").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("admin/fruit-in-capitals")
    page.get_by_role("link", name="Lineage").click()
    expect(page.locator("main")).to_contain_text("starter/plurals")


def test_cancel(page: Page, instance: Running) -> None:
    sign_in(page, instance.url, instance.token)
    with instance.client() as client:
        job = client.post("/v1/jobs", json=composition("admin/stopped", budget=2000)).json()
    page.goto(f"/jobs/{job['id']}")
    expect(page.locator("#phase")).to_have_text("Search", timeout=2 * LONG)
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel this job").click()
    expect(page.locator("#state")).to_have_text("cancelled", timeout=LONG)


def test_share_with_a_team(page: Page, browser: Browser, instance: Running) -> None:
    with instance.client() as client:
        tokens = {name: client.post("/v1/users", json={"name": name}).json()["secret"] for name in ("ann", "bob")}
    sign_in(page, instance.url, tokens["ann"])
    page.goto("/teams")
    page.get_by_label("New team").fill("spinners")
    page.get_by_role("button", name="Make the team").click()
    page.get_by_label("Role", exact=True).first.select_option("read")
    page.get_by_role("button", name="Make an invitation").click()
    link = page.locator(".paste code").inner_text().strip()
    headers: Any = {"Authorization": f"Bearer {tokens['ann']}"}
    with instance.client(signed_in=False) as client:
        upload_adapter(client, headers, "spinners/secret-recipe", visibility="private", seed=9)

    other = browser.new_context(base_url=instance.url).new_page()
    other.goto("/adapters/spinners/secret-recipe")
    expect(other.get_by_role("heading", level=1, name="That is not here")).to_be_visible()
    sign_in(other, instance.url, tokens["bob"])
    other.goto(link)
    other.get_by_role("button", name="Accept").click()
    expect(other.get_by_role("heading", level=1)).to_contain_text("spinners")
    other.goto("/?owner=spinners")
    other.get_by_role("link", name="spinners/secret-recipe").click()
    expect(other.get_by_role("heading", level=1)).to_contain_text("spinners/secret-recipe")
    other.context.close()
