"""Requests and answers of /v1, about health. The OpenAPI description at /v1/openapi.json is made from them."""

from pydantic import BaseModel


class State(BaseModel):
    status: str


class Health(State):
    version: str
