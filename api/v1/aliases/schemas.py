"""Requests and responses of the routes in api/v1/aliases; /v1/openapi.json is made from them."""

from datetime import datetime

from pydantic import BaseModel, Field

from hub.vocabulary import AliasAction, Metric, Template


class MoveAlias(BaseModel):
    revision: str = Field(description="branch, tag, version (v2), alias or commit that it shall stand for")


class NewGate(BaseModel):
    metric: Metric = "exact_match"
    dataset: str = Field(description="namespace/name")
    revision: str = Field("main", description="of the data set; its commit is kept")
    path: str = Field(description="the file of examples")
    template: Template = "chat"
    tolerance: float = Field(
        0.02,
        ge=0,
        allow_inf_nan=False,
        description="the whole 95% interval of the difference must lie above minus this",
    )


class Gate(BaseModel):
    metric: str
    dataset_commit: str = Field(description="empty if you may not see the data set")
    dataset_path: str
    template: str
    tolerance: float


class AliasMove(BaseModel):
    action: AliasAction
    commit: str | None
    by: str
    at: datetime
    compared: dict[str, object] | None = Field(validation_alias="gate_result", description="what the gate saw")


class Alias(BaseModel):
    name: str
    commit: str
    version: str | None
    gate: Gate | None
    gate_dataset: str | None = Field(description='"private data set" where you may not see it')
    moves: list[AliasMove] = Field(description="newest first")
