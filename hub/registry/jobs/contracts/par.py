"""The kind `par`: what a worker reads, what the job keeps, and what loraloom.json says."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, JsonValue, field_serializer

from hub.formats.report import Absent, Estimate, Report
from hub.registry.datasets.examples import PinnedExamples, Strict
from hub.registry.jobs.contracts.common import (
    BaseParams,
    ComputedManifest,
    Contract,
    Number,
    PinnedBase,
    RecipeSettings,
    Result,
    TrainingCurve,
)
from hub.vocabulary import GrpoLoss, ParControl, PartitionStart, Reward, Schedule, SplitBy

Preset = Literal["today", "paper"]
Measure = Literal["exact_match", "numeric", "choice"]


class PartitionSettings(Strict):
    """What is left out is the named settings' own."""

    start: PartitionStart | None = Field(None, description="where elements are scored: PiSSA's start, or a probe of B")
    theta: float | None = Field(None, gt=0, le=1, description="the share of its importance that a system's set holds")
    alpha: float | None = Field(None, ge=0, le=1, description="of the common elements, for stage 1")
    beta: float | None = Field(None, ge=0, le=1, description="of the common elements, for stage 2")
    sample: int | None = Field(None, ge=1, le=10_000, description="examples of each system that are scored")


class SupervisedSettings(Strict):
    """Stage 1. What is left out is the named settings' own."""

    rank: int | None = Field(None, ge=1, le=512, description="of A and B")
    alpha: float | None = Field(None, gt=0, le=4_096, description="the update is scaled by alpha over the rank")
    target_modules: Literal["all-linear"] | list[str] | None = Field(None, description="names of linear layers")
    learning_rate: float | None = Field(None, gt=0, le=1, description="of stage 1")
    warmup: float | None = Field(None, ge=0, le=1, description="share of the steps in which the rate rises")
    schedule: Schedule | None = Field(None, description="how the rate falls after that")
    steps: int | None = Field(None, ge=1, le=1_000_000, description="left out: as many as the epochs take")
    epochs: int | None = Field(None, ge=1, le=100, description="passes over System 1's examples")
    batch_size: int | None = Field(None, ge=1, le=1_024, description="examples computed at once")
    accumulation: int | None = Field(None, ge=1, le=1_024, description="batches per update")
    max_length: int | None = Field(None, ge=8, le=131_072, description="tokens; longer examples are left out")
    weight_decay: float | None = Field(None, ge=0, le=1, description="pulls A and B towards zero")


class ReinforcedSettings(Strict):
    """Stage 2. What is left out is the named settings' own."""

    rewards: dict[Reward, float] | None = Field(None, min_length=1, description="weights by name")
    learning_rate: float | None = Field(None, gt=0, le=1, description="of stage 2")
    kl: float | None = Field(None, ge=0, le=10, description="weight of the divergence from stage 1's result")
    temperature: float | None = Field(None, gt=0, le=10, description="of the answers that are drawn")
    loss: GrpoLoss | None = Field(None, description="how the tokens of the answers are averaged")
    prompts: int | None = Field(None, ge=1, le=1_024, description="of a step")
    generations: int | None = Field(None, ge=2, le=256, description="answers to each prompt")
    batch_size: int | None = Field(None, ge=1, le=4_096, description="answers that are computed at once")
    steps: int | None = Field(None, ge=1, le=1_000_000, description="left out: as many as the epochs take")
    epochs: int | None = Field(None, ge=1, le=100, description="passes over System 2's examples")
    max_prompt: int | None = Field(None, ge=1, le=131_072, description="tokens; longer prompts are left out")
    max_answer: int | None = Field(None, ge=1, le=131_072, description="tokens; answers end there")
    warmup: float | None = Field(None, ge=0, le=1, description="share of the steps in which the rate rises")
    schedule: Schedule | None = Field(None, description="how the rate falls after that")
    weight_decay: float | None = Field(None, ge=0, le=1, description="pulls A and B towards zero")
    clip: float | None = Field(None, gt=0, le=1_000, description="largest norm of a gradient")


