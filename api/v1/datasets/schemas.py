"""Requests and responses of the routes in api/v1/datasets; /v1/openapi.json is made from them."""

from pydantic import BaseModel

from api.v1.adapters.schemas import FileInfo
from hub.vocabulary import Visibility


class Dataset(BaseModel):
    repo: str
    visibility: Visibility
    commit: str
    files: list[FileInfo]


class DatasetPage(BaseModel):
    items: list[Dataset]
    cursor: str | None
