"""How much a namespace may hold and how many jobs it may have waiting or running, where an administrator has set limits."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.registry.access import permissions
from hub.registry.access.permissions import AdministerHub
from hub.registry.access.viewer import Viewer
from hub.registry.models.access import Namespace
from hub.registry.models.content import Blob, Holding
from hub.registry.models.jobs import Job
from hub.registry.platform.errors import Forbidden, NotFound


class QuotaExceeded(Forbidden):
    code = "quota_exceeded"


@dataclass(frozen=True)
class Usage:
    namespace: str
    bytes_held: int
    quota_bytes: int | None
    jobs: int  # queued and running
    quota_jobs: int | None


def usage(session: Session, viewer: Viewer, namespace: str) -> Usage:
    """For members and administrators. Raises NotFound for others."""
    permissions.require_member(session, viewer, namespace)
    row = session.get_one(Namespace, namespace)
    return Usage(namespace, _bytes_held(session, namespace), row.quota_bytes, _jobs(session, namespace), row.quota_jobs)


def set_limits(
    session: Session, hub: AdministerHub, namespace: str, quota_bytes: int | None, quota_jobs: int | None
) -> None:
    """Limit what a namespace may hold and run; None is no limit. What is held already stays, also above the limit."""
    row = session.get(Namespace, namespace)
    if row is None:
        raise NotFound(f"There is no namespace {namespace!r}.")
    row.quota_bytes, row.quota_jobs = quota_bytes, quota_jobs
    hub.record(session, "quota.set", namespace, namespace=namespace, quota_bytes=quota_bytes, quota_jobs=quota_jobs)


def require_room(session: Session, namespace: str, size: int, *, lock: bool = False) -> None:
    """Raise QuotaExceeded unless `size` more bytes may be held. With `lock`, nothing else is held there until the transaction ends."""
    query = select(Namespace.quota_bytes).where(Namespace.name == namespace)
    limit = session.scalar(query)
    if limit is None:
        return
    if lock:
        limit = session.scalar(query.with_for_update())
    held = _bytes_held(session, namespace)
    if limit is not None and held + size > limit:
        raise QuotaExceeded(
            f"The namespace {namespace!r} may hold {limit:,} bytes and holds {held:,}, so {size:,} more do not fit: "
            "delete what is no longer needed, or ask an administrator for a higher quota."
        )


def require_slot(session: Session, namespace: str) -> None:
    """Raise QuotaExceeded unless one more job may be queued. The namespace is locked, so that two requests do not both take the last."""
    query = select(Namespace.quota_jobs).where(Namespace.name == namespace)
    if session.scalar(query) is None:
        return
    limit, live = session.scalar(query.with_for_update()), _jobs(session, namespace)
    if limit is not None and live >= limit:
        raise QuotaExceeded(
            f"The namespace {namespace!r} may have {limit} jobs queued or running and has {live}: "
            "wait for one to end, cancel one, or ask an administrator for a higher quota."
        )


def _bytes_held(session: Session, namespace: str) -> int:
    """All bytes stored for the namespace and not collected yet, in a commit or not."""
    held = select(func.coalesce(func.sum(Blob.size), 0)).join(Holding, Holding.sha256 == Blob.sha256)
    return int(session.scalar(held.where(Holding.namespace == namespace)) or 0)


def _jobs(session: Session, namespace: str) -> int:
    live = select(func.count()).select_from(Job).where(Job.namespace == namespace, Job.state.in_(("queued", "running")))
    return session.scalar(live) or 0
