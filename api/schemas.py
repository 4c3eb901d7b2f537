"""Request and response models of /v1. docs/api.md shows them in use; the OpenAPI description at /v1/openapi.json is made from them."""

import uuid
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field, SecretStr, model_validator

from hub.registry.access.viewer import SCOPES, Scope
from hub.registry.models.columns import Role

Visibility = Literal["private", "internal", "public"]


class Me(BaseModel):
    name: str
    is_admin: bool
    namespaces: list[str]


class SignIn(BaseModel):
    """Either a name and a password, or a token that is good for everything."""

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


class NewOrganization(BaseModel):
    name: str


class Organization(BaseModel):
    name: str
    role: Role


class Member(BaseModel):
    name: str
    role: Role
    is_service: bool


class SetRole(BaseModel):
    role: Role


class NewInvitation(BaseModel):
    role: Role = "read"
    days: float = Field(7.0, gt=0, le=90)


class InvitationInfo(BaseModel):
    id: uuid.UUID
    role: Role
    created_at: datetime
    expires_at: datetime


class InvitationSecret(InvitationInfo):
    secret: str = Field(description="shown this once; whoever sends it first, signed in, becomes a member")


class AcceptInvitation(BaseModel):
    secret: str = Field(max_length=200)


class NewService(NewToken):
    name: str = Field(min_length=1, max_length=60, description="the account is called ORGANISATION-NAME")
    role: Role = "write"


class ServiceSecret(TokenSecret):
    account: str


class Quota(BaseModel):
    quota_bytes: int | None = Field(None, ge=0, le=2**62, description="null: no limit")
    quota_jobs: int | None = Field(None, ge=0, le=2**30, description="queued and running; null: no limit")


class Usage(Quota):
    namespace: str
    bytes_held: int
    jobs: int


class DeviceSeconds(BaseModel):
    namespace: str
    month: str = Field(description="in which the attempts began, by UTC")
    device: str = Field(description='"cpu", or "cuda" and the card\'s name')
    kind: str
    attempts: int
    seconds: float = Field(description="from each claim to its end or, where the worker died, to its last heartbeat")


class QueueState(BaseModel):
    name: str
    waiting: dict[str, int] = Field(description="by kind of job")
    running: dict[str, int]
    oldest_waiting: datetime | None


class WorkerState(BaseModel):
    name: str
    queues: list[str]
    device: str
    seen_at: datetime
    jobs: list[uuid.UUID]


class NamespaceBytes(BaseModel):
    namespace: str
    bytes: int


class System(BaseModel):
    queues: list[QueueState]
    workers: list[WorkerState] = Field(description="those seen within the last minute")
    blobs: int = Field(description="files stored, each counted once, however many namespaces hold it")
    bytes: int
    held: list[NamespaceBytes] = Field(description="the hundred namespaces that hold most")
    used: list[DeviceSeconds] = Field(description="this month")


class NewWebhook(BaseModel):
    url: str = Field(max_length=2_000, description="https, at a host that the operator allows")


class WebhookInfo(BaseModel):
    url: str
    created_at: datetime


class WebhookSecret(WebhookInfo):
    secret: str = Field(description="shown this once; what is sent is signed with it")


class WebhookEvent(BaseModel):
    id: uuid.UUID
    job_id: uuid.UUID
    attempts: int
    answer: str | None = Field(description="the status of the receiver that accepted, else what went wrong last")
    delivered_at: datetime | None
    next_at: datetime | None = Field(description="null: delivered, or given up after a day")
    created_at: datetime


class WebhookState(WebhookInfo):
    events: list[WebhookEvent] = Field(description="the newest twenty of the last week")


class AuditEvent(BaseModel):
    id: int
    at: datetime
    actor: str | None
    action: str
    namespace: str | None
    subject: str
    details: dict[str, Any]


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
    address: str = Field(description="shown this once; whoever has it sees this version and may download it")


class FileInfo(BaseModel):
    path: str
    size: int
    sha256: str


class Finding(BaseModel):
    code: str
    severity: Literal["error", "warning", "info"]
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
    facts: dict[str, Any]
    findings: list[Finding]


class RefInfo(BaseModel):
    name: str
    kind: Literal["branch", "tag", "version", "alias"]
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


class Dataset(BaseModel):
    repo: str
    visibility: Visibility
    commit: str
    files: list[FileInfo]


