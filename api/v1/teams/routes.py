"""/v1: organizations, their members, invitations and service accounts; quotas; the audit log."""

import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from api.v1.account.schemas import TokenInfo
from api.v1.system.schemas import DeviceSeconds
from api.v1.teams import schemas
from hub.http.identity import ServicesDep, SessionDep, SignedIn
from hub.http.permissions import (
    CanAdminister,
    CanAdministerHub,
    CanAdministerOrganization,
    CanManageAccount,
    CanRemoveMember,
)
from hub.registry.access import audit_queries, organizations, quota, users
from hub.registry.jobs import usage, webhooks
from hub.registry.models.access import AuditEvent, Invitation
from hub.registry.platform.db import transaction

router = APIRouter(prefix="/v1", tags=["teams"])

EXPORTED_AT_ONCE = 1_000


@router.get("/organizations")
def list_organizations(session: SessionDep, viewer: SignedIn) -> list[schemas.Organization]:
    """The organizations that you are a member of."""
    own = users.namespaces(session, viewer)
    return [
        schemas.Organization(name=account.name, role=role) for account, role in own if account.kind == "organization"
    ]


@router.post("/organizations", status_code=201)
def create_organization(
    session: SessionDep, account: CanManageAccount, body: schemas.NewOrganization
) -> schemas.Organization:
    """A namespace to share; you are its first member and administrator."""
    organizations.create(session, account, body.name)
    return schemas.Organization(name=body.name, role="admin")


@router.get("/organizations/{organization}/members")
def list_members(session: SessionDep, viewer: SignedIn, organization: str) -> list[schemas.Member]:
    members = organizations.members(session, viewer, organization)
    return [schemas.Member(name=user.name, role=role, is_service=user.service_of is not None) for user, role in members]


@router.put("/organizations/{organization}/members/{user}", status_code=204)
def set_role(session: SessionDep, organization: CanAdministerOrganization, user: str, body: schemas.SetRole) -> None:
    """Change a member's role (its administrators)."""
    organizations.set_role(session, organization, user, body.role)


@router.delete("/organizations/{organization}/members/{user}", status_code=204)
def remove_member(session: SessionDep, permit: CanRemoveMember) -> None:
    """Remove a member (its administrators), or leave it yourself."""
    organizations.remove_member(session, permit)


@router.get("/organizations/{organization}/invitations")
def list_invitations(session: SessionDep, viewer: SignedIn, organization: str) -> list[schemas.InvitationInfo]:
    return [_invitation(invitation) for invitation in organizations.invitations(session, viewer, organization)]


@router.post("/organizations/{organization}/invitations", status_code=201)
def invite(
    session: SessionDep, organization: CanAdministerOrganization, body: schemas.NewInvitation
) -> schemas.InvitationSecret:
    invitation, secret = organizations.invite(session, organization, body.role, body.days)
    return schemas.InvitationSecret(**_invitation(invitation).model_dump(), secret=secret)


@router.delete("/organizations/{organization}/invitations/{invitation_id}", status_code=204)
def withdraw_invitation(session: SessionDep, organization: CanAdministerOrganization, invitation_id: uuid.UUID) -> None:
    organizations.withdraw(session, organization, invitation_id)


@router.post("/invitations/accept")
def accept_invitation(
    session: SessionDep, account: CanManageAccount, body: schemas.AcceptInvitation
) -> schemas.Organization:
    """Become a member by the secret of an invitation."""
    name, role = organizations.accept(session, account, body.secret.strip())
    return schemas.Organization(name=name, role=role)


def _invitation(invitation: Invitation) -> schemas.InvitationInfo:
    return schemas.InvitationInfo.model_validate(invitation, from_attributes=True)


@router.post("/organizations/{organization}/services", status_code=201)
def create_service(
    session: SessionDep, organization: CanAdministerOrganization, body: schemas.NewService
) -> schemas.ServiceSecret:
    """Create an account for a program, with one token. It stays when a member leaves."""
    user, token, secret = organizations.create_service(
        session,
        organization,
        body.name,
        body.role,
        scopes=body.scopes,
        repos=body.repos,
        expires_at=body.expires_at,
    )
    session.refresh(token)
    info = TokenInfo.model_validate(token, from_attributes=True)
    return schemas.ServiceSecret(**info.model_dump(), account=user.name, secret=secret)


