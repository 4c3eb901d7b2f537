"""Requests and responses of the routes in api/v1/library; /v1/openapi.json is made from them."""

from pydantic import BaseModel, Field

from api.v1.adapters.schemas import ScoreInfo


class ModuleRef(BaseModel):
    repo: str
    folder: str
    commit: str


class SimilarModule(BaseModel):
    folder: str = Field(description="of the adapter that was asked about")
    module: ModuleRef
    cosine: float = Field(description="of the two updates, estimated from their sketches")
    standard_error: float


class NearDuplicate(BaseModel):
    first: int = Field(description="place in `modules`")
    second: int
    cosine: float
    standard_error: float


class LibraryMap(BaseModel):
    base_model: str
    modules: list[ModuleRef]
    unplaced: list[ModuleRef] = Field(description="adapters that are no low-rank update of the base as it is")
    duplicates: list[NearDuplicate]
    clusters: list[list[int]] = Field(description="places in `modules`; every adapter is in one")
    cosines: list[list[float]] = Field(description="of every two of `modules`")
    scores: list[ScoreInfo] = Field(description="what was measured on these adapters, newest first")
