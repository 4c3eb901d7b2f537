"""Requests and responses of the routes in api/v1/shares; /v1/openapi.json is made from them."""

import uuid
from datetime import datetime

from pydantic import BaseModel, Field

from api.v1.adapters.schemas import FileInfo, Folder


class NewShare(BaseModel):
    revision: str = "main"
    days: float = Field(7.0, gt=0, le=365)
    reveal: bool = Field(False, description="confirm that the names of less visible inputs may be shown")


class ShareInfo(BaseModel):
    id: uuid.UUID
    commit: str
    created_at: datetime
    expires_at: datetime


class ShareSecret(ShareInfo):
    address: str = Field(description="shown this once; anybody who has it sees this version and may download it")


class Shared(BaseModel):
    """The version that a share link shows."""

    repo: str
    commit: str
    expires_at: datetime
    adapters: list[Folder]
    files: list[FileInfo]
