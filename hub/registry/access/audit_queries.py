"""Reading the audit log: administrators of a namespace see its lines, administrators of the instance see all."""

from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from hub.registry.access.permissions import Administer, ManageAccount, authorize, authorize_in
from hub.registry.access.viewer import Viewer
from hub.registry.models.access import AuditEvent, Membership


def _events(session: Session, viewer: Viewer, namespace: str | None) -> Select[AuditEvent]:
    """Without a namespace: those of all namespaces that the viewer administers, or of the whole instance."""
    query = select(AuditEvent)
    if namespace is not None:
        authorize_in(session, viewer, Administer, namespace)
        return query.where(AuditEvent.namespace == namespace)
    authorize(viewer, ManageAccount)
    if viewer.is_admin:
        return query
    mine = select(Membership.namespace).where(Membership.user_id == viewer.id, Membership.role == "admin")
    return query.where(AuditEvent.namespace.in_(mine))


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
