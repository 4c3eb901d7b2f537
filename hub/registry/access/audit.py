"""The audit log: who did what, written in the transaction that does it, so that there is neither an act without its record nor a record
of what did not happen."""

from datetime import datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from hub.registry.access import permissions
from hub.registry.access.viewer import Viewer
from hub.registry.models.access import AuditEvent, Membership
from hub.registry.platform.errors import Forbidden


def record(
    session: Session, actor: Viewer | None, action: str, subject: str, *, namespace: str | None = None, **details: Any
) -> None:
    """`action` is a noun and what became of it, such as token.created; `subject` names the thing. Details never hold a secret."""
    values = {"action": action, "namespace": namespace, "subject": subject, "details": details}
    session.add(AuditEvent(actor=actor.name if actor else None, **values))


def _events(session: Session, viewer: Viewer, namespace: str | None) -> Select[AuditEvent]:
    """Of a namespace that the viewer administers; of all of them, and of the instance, for administrators."""
    query = select(AuditEvent)
    if namespace is not None:
        permissions.require_admin(session, viewer, namespace)
        query = query.where(AuditEvent.namespace == namespace)
    elif not viewer.is_admin:
        permissions.require_account(viewer)
        mine = select(Membership.namespace).where(Membership.user_id == viewer.id, Membership.role == "admin")
        query = query.where(AuditEvent.namespace.in_(mine))
    elif viewer.repos is not None:
        raise Forbidden("This token is limited to some repos; the log of the instance needs one that is not.")
    return query


def page(
    session: Session, viewer: Viewer, *, namespace: str | None, since: datetime | None, after: int, limit: int
) -> list[AuditEvent]:
    """Oldest first, from the one after `after`."""
    query = _events(session, viewer, namespace).where(AuditEvent.id > after).order_by(AuditEvent.id)
    return list(session.scalars((query.where(AuditEvent.at >= since) if since else query).limit(limit)))


def latest(
    session: Session, viewer: Viewer, *, namespace: str | None, before: int | None, limit: int
) -> list[AuditEvent]:
    """Newest first, from the one before `before`."""
    query = _events(session, viewer, namespace).order_by(AuditEvent.id.desc())
    return list(session.scalars((query.where(AuditEvent.id < before) if before else query).limit(limit)))