class Repo(BaseModel):
    repo: str
    visibility: Visibility


class ChangeVisibility(BaseModel):
    visibility: Visibility
    reveal: bool = Field(False, description="confirm that the names of less visible inputs may be seen")


class Base(BaseModel):
    id: str
    path: str | None = Field(description="the folder on every worker, if it is one")
    upstream: str | None = Field(description="the repo of the upstream hub, if it is one; neither: the built-in base")
    revision: str | None = Field(description="of the upstream's repo: the commit")
    dtype: str
    licence: str | None
    aliases: list[str]
    layers: int = Field(description="how many linear layers it has")
    fingerprint: str = Field(description="SHA-256 over its weight files")


class NewBase(BaseModel):
    id: str = Field(min_length=1, max_length=200)
    path: str | None = Field(
        None, description="a folder with config.json, tokenizer and safetensors, the same on every worker"
    )
    upstream: str | None = Field(
        None,
        max_length=200,
        pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$",
        description="or a repo of the upstream hub that the operator has set (namespace/name, no address)",
    )
    revision: str | None = Field(None, max_length=200, description="of the upstream's repo; it is pinned to its commit")
    token: SecretStr | None = Field(None, description="to show to the upstream for this base; it is not shown again")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="to load it in; auto: as it is stored on a GPU, on a CPU bfloat16 where it computes in it, else float32",
    )
    licence: str | None = Field(None, max_length=100, description="left out: as the upstream's card says")
    aliases: list[str] = []

    @model_validator(mode="after")
    def one_source(self) -> "NewBase":
        if (self.path is None) == (self.upstream is None):
            raise ValueError("give either the path of a folder or a repo of the upstream, not both and not neither")
        if self.token and not self.upstream:
            raise ValueError("a token is for a base of the upstream; a folder needs none")
        return self


class Job(BaseModel):
    id: uuid.UUID
    kind: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    namespace: str
    params: dict[str, Any]
    attempt: int
    cancel_requested: bool
    result: dict[str, Any] | None
    result_repo: str | None
    result_commit: str | None
    error: dict[str, str] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobEvent(BaseModel):
    seq: int
    attempt: int
    at: datetime
    phase: str
    step: int
    total: int
    numbers: dict[str, float]


class State(BaseModel):
    status: str


class DatasetPage(BaseModel):
    items: list[Dataset]
    cursor: str | None


class Place(BaseModel):
    repo: str
    folder: str
    commit: str


class SimilarModule(BaseModel):
    folder: str = Field(description="of the module that was asked about")
    module: Place
    cosine: float = Field(description="of the two updates, estimated from their sketches")
    standard_error: float


class NearDuplicate(BaseModel):
    first: int = Field(description="place in `modules`")
    second: int
    cosine: float
    standard_error: float


class LibraryMap(BaseModel):
    base_model: str
    modules: list[Place]
    unplaced: list[Place] = Field(description="modules that are no low-rank update of the base as it is")
    duplicates: list[NearDuplicate]
    clusters: list[list[int]] = Field(description="places in `modules`; every module is in one")
    cosines: list[list[float]] = Field(description="of every two of `modules`")
    scores: list[ScoreInfo] = Field(description="what was measured on these modules, newest first")


class MoveAlias(BaseModel):
    revision: str = Field(description="branch, tag, version (v2), alias or commit that it shall stand for")


class NewGate(BaseModel):
    metric: Literal["exact_match", "contains", "numeric", "choice", "target_loss"] = "exact_match"
    dataset: str = Field(description="namespace/name")
    revision: str = Field("main", description="of the data set; its commit is kept")
    path: str = Field(description="the file of examples")
    template: Literal["chat", "plain"] = "chat"
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
    action: Literal["move", "rollback", "gate", "ungate", "remove"]
    commit: str | None
    by: str
    at: datetime
    compared: dict[str, Any] | None = Field(description="what the gate saw")


class Alias(BaseModel):
    name: str
    commit: str
    version: str | None
    gate: Gate | None
    gate_dataset: str | None = Field(description='"private data set" where you may not see it')
    moves: list[AliasMove] = Field(description="newest first")


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


class Shared(BaseModel):
    """What a share link shows."""

    repo: str
    commit: str
    expires_at: datetime
    adapters: list[Folder]
    files: list[FileInfo]