class Changes(Contract):
    """What is asked for instead of the named settings; JSON has only what was set."""

    partition: PartitionSettings = PartitionSettings()
    supervised: SupervisedSettings = SupervisedSettings()
    reinforced: ReinforcedSettings = ReinforcedSettings()

    @field_serializer("partition", "supervised", "reinforced")
    def only_set(self, part: Strict) -> dict[str, JsonValue]:
        return part.model_dump(mode="json", exclude_none=True)


class PinnedTeacher(Contract):
    """A base that the worker runs, or a server that the administrator has named."""

    base: Absent[PinnedBase] = None
    server: Absent[str] = None


class ParParams(BaseParams):
    """`settings` names the preset that `preset_changes` change. With the split "vote" the teachers vote, tried on `gold`."""

    result: str
    examples: PinnedExamples
    held_out: Absent[PinnedExamples] = None
    gold: Absent[PinnedExamples] = None
    preset: Preset = Field("today", alias="settings")
    measure: Measure = "exact_match"
    compare: list[ParControl] = []
    validation_share: float = 0.1
    seed: int = 0
    split: SplitBy = "labels"
    teachers: list[PinnedTeacher] = []
    changes: Changes = Changes()

    @property
    def result_repo(self) -> str:
        return self.result

    @property
    def learnt(self) -> Sequence[PinnedExamples]:
        return [self.examples]

    @property
    def measured(self) -> PinnedExamples | None:
        return self.held_out


class ReinforcementSettings(Contract):
    """The fields of `hub.lora.par.grpo.Reinforcement`, in its order."""

    rewards: dict[Reward, Number]
    learning_rate: Number
    kl: Number
    temperature: Number
    loss: GrpoLoss
    generations: int
    prompts: int
    batch_size: int
    steps: int | None
    epochs: int
    max_prompt: int
    max_answer: int
    warmup: Number
    schedule: Schedule
    weight_decay: Number
    adam_betas: list[Number]
    clip: Number
    seed: int


class ParSettings(Contract):
    """`named` is the preset; the rest is what came of it and the changes."""

    named: Preset
    start: PartitionStart
    theta: Number
    alpha: Number
    beta: Number
    sample: int
    supervised: RecipeSettings
    reinforced: ReinforcementSettings
    validation_share: float


class Trust(Contract):
    """How a teacher did on the `gold` examples whose system is known; `chance` is how likely votes without any relation do as well."""

    teacher: str
    gold: int
    right: float
    low: float
    high: float
    chance: float


class Split(Contract):
    """How many examples each system has; of a vote also each teacher's figures and how far they agreed."""

    by: SplitBy
    system1: int
    system2: int
    validated: int
    teachers: Absent[list[Trust]] = None
    ties: Absent[int] = None
    unanimous: Absent[float] = None
    with_majority: Absent[dict[str, float]] = None
    unreadable: Absent[dict[str, int]] = None


class MatrixShares(Contract):
    """Of one factor of one layer: the shares that only System 1 has, only System 2, both, and neither."""

    matrix: str
    system1: float
    system2: float
    common: float
    none: float


class PartitionSizes(Contract):
    """Sizes of the sets as shares of all `elements`, and the four regions of each matrix."""

    elements: int
    system1: float
    system2: float
    stage1: float
    stage2: float
    jaccard: float
    active: float
    matrices: list[MatrixShares]


class RewardCurve(Contract):
    """Each row has the means of `every` steps, by name."""

    every: int
    steps: list[dict[str, float]]


class Accuracy(Contract):
    """By arm and by part ("all", "system1", "system2") the share that is right by `measure`."""

    measure: Measure
    arms: dict[str, dict[str, Estimate]]


class ParResult(Result):
    settings: ParSettings | None = None
    split: Split | None = None
    partition: PartitionSizes | None = None
    curve: dict[str, TrainingCurve] = {}
    rewards: dict[str, RewardCurve] = {}
    optimizer_bytes: dict[str, dict[str, int]] = {}
    accuracy: Accuracy | None = None
    report: Report | None = None
    warnings: list[str] = []


class ParManifest(ComputedManifest):
    settings: ParSettings
    split: Split
    partition: PartitionSizes | None
    curve: dict[str, TrainingCurve]
    rewards: dict[str, RewardCurve]
    optimizer_bytes: dict[str, dict[str, int]]
    accuracy: Accuracy
    report: Report | None
    warnings: list[str]
