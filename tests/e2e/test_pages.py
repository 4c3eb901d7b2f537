"""Every page in a real browser: no fault that axe calls serious, light and dark, nothing that moves or overflows, also at 360 px.

A picture of each is kept in shots/, which is what continuous integration shows for a run.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page

from tests.e2e.browser import problems_of, sign_in
from tests.e2e.conftest import SHOTS, Running
from tests.e2e.views import VIEWS, View

pytestmark = pytest.mark.e2e

# Collected from the first moment, as the page itself may move before anybody asks.
WATCH_SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) {
    if (!entry.hadRecentInput) window.shifts.push([entry.value, ...entry.sources.map((source) => source.node?.outerHTML?.slice(0, 120))]);
  }
}).observe({ type: "layout-shift", buffered: true });
"""


@pytest.fixture(scope="module")
def contexts(browser: Browser, instance: Running) -> Iterator[Mapping[bool, BrowserContext]]:
    """A visitor's and an administrator's."""
    made = {signed_in: browser.new_context(base_url=instance.url) for signed_in in (False, True)}
    for context in made.values():
        context.add_init_script(WATCH_SHIFTS)
    page = made[True].new_page()
    sign_in(page, instance.url, instance.token)
    page.close()
    yield made
    for context in made.values():
        context.close()


def serious(page: Page, **options: Any) -> list[str]:
    found: list[dict[str, Any]] = (
        Axe().run(page, options={"resultTypes": ["violations"], **options}).response["violations"]
    )
    return [
        f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_page(view: View, contexts: Mapping[bool, BrowserContext], filled: Mapping[str, str]) -> None:
    SHOTS.mkdir(exist_ok=True)
    page = contexts[view.signed_in].new_page()
    with problems_of(page) as problems:
        page.set_viewport_size({"width": 1280, "height": 860})
        page.goto(view.path.format_map(filled), wait_until="networkidle")
        assert page.locator("h1").count() == 1
        assert serious(page) == []
        reports = page.locator(".scroll:has(.report)")
        assert reports.evaluate_all("all => all.every((one) => one.scrollWidth <= one.clientWidth)"), (
            "a report is cut off"
        )
        shifts = page.evaluate("window.shifts")
        assert sum(shift[0] for shift in shifts) < 0.01, shifts
        page.screenshot(path=SHOTS / f"{view.name}.png", full_page=True)
        page.emulate_media(color_scheme="dark")
        assert serious(page, runOnly=["color-contrast", "link-in-text-block"]) == []  # what depends on colours
        page.screenshot(path=SHOTS / f"{view.name}-dark.png", full_page=True)
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 360, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.screenshot(path=SHOTS / f"{view.name}-phone.png", full_page=True)
    page.close()
    assert [problem for problem in problems if view.name != "error" or "404" not in problem] == []


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_page_is_whole_with_scripts_off(
    view: View, browser: Browser, contexts: Mapping[bool, BrowserContext], filled: Mapping[str, str], instance: Running
) -> None:
    """Everything that one reads is there; what cannot work without scripts does not show."""
    state = contexts[view.signed_in].storage_state()
    context = browser.new_context(base_url=instance.url, java_script_enabled=False, storage_state=state)
    page = context.new_page()
    page.goto(view.path.format_map(filled))
    assert page.locator("h1").count() == 1
    assert page.locator("main").inner_text().strip()
    assert page.locator("button.copy:visible, [data-scripted]:visible").count() == 0
    context.close()
