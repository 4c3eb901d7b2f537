"""A job's page in a real browser, with no worker: the test itself writes the events, so each moment is seen as it is meant.

The line is cut while the job goes on, and everything that happened meanwhile is on the page afterwards, once.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, Route, expect

from api.app import create_app
from hub.registry.jobs import leases
from hub.registry.jobs.leases import Lease
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.e2e.browser import sign_in
from tests.e2e.conftest import free_port, wait_for
from tests.support.jobs import queue_job
from tests.support.published import WORKER

pytestmark = pytest.mark.e2e


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    page.close()
    assert problems == []


@contextmanager
def serving(services: Services, port: int) -> Iterator[None]:
    """At the end every connection is cut, as by a process that dies."""
    app = create_app(services)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=0))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < deadline
            assert thread.is_alive()
            time.sleep(0.02)
        yield
    finally:
        server.should_exit = True
        thread.join(20)
        # A thread in the middle of a query gives its connection back after the server has ended.
        pool = services.sessions.kw["bind"].pool
        wait_for(lambda: pool.checkedout() == 0, 20, "the database connections")


def begin(services: Services, person: Person) -> Lease:
    job_id = queue_job(services, person, "compose", result=f"{person.name}/woven", l1=0.05)
    with transaction(services.sessions) as session:
        lease = leases.claim(session, job_id, WORKER, 300)
    assert lease is not None
    return lease


def step(services: Services, lease: Lease, *seqs: int, phase: str = "search", of: int = 20) -> None:
    for seq in seqs:
        numbers: Mapping[str, float] = {"loss": 3.0 / seq, "best": 3.0 / seq}
        with transaction(services.sessions) as session:
            leases.record(session, lease, seq, phase, seq, of, numbers)


def log_of(page: Page) -> list[str]:
    return page.locator("#log tr td:nth-child(3)").all_text_contents()


def test_a_cut_line_loses_nothing_and_the_end_comes_by_itself(page: Page, services: Services, ann: Person) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    lease = begin(services, ann)
    with serving(services, port):
        sign_in(page, url, ann.token)
        step(services, lease, 1, 2)
        page.goto(f"{url}/jobs/{lease.job_id}")
        expect(page.locator("#step")).to_have_text("2 of 20")
        page.evaluate("window.sameDocument = true")
        step(services, lease, 3, 4)
        expect(page.locator("#step")).to_have_text("4 of 20")
        expect(page.locator("#plot canvas")).to_be_visible()
    expect(page.locator("#connection")).to_contain_text("The connection is lost")
    step(services, lease, 5, 6, 7)
    with serving(services, port):
        expect(page.locator("#step")).to_have_text("7 of 20", timeout=30_000)
        expect(page.locator("#connection")).to_be_hidden()
        assert log_of(page) == [f"{number}/20" for number in range(7, 0, -1)], "each once, the newest first"
        step(services, lease, 8, phase="report", of=8)
        expect(page.get_by_role("button", name="search")).to_have_attribute("aria-pressed", "false")
        page.get_by_role("button", name="search").click()
        expect(page.locator("#plotted")).to_have_text("Search")
        page.locator("summary", has_text="As JSON").focus()
        with transaction(services.sessions) as session:
            leases.succeed(session, lease, {"weights": {"ann/a@01234567": 0.5}, "warnings": ["Mind the gap."]})
        expect(page.get_by_role("heading", name="Weights")).to_be_visible()
        expect(page.locator("#state")).to_have_text("succeeded")
        expect(page.get_by_role("status")).to_have_text("The job has succeeded.")
        assert page.evaluate("window.sameDocument"), "it was not loaded anew"
        assert page.evaluate("document.activeElement.closest('main') !== null")
        assert "succeeded" in page.title()


def test_a_stream_that_a_proxy_refuses_is_asked_for_again(page: Page, services: Services, ann: Person) -> None:
    """After an answer that is an error the browser itself gives up."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    lease = begin(services, ann)
    refused: list[str] = []

    def once_refused(route: Route) -> None:
        if refused:
            route.continue_()
        else:
            refused.append(route.request.url)
            route.fulfill(status=502)

    with serving(services, port):
        sign_in(page, url, ann.token)
        page.route("**/stream?*", once_refused)
        page.goto(f"{url}/jobs/{lease.job_id}")
        expect(page.locator("#connection")).to_contain_text("The connection is lost")
        step(services, lease, 1)
        expect(page.locator("#step")).to_have_text("1 of 20", timeout=15_000)
        assert len(refused) == 1
