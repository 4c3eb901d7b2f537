"""A real Chromium for tests."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, expect

from tests.e2e.conftest import Running


@contextmanager
def problems_of(page: Page) -> Iterator[list[str]]:
    """What goes wrong in the page's scripts, and what its policy blocks."""
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield problems


def sign_in(page: Page, instance: Running, token: str = "") -> None:
    page.goto(f"{instance.url}/login")
    page.get_by_label("Token").fill(token or instance.token)
    page.get_by_role("button", name="Sign in with the token").click()
    expect(page.get_by_role("banner").get_by_text("New", exact=True)).to_be_visible()
