"""A real browser: sign in, look at a module, follow a job to its end. No error in the console, nothing blocked by the page's policy."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.e2e.conftest import Running
from tests.e2e.test_main_job import composition

pytestmark = pytest.mark.e2e

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def page() -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; install the package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        yield page
        browser.close()
        assert problems == []


def sign_in(page: Page, instance: Running) -> None:
    page.goto(f"{instance.url}/login")
    page.get_by_label("Token").fill(instance.token)
    page.get_by_role("button", name="Sign in with the token").click()
    expect(page.get_by_text("admin", exact=True)).to_be_visible()


def test_a_visitor_finds_a_module(page: Page, instance: Running) -> None:
    page.goto(instance.url)
    page.get_by_label("Text").fill("plurals")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="starter/plurals").click()
    expect(page.get_by_role("heading", level=1, name="starter/plurals public")).to_be_visible()
    expect(page.get_by_text("loraloom/SmolLM2-135M-Instruct-Q4_1").first).to_be_visible()
    expect(page.get_by_role("heading", name="Model card")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as .zip").click()
    assert download.value.path().stat().st_size > 900_000


def test_a_job_is_followed_to_its_end(page: Page, instance: Running) -> None:
    sign_in(page, instance)
    with instance.client() as client:
        job = client.post("/v1/jobs", json=composition("admin/watched", budget=20)).json()
    page.goto(f"{instance.url}/jobs/{job['id']}")
    expect(page.locator("#phase")).to_have_text("Search", timeout=60_000)
    # The page fetches itself again when the job has ended, and shows what came of it.
    expect(page.get_by_role("heading", name="Weights")).to_be_visible(timeout=120_000)
    expect(page.locator("svg.plot circle").first).to_be_visible()
    expect(page.get_by_text("No held-out examples were given")).to_be_visible()
    page.get_by_role("link", name="admin/watched").click()
    expect(page.get_by_role("heading", name="Lineage")).to_be_visible()


def test_cancelling_in_the_browser(page: Page, instance: Running) -> None:
    sign_in(page, instance)
    with instance.client() as client:
        job = client.post("/v1/jobs", json=composition("admin/stopped", budget=2000)).json()
    page.goto(f"{instance.url}/jobs/{job['id']}")
    expect(page.locator("#phase")).to_have_text("Search", timeout=60_000)
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel this job").click()
    expect(page.locator("#state")).to_have_text("cancelled", timeout=60_000)
