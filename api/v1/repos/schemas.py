"""Requests and responses of the routes in api/v1/repos; /v1/openapi.json is made from them."""

from pydantic import BaseModel, Field

from hub.vocabulary import Visibility


class Repo(BaseModel):
    repo: str
    visibility: Visibility


class ChangeVisibility(BaseModel):
    visibility: Visibility
    reveal: bool = Field(False, description="confirm that the names of less visible inputs may be seen")
