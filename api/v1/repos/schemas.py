"""Requests and answers of /v1, about repos. The OpenAPI description at /v1/openapi.json is made from them."""

from typing import Literal

from pydantic import BaseModel, Field

Visibility = Literal["private", "internal", "public"]


class Repo(BaseModel):
    repo: str
    visibility: Visibility


class ChangeVisibility(BaseModel):
    visibility: Visibility
    reveal: bool = Field(False, description="confirm that the names of less visible inputs may be seen")
