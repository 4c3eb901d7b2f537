"""Requests and responses of the routes in api/v1/teams; /v1/openapi.json is made from them."""

import uuid
from datetime import datetime

from pydantic import BaseModel, Field

from api.v1.account.schemas import NewToken, TokenSecret
from hub.vocabulary import Role


class NewOrganization(BaseModel):
    name: str


class Organization(BaseModel):
    name: str
    role: Role


class Member(BaseModel):
    name: str
    role: Role
    is_service: bool


class SetRole(BaseModel):
    role: Role


class NewInvitation(BaseModel):
    role: Role = "read"
    days: float = Field(7.0, gt=0, le=90)


class InvitationInfo(BaseModel):
    id: uuid.UUID
    role: Role
    created_at: datetime
    expires_at: datetime


class InvitationSecret(InvitationInfo):
    secret: str = Field(description="shown this once; the first signed-in user who sends it becomes a member")


class AcceptInvitation(BaseModel):
    secret: str = Field(max_length=200)


class NewService(NewToken):
    name: str = Field(min_length=1, max_length=60, description="the account is called ORGANIZATION-NAME")
    role: Role = "write"


class ServiceSecret(TokenSecret):
    account: str


class Quota(BaseModel):
    quota_bytes: int | None = Field(None, ge=0, le=2**62, description="null: no limit")
    quota_jobs: int | None = Field(None, ge=0, le=2**30, description="queued and running; null: no limit")


class Usage(Quota):
    namespace: str
    bytes_held: int
    jobs: int


class NewWebhook(BaseModel):
    url: str = Field(max_length=2_000, description="https, at a host that the operator allows")


class WebhookInfo(BaseModel):
    url: str
    created_at: datetime


class WebhookSecret(WebhookInfo):
    secret: str = Field(description="shown this once; what is sent is signed with it")


class WebhookEvent(BaseModel):
    id: uuid.UUID
    job_id: uuid.UUID
    attempts: int
    answer: str | None = Field(description="the status of the receiver that accepted, else what went wrong last")
    delivered_at: datetime | None
    next_at: datetime | None = Field(description="null: delivered, or given up after a day")
    created_at: datetime


class WebhookState(WebhookInfo):
    events: list[WebhookEvent] = Field(description="the newest twenty of the last week")


class AuditEvent(BaseModel):
    id: int
    at: datetime
    actor: str | None
    action: str
    namespace: str | None
    subject: str
    details: dict[str, object]
