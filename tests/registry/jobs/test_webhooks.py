"""Webhooks, to a real receiver on loopback: each ended job is sent, signed, to allowed hosts alone; whatever dies, no event is lost."""

import hashlib
import hmac
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sqlalchemy import func, select, text, update
from starlette.testclient import TestClient

from hub import supervisor
from hub.registry.access.permissions import Administer, UseJobs, authorize, authorize_in
from hub.registry.content import history, repos
from hub.registry.jobs import leases, queueing, webhooks
from hub.registry.jobs.leases import Lease
from hub.registry.jobs.queueing import Submission
from hub.registry.models.content import Commit
from hub.registry.models.jobs import Job, WebhookEvent
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services, connect
from hub.registry.platform.settings import Settings
from tests.conftest import Person
from tests.support.published import WORKER, AnyParams, adapter

PROMPT = "what nobody else may know"


class Receiver(ThreadingHTTPServer):
    """Answers every POST with `status`, once `released`; keeps what it was sent."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.status, self.got = 200, []
        self.released = threading.Event()
        self.released.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    status: int
    got: list[tuple[str, dict[str, str], bytes]]


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), body))
        self.server.released.wait(30)
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("Location", f"{self.server.url}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def listening(port: int = 0) -> Iterator[Receiver]:
    with Receiver(port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as server:
        yield server


@pytest.fixture
def settings(settings: Settings, receiver: Receiver) -> Settings:
    return settings.model_copy(update={"webhook_hosts": f"hooks.example.org {receiver.url}"})


def register(client: TestClient, person: Person, url: str, namespace: str = "ann") -> str:
    answer = client.put(f"/v1/namespaces/{namespace}/webhook", headers=person.headers, json={"url": url})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["secret"])


def submit(services: Services, person: Person) -> uuid.UUID:
    submission = Submission("generate", "interactive", AnyParams(**{"prompt": PROMPT}), [], person.name, "private")
    with transaction(services.sessions) as session:
        job = queueing.submit(session, services.queue, person.viewer, submission, idempotency_key=None, request={})
        return job.id


def claim(services: Services, job_id: uuid.UUID) -> Lease:
    with transaction(services.sessions) as session:
        lease = leases.claim(session, job_id, WORKER, 30)
    assert lease is not None
    return lease


def ended(services: Services, person: Person) -> uuid.UUID:
    job_id = submit(services, person)
    with transaction(services.sessions) as session:
        queueing.cancel(session, authorize(person.viewer, UseJobs), job_id)
    return job_id


def events(client: TestClient, person: Person) -> list[Any]:
    answer = client.get("/v1/namespaces/ann/webhook", headers=person.headers)
    assert "whsec" not in answer.text
    return list(answer.json()["events"])


def due_now(services: Services) -> None:
    """As if the pause between two attempts was over."""
    with transaction(services.sessions) as session:
        waiting = update(WebhookEvent).where(WebhookEvent.next_at.is_not(None))
        session.execute(waiting.values(next_at=text("now() - interval '1 second'")))


def is_signed(secret: str, header: str, body: bytes) -> bool:
    """As docs/access.md tells receivers to ask."""
    t, v1 = (part.partition("=")[2] for part in header.split(","))
    expected = hmac.new(secret.encode(), t.encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(v1, expected) and abs(time.time() - int(t)) < 300


def test_an_ended_job_is_sent_once_signed_and_without_its_contents(
    client: TestClient, services: Services, receiver: Receiver, ann: Person
) -> None:
    secret = register(client, ann, f"{receiver.url}/hook?for=ann")
    lease = claim(services, submit(services, ann))
    with transaction(services.sessions) as session:
        leases.fail(session, lease, "out_of_memory", f"The worker ran out of memory at {PROMPT}.")
    assert receiver.got == [], "sent after the commit, by the sweep"
    assert webhooks.send_due(services) == 1
    assert webhooks.send_due(services) == 0
    ((path, headers, body),) = receiver.got
    assert path == "/hook?for=ann"
    assert is_signed(secret, headers["Loraloom-Signature"], body)
    assert not is_signed(secret, headers["Loraloom-Signature"], body.replace(b"failed", b"passed"))
    assert not is_signed("whsec_other", headers["Loraloom-Signature"], body)
    assert PROMPT not in body.decode()
    sent = json.loads(body)
    (event,) = events(client, ann)
    assert headers["Loraloom-Event"] == sent.pop("event") == event["id"]
    assert sent.pop("finished_at")
    assert sent == {
        "type": "job.ended", "namespace": "ann", "job": str(lease.job_id), "kind": "generate", "state": "failed",
        "error": "out_of_memory", "result_repo": None, "result_commit": None,
    }  # fmt: skip
    assert (event["answer"], event["attempts"], event["next_at"]) == ("200", 1, None)
    assert event["delivered_at"]


@pytest.mark.parametrize(
    ("ending", "state"),
    [
        ("succeeds", "succeeded"),
        ("is cancelled while it waits", "cancelled"),
        ("is cancelled while it runs", "cancelled"),
        ("lost its workers", "failed"),
        ("lost its worker after a cancel", "cancelled"),
        ("lost its worker and is over its time", "failed"),
    ],
)
def test_however_a_job_ends_there_is_one_event(
    client: TestClient, services: Services, receiver: Receiver, ann: Person, ending: str, state: str
) -> None:
    register(client, ann, receiver.url)
    job_id = submit(services, ann)
    if ending != "is cancelled while it waits":
        lease = claim(services, job_id)
    with transaction(services.sessions) as session:
        assert webhooks.send_due(services) == 0, "not before it has ended"
        change: dict[str, Any] = {}
        match ending:
            case "succeeds":
                leases.succeed(session, lease, {})
            case "is cancelled while it waits":
                queueing.cancel(session, authorize(ann.viewer, UseJobs), job_id)
            case "is cancelled while it runs":
                leases.end_cancelled(session, lease)
            case "lost its workers":
                change = {"attempt": leases.MAX_ATTEMPTS}
            case "lost its worker after a cancel":
                change = {"cancel_requested": True}
            case _:
                change = {"started_at": text("now() - interval '2 days'")}
        if change:
            session.execute(update(Job).values(lease_until=text("now() - interval '1 second'"), **change))
            leases.end_dead(session)
    for _ in range(2):
        with transaction(services.sessions) as session:
            leases.end_dead(session)
        webhooks.send_due(services)
    ((_, _, body),) = receiver.got
    assert (json.loads(body)["job"], json.loads(body)["state"]) == (str(job_id), state)


def test_nothing_is_sent_of_a_running_job_or_of_an_end_that_is_rolled_back(
    client: TestClient, services: Services, receiver: Receiver, ann: Person
) -> None:
    register(client, ann, receiver.url)
    lease = claim(services, submit(services, ann))
    with transaction(services.sessions) as session:
        leases.record(session, lease, 1, "search", 1, 2, {})
        assert leases.renew(session, lease, 30)
    with services.sessions() as session:
        leases.succeed(session, lease, {})
        session.rollback()
    with transaction(services.sessions) as session:  # a dead worker's job goes back to the queue
        session.execute(update(Job).values(lease_until=text("now() - interval '1 second'")))
        assert leases.end_dead(session) == 1
    assert webhooks.send_due(services) == 0
    assert events(client, ann) == []


def test_the_result_is_named_while_it_is_the_namespace_s_own(
    client: TestClient, services: Services, receiver: Receiver, ann: Person
) -> None:
    register(client, ann, receiver.url)
    results: dict[str, tuple[str | None, str | None]] = {}
    for name in ("kept", "deleted"):
        lease = claim(services, submit(services, ann))
        commit = adapter(services, ann, f"ann/{name}", visibility="private", seed=len(results))
        with transaction(services.sessions) as session:
            leases.succeed(session, lease, {})
            files = entries_of(services, commit.id)
            repo = repos.find(session, ann.viewer, "model", f"ann/{name}")
            made = history.publish(session, repo, files, author_id=ann.viewer.id, message="made", job_id=lease.job_id)
        results[str(lease.job_id)] = (f"ann/{name}", made.id) if name == "kept" else (None, None)
    with transaction(services.sessions) as session:
        repos.delete(session, repos.writable(session, ann.viewer, "model", "ann/deleted"))
    assert webhooks.send_due(services) == 2
    received = [json.loads(body) for _, _, body in receiver.got]
    assert {each["job"]: (each["result_repo"], each["result_commit"]) for each in received} == results


def entries_of(services: Services, commit_id: str) -> Any:
    with transaction(services.sessions) as session:
        return repos.files(session, session.get_one(Commit, commit_id))


def test_only_the_job_s_namespace_receives_its_event(
    client: TestClient, services: Services, receiver: Receiver, ann: Person, bob: Person
) -> None:
    register(client, ann, f"{receiver.url}/ann")
    ended(services, bob)
    register(client, bob, f"{receiver.url}/bob", "bob")
    ended(services, bob)
    ended(services, ann)
    assert webhooks.send_due(services) == 2
    assert sorted(path for path, _, _ in receiver.got) == ["/ann", "/bob"]


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.org/x",  # allowed by https alone
        "https://hooks.example.org:8443/x",
        "https://hooks.example.org.evil.example/x",
        "https://user@hooks.example.org/x",
        "https://hooks.example.org\\@127.0.0.1/x",
        "https://hooks.example.org/x#fragment",
        "https://127.0.0.1/x",
        "http://169.254.169.254/latest/meta-data",
        "http://localhost:{port}/x",  # the receiver is allowed by another name
        "http://127.1:{port}/x",
        "ftp://hooks.example.org/x",
        "/x",
        "https://hooks.example.org\n/x",
    ],
)
def test_an_address_that_the_operator_does_not_allow_is_refused(
    client: TestClient, receiver: Receiver, ann: Person, url: str
) -> None:
    url = url.replace("{port}", str(receiver.server_port))
    refused = client.put("/v1/namespaces/ann/webhook", headers=ann.headers, json={"url": url})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "bad_webhook")
    assert client.get("/v1/namespaces/ann/webhook", headers=ann.headers).status_code == 404
    assert receiver.got == []


@pytest.mark.parametrize("url", ["https://hooks.example.org/x", "https://HOOKS.example.org:443/x"])
def test_an_allowed_address_is_taken(client: TestClient, ann: Person, url: str) -> None:
    assert register(client, ann, url).startswith("whsec_")


def test_a_host_that_is_no_longer_allowed_is_not_contacted(
    client: TestClient, services: Services, receiver: Receiver, ann: Person
) -> None:
    register(client, ann, receiver.url)
    ended(services, ann)
    changed = connect(services.settings.model_copy(update={"webhook_hosts": "hooks.example.org http://[bad"}))
    try:
        assert webhooks.send_due(changed) == 0
    finally:
        changed.close()
    assert receiver.got == []
    assert "no longer among those" in events(client, ann)[0]["answer"]
    due_now(services)
    assert webhooks.send_due(services) == 1, "the operator has allowed it again"


def test_a_redirect_is_not_followed(client: TestClient, services: Services, receiver: Receiver, ann: Person) -> None:
    register(client, ann, f"{receiver.url}/hook")
    ended(services, ann)
    receiver.status = 302
    assert webhooks.send_due(services) == 0
    assert [path for path, _, _ in receiver.got] == ["/hook"]
    assert events(client, ann)[0]["answer"] == "the receiver answers 302, and redirects are not followed"


def test_a_receiver_that_was_down_gets_each_event_once_it_is_up(
    client: TestClient, services: Services, receiver: Receiver, ann: Person
) -> None:
    register(client, ann, receiver.url)
    job_id = ended(services, ann)
    receiver.status = 503
    pauses = []
    for _ in range(3):
        due_now(services)
        assert webhooks.send_due(services) == 0
        assert webhooks.send_due(services) == 0, "not before its pause is over"
        with transaction(services.sessions) as session:
            left = select(func.extract("epoch", WebhookEvent.next_at - text("now()")))
            pauses.append(float(session.scalars(left).one()))
    assert pauses == pytest.approx([10, 30, 90], abs=5)
    receiver.status = 204
    due_now(services)
    assert webhooks.send_due(services) == 1
    due_now(services)
    assert webhooks.send_due(services) == 0
    (event,) = events(client, ann)
    assert (event["job_id"], event["attempts"], event["answer"]) == (str(job_id), 4, "204")
    assert len({headers["Loraloom-Event"] for _, headers, _ in receiver.got}) == 1
    assert len({body for _, _, body in receiver.got}) == 1


def test_a_receiver_whose_machine_is_off(
    client: TestClient, services: Services, receiver: Receiver, ann: Person
) -> None:
    register(client, ann, receiver.url)
    port = receiver.server_port
    receiver.shutdown()
    receiver.server_close()
    ended(services, ann)
    assert webhooks.send_due(services) == 0
    assert events(client, ann)[0]["answer"] == "not delivered: ConnectError"
    with listening(port) as again:
        due_now(services)
        assert webhooks.send_due(services) == 1
        assert len(again.got) == 1


def test_a_receiver_that_does_not_answer_keeps_nobody_else_waiting(
    client: TestClient,
    services: Services,
    receiver: Receiver,
    ann: Person,
    bob: Person,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhooks, "SECONDS", 0.5)
    with listening() as slow:
        slow.released.clear()
        hosts = f"{receiver.url} {slow.url}"
        both = connect(services.settings.model_copy(update={"webhook_hosts": hosts}))
        with transaction(services.sessions) as session:
            webhooks.set_address(session, authorize_in(session, ann.viewer, Administer, "ann"), slow.url, hosts)
        register(client, bob, receiver.url, "bob")
        for person in (ann, ann, ann, bob, bob, bob):
            ended(services, person)
        began = time.monotonic()
        assert webhooks.send_due(both) == 3
        assert time.monotonic() - began < 5
        both.close()
        assert (len(slow.got), len(receiver.got)) == (1, 3)
    answers = [event["answer"] for event in events(client, ann)]
    assert sorted(answers, key=str) == [None, None, "no answer within 0.5 seconds"]


def test_a_sweep_killed_while_it_sends_loses_nothing(
    client: TestClient, services: Services, receiver: Receiver, ann: Person
) -> None:
    """A real process, killed after the job's end was committed and before the receiver has answered."""
    register(client, ann, receiver.url)
    receiver.released.clear()
    ended(services, ann)
    command = [sys.executable, "-m", "hub", "sweep"]
    environment = {**os.environ, **supervisor.environment(services.settings)}
    with subprocess.Popen(command, cwd=supervisor.ROOT, env=environment, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not receiver.got:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
    receiver.released.set()
    (event,) = events(client, ann)
    assert (event["attempts"], event["delivered_at"]) == (1, None)
    due_now(services)
    assert webhooks.send_due(services) == 1
    (event,) = events(client, ann)
    assert (event["attempts"], event["answer"]) == (2, "200")
    assert len({headers["Loraloom-Event"] for _, headers, _ in receiver.got}) == 1, (
        "by which it is known to be the same"
    )


def test_an_event_is_given_up_after_a_day_and_kept_for_a_week(
    client: TestClient, services: Services, receiver: Receiver, ann: Person
) -> None:
    register(client, ann, receiver.url)
    ended(services, ann)
    receiver.status = 500
    for age, left in (("23 hours", True), ("25 hours", False)):
        with transaction(services.sessions) as session:
            session.execute(update(WebhookEvent).values(created_at=text(f"now() - interval '{age}'")))
        due_now(services)
        webhooks.send_due(services)
        (event,) = events(client, ann)
        assert (event["next_at"] is not None) is left
    assert (event["answer"], event["delivered_at"]) == ("the receiver answers 500", None)
    assert len(receiver.got) == 2
    with transaction(services.sessions) as session:
        session.execute(update(WebhookEvent).values(created_at=text("now() - interval '8 days'")))
    webhooks.send_due(services)
    assert events(client, ann) == []


def test_a_new_address_has_a_new_secret_and_what_waits_goes_there(
    client: TestClient, services: Services, receiver: Receiver, ann: Person
) -> None:
    old = register(client, ann, f"{receiver.url}/old")
    ended(services, ann)
    new = register(client, ann, f"{receiver.url}/new")
    webhooks.send_due(services)
    ((path, headers, body),) = receiver.got
    assert path == "/new"
    assert is_signed(new, headers["Loraloom-Signature"], body)
    assert not is_signed(old, headers["Loraloom-Signature"], body)
    log = client.get("/v1/audit", headers=ann.headers, params={"namespace": "ann", "limit": 1000}).text
    assert log.count("webhook.set") == 2
    assert "whsec" not in log
    assert "/new" not in log, "an address may hold a secret of the receiver's"


def test_a_webhook_removed_while_a_job_ends_does_not_undo_the_end(
    client: TestClient, services: Services, receiver: Receiver, ann: Person
) -> None:
    register(client, ann, receiver.url)
    lease = claim(services, submit(services, ann))

    def end() -> None:
        with transaction(services.sessions) as session:
            leases.succeed(session, lease, {})

    ending = threading.Thread(target=end)
    with transaction(services.sessions) as session:
        webhooks.remove(session, authorize_in(session, ann.viewer, Administer, "ann"))
        session.flush()
        ending.start()
        time.sleep(0.5)
        assert ending.is_alive(), "it waits to know whether there is a webhook"
    ending.join()
    with transaction(services.sessions) as session:
        assert session.get_one(Job, lease.job_id).state == "succeeded"
    assert webhooks.send_due(services) == 0
