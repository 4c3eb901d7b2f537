"""Webhooks: when a job of a namespace ends, the hub sends an event to the namespace's receiver.

The namespace's administrators choose its address among the hosts that the operator allows. An event is written in the transaction that
ends the job. The sweep sends it afterwards, at least once, and gives up after a day.
"""

import asyncio
import hashlib
import hmac
import json
import logging
import secrets
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import httpx2 as httpx
from sqlalchemy import and_, delete, func, null, select, update
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.orm import Session

from hub.registry.access.permissions import Administer, authorize_in
from hub.registry.access.viewer import Viewer
from hub.registry.models.content import Commit, Repo
from hub.registry.models.jobs import Job, Webhook, WebhookEvent
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import InvalidInput, NotFound
from hub.registry.platform.services import Services

log = logging.getLogger(__name__)

SECRET_PREFIX = "whsec_"  # noqa: S105 - tells it apart in secret scanners and logs
SECONDS = 10  # for one receiver to answer in
ROUND_SECONDS = 10  # after which a round begins nothing new
AT_ONCE = 20
FIRST_PAUSE, LONGEST_PAUSE = 10, 7_200
GIVE_UP = timedelta(days=1)
KEEP = timedelta(days=7)


class BadWebhook(InvalidInput):
    code = "bad_webhook"


class WebhookNotFound(NotFound):
    code = "webhook_not_found"


@dataclass(frozen=True)
class Sending:
    """An event about to be sent, with everything that sending needs, so that no transaction is open meanwhile."""

    id: uuid.UUID
    namespace: str
    url: str
    secret: str
    body: bytes


# --- the namespace's administrators -----------------------------------------------------------------------------------


def set_address(session: Session, admin: Administer, address: str, hosts: str) -> Webhook:
    """Set the address, with a new secret that is shown once. Raises BadWebhook."""
    url = _checked(address)
    if not _allowed(url, hosts):
        raise BadWebhook(
            f"{_origin_of(url)} is not among the hosts that this hub may send to; ask its operator to add it to WEBHOOK_HOSTS."
        )
    secret = SECRET_PREFIX + secrets.token_urlsafe(32)
    values = {"url": str(url), "secret": secret, "created_at": func.now()}
    upsert = insert(Webhook).values(namespace=admin.namespace, **values)
    session.execute(upsert.on_conflict_do_update(index_elements=["namespace"], set_=values))
    admin.record(session, "webhook.set", _origin_of(url))
    return session.get_one(Webhook, admin.namespace, populate_existing=True)


def get(session: Session, viewer: Viewer, namespace: str) -> tuple[Webhook, Sequence[WebhookEvent]]:
    """The webhook and its newest events."""
    authorize_in(session, viewer, Administer, namespace)
    hook = _find(session, namespace)
    newest = select(WebhookEvent).where(WebhookEvent.namespace == namespace).order_by(WebhookEvent.id.desc()).limit(20)
    return hook, session.scalars(newest).all()


def remove(session: Session, admin: Administer) -> None:
    """Remove the webhook and its unsent events."""
    session.delete(_find(session, admin.namespace))
    admin.record(session, "webhook.removed", admin.namespace)


def _find(session: Session, namespace: str) -> Webhook:
    hook = session.get(Webhook, namespace)
    if hook is None:
        raise WebhookNotFound(f"The namespace {namespace!r} has no webhook.")
    return hook


def _checked(address: str) -> httpx.URL:
    # The same parser reads the address here and when it is sent to, so that both see the same host.
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise BadWebhook(f"{address!r} is not a valid address: {error}") from None
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.fragment:
        raise BadWebhook(
            f"{address!r} is not a plain https address; write one without user name, password and #fragment."
        )
    return url


def _allowed(url: httpx.URL, hosts: str) -> bool:
    """Whether the operator allows this very scheme, host and port. Entries without a scheme mean https."""
    for entry in hosts.split():
        try:
            if _origin_of(url) == _origin_of(httpx.URL(entry if "://" in entry else f"https://{entry}")):
                return True
        except httpx.InvalidURL:
            log.error("WEBHOOK_HOSTS has an entry that is not a host", extra={"entry": entry})
    return False


def _origin_of(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode()}"


# --- in the transaction that ends jobs --------------------------------------------------------------------------------


def jobs_ended(session: Session, *job_ids: uuid.UUID) -> None:
    """Write an event for each job whose namespace has a webhook."""
    # Locked, so that a webhook removed at this moment is skipped and does not roll back the end of the job.
    ended = (
        select(Job.id, Job.namespace)
        .join(Webhook, Webhook.namespace == Job.namespace)
        .where(Job.id.in_(job_ids))
        .with_for_update(read=True, key_share=True, of=Webhook)
    )
    session.execute(insert(WebhookEvent).from_select(["job_id", "namespace"], ended).on_conflict_do_nothing())


# --- in the sweep -----------------------------------------------------------------------------------------------------


