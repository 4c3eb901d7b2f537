"""Requests and responses of the routes in api/v1/account; /v1/openapi.json is made from them."""

import uuid
from datetime import datetime

from pydantic import BaseModel, Field

from hub.vocabulary import SCOPES, Scope


class Me(BaseModel):
    name: str
    is_admin: bool
    namespaces: list[str]


class SignIn(BaseModel):
    """Either a name and a password, or an unrestricted token."""

    name: str = Field("", max_length=96)
    password: str = Field("", max_length=1_000)
    token: str = Field("", max_length=200)


class SessionInfo(BaseModel):
    id: uuid.UUID
    agent: str = Field(description="the browser as it names itself")
    created_at: datetime
    expires_at: datetime


class NewPassword(BaseModel):
    current: str = Field("", max_length=1_000, description="left out where there is none yet")
    new: str = Field(max_length=1_000)


class NewUser(BaseModel):
    name: str
    is_admin: bool = False
    password: str | None = Field(None, max_length=1_000)


class NewToken(BaseModel):
    name: str = Field(min_length=1, max_length=96)
    scopes: list[Scope] = Field(list(SCOPES), description="read is always among them")
    repos: list[str] | None = Field(
        None, max_length=100, description="beyond public ones, only these: namespace/name, or namespace/*"
    )
    expires_at: datetime | None = None


class TokenInfo(BaseModel):
    id: uuid.UUID
    name: str
    scopes: list[str]
    repos: list[str] | None
    created_at: datetime
    expires_at: datetime | None


class TokenSecret(TokenInfo):
    secret: str = Field(description="shown this once; only its hash is kept")
