"""Requests and responses of the routes in api/v1/health; /v1/openapi.json is made from them."""

from pydantic import BaseModel


class State(BaseModel):
    status: str


class Health(State):
    version: str
