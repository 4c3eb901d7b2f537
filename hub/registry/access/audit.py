"""Lines of the audit log, written in the transaction that does what they say. Reading them is in audit_queries."""

from typing import Any

from sqlalchemy.orm import Session

from hub.registry.models.access import AuditEvent


def record(
    session: Session, actor: str | None, action: str, subject: str, *, namespace: str | None = None, **details: Any
) -> None:
    """Write one line. Who holds a permit uses `Permit.record`; this is for acts that need none, such as signing in.

    `actor` is None for a visitor. `action` is a noun and what became of it, such as token.created; `subject` names the thing.
    `details` never hold a secret.
    """
    session.add(AuditEvent(actor=actor, action=action, namespace=namespace, subject=subject, details=details))
