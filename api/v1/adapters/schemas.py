"""Requests and responses of the routes in api/v1/adapters; /v1/openapi.json is made from them."""

from datetime import datetime

from pydantic import BaseModel, Field

from hub.vocabulary import RefKind, Severity, Visibility


class FileInfo(BaseModel):
    path: str
    size: int
    sha256: str


class Finding(BaseModel):
    code: str
    severity: Severity
    path: str
    message: str
    remedy: str


class OwnScore(BaseModel):
    """What the job that made an adapter measured on the data held out for that: a share, with its 95% interval."""

    metric: str
    value: float
    low: float
    high: float
    examples: int


class AdapterSummary(BaseModel):
    repo: str
    visibility: Visibility
    commit: str
    folder: str
    base_model: str | None
    base_id: str | None = Field(description="the registered base that this name means here, if any")
    method: str
    task: str | None
    rank: int
    parameters: int
    size_bytes: int = Field(description="of the weights file")
    licence: str | None
    tags: list[str]
    score: OwnScore | None
    findings: int = Field(description="warnings; notes are not counted")
    published_at: datetime


class AdapterPage(BaseModel):
    items: list[AdapterSummary]
    cursor: str | None = Field(description="pass as ?cursor= for the next page; null on the last")


class Count(BaseModel):
    count: int
    more: bool = Field(description="there are more; count is then 1,000")


class FacetValue(Count):
    value: str


class Facets(BaseModel):
    total: Count
    base: list[FacetValue] = Field(description="the registered base, or the name said where there is none")
    method: list[FacetValue]
    task: list[FacetValue]
    tag: list[FacetValue]
    owner: list[FacetValue]
    visibility: list[FacetValue]


class Folder(BaseModel):
    """One adapter of a repo: several may lie in folders of their own."""

    folder: str
    base_model: str | None
    base_id: str | None
    method: str
    rank: int
    tags: list[str]
    facts: dict[str, object]
    findings: list[Finding]


class RefInfo(BaseModel):
    name: str
    kind: RefKind
    commit: str
    moved_at: datetime


class Ancestor(BaseModel):
    repo: str = Field(description='"private module" where you may not see it')
    commit: str | None
    role: str
    weight: float | None


class ScoreInfo(BaseModel):
    repo: str | None = Field(description="null: the base alone")
    commit: str | None
    base_id: str
    dataset: str
    dataset_commit: str
    dataset_path: str
    template: str
    metric: str
    value: float
    low: float
    high: float
    examples: int
    measured_at: datetime


class Adapter(BaseModel):
    repo: str
    visibility: Visibility
    commit: str
    message: str
    created_at: datetime
    adapters: list[Folder]
    files: list[FileInfo]
    refs: list[RefInfo]
    parents: list[Ancestor]
    lost_inputs: int = Field(description="of its parents, those that are deleted: above none, it cannot be made again")
    children: list[Ancestor]
    scores: list[ScoreInfo]


class Published(BaseModel):
    repo: str
    commit: str
    version: str | None = Field(description="the version that this commit is, e.g. v2")
    adapters: list[Folder]
    findings: list[Finding]


class Repair(BaseModel):
    folder: str = Field("", description="of the adapter, where it is not the top one")
    base: str | None = Field(
        None, description="any name of a registered base; left out: the one that the config's name means"
    )
    licence: str | None = Field(None, description="an identifier such as apache-2.0")


class Repaired(BaseModel):
    commit: str
    version: str | None
    files: list[str]
    done: list[str]