def send_due(services: Services) -> int:
    """Send the events that are due, the oldest of each namespace first. Returns how many were accepted.

    A namespace whose receiver fails gets its next turn in the next round, so that others need not wait for it.
    """
    with transaction(services.sessions) as session:
        session.execute(delete(WebhookEvent).where(WebhookEvent.created_at < func.now() - KEEP))
    accepted, failed, began = 0, set[str](), time.monotonic()
    while time.monotonic() < began + ROUND_SECONDS:
        with transaction(services.sessions) as session:
            due = _take(session, failed)
        if not due:
            break
        answers = asyncio.run(_send_all(due, services.settings.webhook_hosts))
        with transaction(services.sessions) as session:
            for event, answer in zip(due, answers, strict=True):
                _keep(session, event, answer)
                if not answer.isdigit():
                    failed.add(event.namespace)
        accepted += sum(answer.isdigit() for answer in answers)
    return accepted


def _take(session: Session, passed_over: set[str]) -> list[Sending]:
    """The oldest due event of each namespace. Each is postponed before it is sent: if this process dies, it is sent again later."""
    oldest = (
        select(WebhookEvent.id)
        .where(WebhookEvent.next_at <= func.now(), WebhookEvent.namespace.not_in(passed_over))
        .ext(distinct_on(WebhookEvent.namespace))
        .order_by(WebhookEvent.namespace, WebhookEvent.next_at, WebhookEvent.id)
        .limit(AT_ONCE)
    )
    pause = func.least(FIRST_PAUSE * func.power(3, WebhookEvent.attempts), LONGEST_PAUSE)
    due = session.scalars(
        update(WebhookEvent)
        .where(WebhookEvent.id.in_(oldest))
        .values(attempts=WebhookEvent.attempts + 1, next_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, pause))
        .returning(WebhookEvent.id)
    ).all()
    # The result is named only while it is in this namespace and not deleted.
    own = and_(Repo.id == Commit.repo_id, Repo.namespace == Job.namespace, Repo.deleted_at.is_(None))
    rows = session.execute(
        select(WebhookEvent, Webhook, Job, Commit, Repo)
        .join(Webhook, Webhook.namespace == WebhookEvent.namespace)
        .join(Job, Job.id == WebhookEvent.job_id)
        .outerjoin(Commit, Commit.job_id == Job.id)
        .outerjoin(Repo, own)
        .where(WebhookEvent.id.in_(due))
    )
    return [
        Sending(event.id, event.namespace, hook.url, hook.secret, _body(event, job, commit, repo))
        for event, hook, job, commit, repo in rows
    ]


def _body(event: WebhookEvent, job: Job, commit: Commit | None, repo: Repo | None) -> bytes:
    """The outcome of the job. Parameters, prompts and messages are left out: only people who may see the job read them, here."""
    event_body = {
        "event": str(event.id),
        "type": "job.ended",
        "namespace": job.namespace,
        "job": str(job.id),
        "kind": job.kind,
        "state": job.state,
        "error": job.error_code,
        "result_repo": repo.full_name if repo else None,
        "result_commit": commit.id if commit and repo else None,
        "finished_at": job.finished_at.isoformat() if job.finished_at else None,
    }
    return json.dumps(event_body).encode()


async def _send_all(due: Sequence[Sending], hosts: str) -> Sequence[str]:
    # A .netrc or a proxy of the machine is not meant for addresses that users choose: hence no trust_env.
    headers = {"User-Agent": "loraloom"}
    async with httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=None, headers=headers) as client:
        return await asyncio.gather(*(_send(client, event, hosts) for event in due))


async def _send(client: httpx.AsyncClient, event: Sending, hosts: str) -> str:
    """The status if the receiver accepts, else a sentence on what went wrong. The answer's body is not read."""
    if not _allowed(httpx.URL(event.url), hosts):
        return "not sent: the host is no longer among those that this hub may send to"
    headers = {
        "Content-Type": "application/json",
        "Loraloom-Event": str(event.id),
        "Loraloom-Signature": sign(event.secret, int(time.time()), event.body),
    }
    try:
        async with (
            asyncio.timeout(SECONDS),
            client.stream("POST", event.url, content=event.body, headers=headers) as answer,
        ):
            if answer.is_success:
                return str(answer.status_code)
            redirect = ", and redirects are not followed" if answer.is_redirect else ""
            return f"the receiver answers {answer.status_code}{redirect}"
    except TimeoutError:
        return f"no answer within {SECONDS} seconds"
    except httpx.HTTPError as error:
        return f"not delivered: {type(error).__name__}"


def sign(secret: str, at: int, body: bytes) -> str:
    """The header that proves sender and time to the receiver: HMAC-SHA256 over the time, a dot and the body."""
    return f"t={at},v1={hmac.new(secret.encode(), f'{at}.'.encode() + body, hashlib.sha256).hexdigest()}"


def _keep(session: Session, event: Sending, answer: str) -> None:
    """Record the receiver's answer. An event that is a day old and was not accepted is given up."""
    this = update(WebhookEvent).where(WebhookEvent.id == event.id)
    if answer.isdigit():
        session.execute(this.values(answer=answer, delivered_at=func.now(), next_at=null()))
        return
    session.execute(this.values(answer=answer))
    session.execute(this.where(WebhookEvent.created_at < func.now() - GIVE_UP).values(next_at=null()))
    log.warning("webhook not delivered", extra={"event_id": str(event.id), "namespace": event.namespace, "why": answer})
