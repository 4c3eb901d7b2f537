"""The kind `train`: what a worker reads, what the job keeps, and what loraloom.json says."""

from collections.abc import Mapping, Sequence
from typing import Literal

from hub.formats.report import Absent, Report
from hub.registry.datasets.examples import PinnedExamples
from hub.registry.jobs.contracts.common import (
    BaseParams,
    ComputedManifest,
    Contract,
    PinnedModule,
    RecipeSettings,
    Result,
    TrainingCurve,
)
from hub.vocabulary import Ending


class TrainParams(BaseParams):
    """`rates` are tried before training, each for `search_steps`."""

    result: str
    start: Absent[PinnedModule] = None
    examples: PinnedExamples
    held_out: Absent[PinnedExamples] = None
    recipe: RecipeSettings
    validation_share: float = 0.1
    rates: list[float] = []
    search_steps: int | None = None
    compare: list[Literal["lora"]] = []
    load_in_4bit: bool = False

    @property
    def result_repo(self) -> str:
        return self.result

    @property
    def learnt(self) -> Sequence[PinnedExamples]:
        return [self.examples]

    @property
    def measured(self) -> PinnedExamples | None:
        return self.held_out

    def size_settings(self) -> Mapping[str, object]:
        return {**dict(self), **dict(self.recipe)}


class TrainSettings(RecipeSettings):
    """The recipe that was run: `ratio` and `steps` as they came out, and how many examples were `learnt`, `validated`, `too_long`."""

    learnt: int
    validated: int
    too_long: int = 0
    load_in_4bit: bool = False


class RateTrial(Contract):
    """`validation_loss` is None where the training diverged."""

    learning_rate: float
    validation_loss: float | None


class RateSearch(Contract):
    """`at_edge`: the best of the rates tried was the lowest or the highest."""

    trials: list[RateTrial]
    best: float
    at_edge: bool


class TrainResult(Result):
    """`curve` and `search` are by arm: `module`, and `lora` where that was compared."""

    settings: TrainSettings | None = None
    curve: dict[str, TrainingCurve] = {}
    report: Report | None = None
    search: dict[str, RateSearch] = {}
    warnings: list[str] = []
    tokens_per_second: float | None = None
    training_seconds: float | None = None


class TrainManifest(ComputedManifest):
    """The method is `lora` where A and B had one rate, else `loraplus`."""

    settings: TrainSettings
    ending: Ending
    kept_step: int
    curve: dict[str, TrainingCurve]
    search: dict[str, RateSearch]
    report: Report | None
    warnings: list[str]
