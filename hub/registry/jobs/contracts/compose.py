"""The kind `compose`: what a worker reads, what the job keeps, and what loraloom.json says."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from hub.formats.report import Absent, Report
from hub.registry.datasets.examples import PinnedExamples, Strict
from hub.registry.jobs.contracts.common import (
    BaseParams,
    ComputedManifest,
    Contract,
    Number,
    PinnedModule,
    Result,
)
from hub.vocabulary import Controls, Form, Merge, SearchMethod, Template


class Tune(Strict):
    """A short training on the same examples that starts from what the search found."""

    steps: int = Field(20, ge=1, le=10_000, description="updates of the short training after the search")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="of that training")


class ComposeParams(BaseParams):
    """`modules` are all that take part, or, with `choose`, the pool of which so many do."""

    result: str
    modules: list[PinnedModule]
    choose: Absent[int] = None
    examples: Absent[PinnedExamples] = None
    held_out: Absent[PinnedExamples] = None
    form: Form | Merge
    search: SearchMethod
    weights: list[float] | None = None
    optimizer: str = "NGOpt"
    per_layer: bool = False
    budget: int
    population: int = 1
    patience: int | None = None
    seconds: float | None = None
    bound: float = 1.5
    l1: float = 0.05
    rank: int | None = None
    density: float = 0.5
    tune: Tune | None = None
    controls: Controls = "quick"
    seed: int = 0

    @property
    def result_repo(self) -> str:
        return self.result

    @property
    def learnt(self) -> Sequence[PinnedExamples]:
        return [self.examples] if self.examples else []

    @property
    def measured(self) -> PinnedExamples | None:
        return self.held_out

    def size_settings(self) -> Mapping[str, object]:
        return {**dict(self), "tune": self.tune and dict(self.tune)}


class Evaluation(Contract):
    """One point that a search evaluated; `None` stands for a number that is not finite."""

    step: int
    weights: list[float]
    objective: float | None
    loss: float | None
    best: float | None
    cached: bool


class GivenWeights(Contract):
    """Of weights that the request gave; `density` and `seed` are a merge's. `rank` is, here and below, that of a form that is cut."""

    search: Literal["none"]
    form: Form | Merge
    density: Absent[Number] = None
    seed: Absent[int] = None
    rank: Absent[int] = None


class NevergradSettings(Contract):
    """Of a search without gradients; `resolved_optimizer` is what NGOpt chose."""

    search: Literal["nevergrad"]
    form: Form
    template: Template
    optimizer: str
    resolved_optimizer: str
    budget: int
    population: int
    patience: int | None
    seconds: Number | None
    bound: Number
    l1: Number
    seed: int
    examples: int
    rank: Absent[int] = None


class GradientSettings(Contract):
    search: Literal["gradient"]
    form: Form
    template: Template
    per_layer: bool
    budget: int
    learning_rate: Number
    patience: int | None
    seconds: Number | None
    bound: Number
    l1: Number
    examples: int
    rank: Absent[int] = None


# How the weights were found.
CompositionSettings = Annotated[GivenWeights | NevergradSettings | GradientSettings, Field(discriminator="search")]


class Tuning(Contract):
    """The short training after the search; `truncation_error` is what cutting its start to `rank` lost."""

    rank: int
    alpha: Number
    steps: int
    learning_rate: Number
    ratio: Number
    seed: int
    losses: list[float]
    truncation_error: float


class ComposeResult(Result):
    """`weights` by adapter; where they were found by layer, their means, and `by_layer` has all of them."""

    weights: dict[str, float] = {}
    report: Report | None = None
    warnings: list[str] = []
    trace: list[Evaluation] = []
    evaluations: int = 0
    search_seconds: float = 0.0
    by_layer: dict[str, dict[str, float]] | None = None
    truncation_error: float | None = None
    tune: Tuning | None = None


class ComposeManifest(ComputedManifest):
    settings: CompositionSettings
    weights: dict[str, float]
    objective: float | None
    loss: float | None
    by_layer: dict[str, dict[str, float]] | None = None
    truncation_error: float | None = None
    tune: Tuning | None = None
    report: Report | None
    warnings: list[str]