@router.delete("/organizations/{organization}/services/{service}", status_code=204)
def stop_service(session: SessionDep, organization: CanAdministerOrganization, service: str) -> None:
    """Stop a service account: its tokens become invalid, and the repos that it made stay."""
    organizations.stop_service(session, organization, service)


@router.get("/namespaces/{namespace}/quota")
def get_quota(session: SessionDep, viewer: SignedIn, namespace: str) -> schemas.Usage:
    """Bytes held, uncommitted ones included, and jobs queued and running, beside their limits (its members)."""
    return schemas.Usage.model_validate(quota.usage(session, viewer, namespace), from_attributes=True)


@router.put("/namespaces/{namespace}/quota")
def set_quota(session: SessionDep, hub: CanAdministerHub, namespace: str, body: schemas.Quota) -> schemas.Usage:
    """Set the limits of a namespace (administrators)."""
    quota.set_limits(session, hub, namespace, body.quota_bytes, body.quota_jobs)
    session.flush()
    return schemas.Usage.model_validate(quota.usage(session, hub.viewer, namespace), from_attributes=True)


@router.get("/namespaces/{namespace}/usage")
def get_usage(
    session: SessionDep, viewer: SignedIn, namespace: str, months: Annotated[int, Query(ge=1, le=120)] = 12
) -> list[DeviceSeconds]:
    """Device-seconds of its jobs by month, device and kind, this month first (its members)."""
    usage_rows = usage.of_namespace(session, viewer, namespace, months)
    return [DeviceSeconds.model_validate(row, from_attributes=True) for row in usage_rows]


@router.put("/namespaces/{namespace}/webhook")
def set_webhook(
    session: SessionDep, services: ServicesDep, admin: CanAdminister, body: schemas.NewWebhook
) -> schemas.WebhookSecret:
    """Set the address that receives an event when a job has ended, with a new secret (its administrators)."""
    hook = webhooks.set_address(session, admin, body.url, services.settings.webhook_hosts)
    return schemas.WebhookSecret.model_validate(hook, from_attributes=True)


@router.get("/namespaces/{namespace}/webhook")
def get_webhook(session: SessionDep, viewer: SignedIn, namespace: str) -> schemas.WebhookState:
    """The webhook's address, and the delivery of its newest events (its administrators)."""
    hook, events = webhooks.get(session, viewer, namespace)
    deliveries = [schemas.WebhookEvent.model_validate(event, from_attributes=True) for event in events]
    return schemas.WebhookState(url=hook.url, created_at=hook.created_at, events=deliveries)


@router.delete("/namespaces/{namespace}/webhook", status_code=204)
def remove_webhook(session: SessionDep, admin: CanAdminister) -> None:
    """Remove the webhook and its unsent events (its administrators)."""
    webhooks.remove(session, admin)


@router.get("/audit")
def list_audit_events(
    session: SessionDep,
    viewer: SignedIn,
    namespace: str | None = None,
    since: datetime | None = None,
    after: Annotated[int, Query(ge=0, description="the last id that you have")] = 0,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> list[schemas.AuditEvent]:
    """The audit log, oldest first: events of namespaces that you administer, and for administrators all events."""
    page = audit_queries.page(session, viewer, namespace=namespace, since=since, after=after, limit=limit)
    return [schemas.AuditEvent.model_validate(event, from_attributes=True) for event in page]


@router.get("/audit/export", response_class=StreamingResponse)
def export_audit_log(
    services: ServicesDep, viewer: SignedIn, namespace: str | None = None, since: datetime | None = None
) -> StreamingResponse:
    """The whole audit log as JSON Lines."""

    def read(after: int) -> list[AuditEvent]:
        with transaction(services.sessions) as session:
            return audit_queries.page(
                session, viewer, namespace=namespace, since=since, after=after, limit=EXPORTED_AT_ONCE
            )

    def lines(events: list[AuditEvent]) -> Iterator[str]:
        while events:
            for event in events:
                yield schemas.AuditEvent.model_validate(event, from_attributes=True).model_dump_json() + "\n"
            events = read(events[-1].id)  # no transaction is open while a slow client takes its time

    first = read(0)  # refused before the answer begins
    headers = {"Content-Disposition": 'attachment; filename="audit.jsonl"', "Cache-Control": "no-store"}
    return StreamingResponse(lines(first), media_type="application/jsonl", headers=headers)
