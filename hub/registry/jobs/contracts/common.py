"""What the params, results and manifests of several kinds of job have in common.

These models are written to columns of JSON and to `loraloom.json`, and read back for as long as a hub exists: a field that older rows or
files may lack has a default, and one that is unknown is passed over.
"""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from hub.formats.report import Absent
from hub.registry.datasets.examples import PinnedExamples
from hub.vocabulary import Dtype, Init, Metric, Schedule, Template

MANIFEST_VERSION = 1  # of the fields of loraloom.json; a file without one has this

# Text that JSON writes as it was given: 16 stays 16, and 16.0 stays 16.0.
Number = int | float


class Contract(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="ignore", from_attributes=True, populate_by_name=True, serialize_by_alias=True
    )


# --- params -----------------------------------------------------------------------------------------------------------


class PinnedModule(Contract):
    """An adapter at a commit, with what its card says of the prompts it was trained with and of its licence."""

    repo: str
    commit: str
    folder: str = ""
    template: Template | None = None
    licence: str | None = None

    @property
    def name(self) -> str:
        """Unique among the adapters of a job: two versions of one repo stay apart."""
        folder = f"/{self.folder}" if self.folder else ""
        return f"{self.repo}{folder}@{self.commit[:8]}"


class PinnedBase(Contract):
    """A registered base as it was when the job was submitted. Without `path` and `upstream` it is the built-in one."""

    id: str
    path: str | None = None
    upstream: str | None = None
    revision: str | None = None
    dtype: Dtype = "auto"
    fingerprint: str
    licence: str | None = None


class Params(Contract):
    """What a worker reads of a job, with every input pinned."""

    @property
    def learnt(self) -> Sequence[PinnedExamples]:
        """The examples that the job computes on, but for those held out."""
        return ()

    @property
    def measured(self) -> PinnedExamples | None:
        """The examples that its result is measured on."""
        return None

    @property
    def result_repo(self) -> str:
        """namespace/name of the repo that the job publishes in; empty for a kind that publishes nothing."""
        return ""

    def size_settings(self) -> Mapping[str, object]:
        """By the names that a request has for them, for an estimate of the job's size."""
        return dict(self)


class BaseParams(Params):
    """Of a kind that computes with a base."""

    base: PinnedBase
    template: Template


# --- results and manifests --------------------------------------------------------------------------------------------


class Result(Contract):
    """What a job keeps for its page and the API, beside the files that it publishes."""


class ManifestBase(Contract):
    id: str
    fingerprint: Absent[str] = None
    task_type: Absent[str] = None


class ManifestInput(Contract):
    """A pinned input and the SHA-256 of its files, by path."""

    repo: str
    commit: str
    folder: Absent[str] = None
    path: Absent[str] = None
    files: dict[str, str]


class ManifestInputs(Contract):
    """By the part that they play; each kind has some of these."""

    modules: Absent[list[ManifestInput]] = None
    module: Absent[ManifestInput] = None
    start: Absent[ManifestInput] = None
    source: Absent[ManifestInput] = None
    examples: Absent[ManifestInput] = None
    held_out: Absent[ManifestInput] = None
    gold: Absent[ManifestInput] = None


class Manifest(Contract):
    """`loraloom.json`: everything that made a result, so that the same manifest gives the same bytes. No times, no job ids."""

    version: int = MANIFEST_VERSION
    method: str


class ComputedManifest(Manifest):
    """Of a kind that computes with a base."""

    template: Template
    base: ManifestBase
    device: str
    versions: dict[str, str]
    inputs: ManifestInputs


# --- parts that several kinds have ------------------------------------------------------------------------------------


class TrainingCurve(Contract):
    """Training losses as means of `every` steps, and (step, validation loss), where step 0 is the untrained state."""

    every: int
    losses: list[float]
    validations: list[tuple[int, float]]


class RecipeSettings(Contract):
    """The fields of `hub.lora.train.loop.Recipe`, in its order."""

    rank: int
    alpha: Number
    target_modules: list[str] | str = "all-linear"
    dropout: Number = 0.0
    init: Init = "default"
    rslora: bool = False
    dora: bool = False
    learning_rate: Number
    ratio: Number | None = None
    warmup: Number = 0.1
    schedule: Schedule = "linear"
    steps: int | None = None
    epochs: int = 3
    batch_size: int = 8
    accumulation: int = 1
    max_length: int = 1024
    weight_decay: Number = 0.0
    validate_every: int | None = None
    patience: int | None = None
    seed: int = 0


class ScoreRow(Contract):
    """A measured figure as a job's result has it."""

    module: str
    dataset: str
    dataset_path: str
    template: Template
    examples: int
    metric: Metric
    value: float
    low: float
    high: float
