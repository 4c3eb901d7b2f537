"""The kind `par`: LoRA-PAR."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from sqlalchemy.orm import Session

from hub.registry.access.viewer import Viewer
from hub.registry.bases import base_models
from hub.registry.datasets.examples import Examples, Strict, pin_examples
from hub.registry.jobs.queueing import Input, Submission
from hub.registry.jobs.requests.common import Module, ResultRequest, agree
from hub.registry.jobs.requests.train import check_targets
from hub.vocabulary import GrpoLoss, ParControl, PartitionStart, Reward, Schedule, Template


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


class Teacher(Strict):
    """Either a registered base, which the worker runs, or a server that the administrator has named."""

    base: str | None = None
    server: str | None = None

    @model_validator(mode="after")
    def one(self) -> "Teacher":
        if (self.base is None) == (self.server is None):
            raise ValueError("name either a base or a server, not both and not neither")
        return self


class Vote(Strict):
    """The majority of the teachers decides, after each has shown on gold examples that it does better than chance."""

    teachers: list[Teacher] = Field(min_length=1, max_length=9)
    gold: Examples = Field(description="a few dozen examples whose `system` is known; nothing is learnt from them")

    @model_validator(mode="after")
    def odd(self) -> "Vote":
        if len(self.teachers) % 2 == 0:
            raise ValueError("the number of teachers must be odd, so that a vote can be decided")
        if len(set(self.teachers)) < len(self.teachers):
            raise ValueError("name each teacher once; a model that votes twice only outvotes others")
        return self


class ParRequest(ResultRequest):
    """LoRA-PAR: fast thinking supervised, slow thinking reinforced, each on its own elements of one module (arXiv 2507.20999)."""

    kind: Literal["par"]
    base: str = Field(description="the registered base that learns")
    examples: Examples = Field(description="what is learnt, of both systems")
    held_out: Examples | None = Field(None, description="what every stage is measured on; at least 100 for a claim")
    split: Literal["labels", "random"] | Vote = Field(
        "labels", description="the field `system` of each example, a draw as a control, or a vote of teachers"
    )
    settings: Literal["today", "paper"] = Field("today", description="the settings that stand where nothing is said")
    partition: PartitionSettings = PartitionSettings()
    sft: SupervisedSettings = SupervisedSettings()
    grpo: ReinforcedSettings = ReinforcedSettings()
    measure: Literal["exact_match", "numeric", "choice"] = Field("exact_match", description="what counts as right")
    compare: list[ParControl] = Field([], description="controls that are trained at the same budget")
    validation_share: float = Field(
        0.1, ge=0, le=0.5, description="of System 1's examples, 200 at most; they choose stage 1's best state"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of every draw: the same request gives the same result")
    template: Template = Field("chat", description="how an input becomes a prompt")

    @model_validator(mode="after")
    def fits_together(self) -> "ParRequest":
        for stage in (self.sft, self.grpo):
            if stage.steps is not None and stage.epochs is not None:
                raise ValueError("give steps or epochs of a stage, not both")
        if len(set(self.compare)) < len(self.compare):
            raise ValueError("name each arm to compare with once")
        if self.grpo.rewards and not any(weight > 0 for weight in self.grpo.rewards.values()):
            raise ValueError("at least one reward needs a weight above 0")
        return self

    def named_modules(self) -> Sequence[Module]:
        return []

    def sources(self) -> Mapping[str, Examples]:
        held_out = {"held_out.jsonl": self.held_out} if self.held_out else {}
        gold = {"gold.jsonl": self.split.gold} if isinstance(self.split, Vote) else {}
        return {"examples.jsonl": self.examples, **held_out, **gold}

    def with_sources(self, sources: Mapping[str, Examples]) -> Self:
        changed: dict[str, Any] = {"examples": sources["examples.jsonl"], "held_out": sources.get("held_out.jsonl")}
        if isinstance(self.split, Vote):
            changed["split"] = self.split.model_copy(update={"gold": sources["gold.jsonl"]})
        return self.model_copy(update=changed)

    def resolve(self, session: Session, viewer: Viewer) -> Submission:
        base = agree(session, [], self.base)
        if self.sft.target_modules:
            check_targets(base_models.find(session, base["id"]).shapes, self.sft.target_modules, base["id"])
        vote = self.split if isinstance(self.split, Vote) else None
        sources = {"examples": self.examples, "held_out": self.held_out, "gold": vote.gold if vote else None}
        pinned = {role: pin_examples(session, viewer, source) for role, source in sources.items() if source}
        inputs = [Input(source["commit"], "dataset") for source in pinned.values()]
        namespace, visibility = self.target(session, viewer, [item.commit_id for item in inputs])
        return Submission(
            kind=self.kind,
            queue="gpu",
            params={
                "result": self.name,
                "base": base,
                **pinned,
                **self.model_dump(include={"settings", "measure", "compare", "validation_share", "seed", "template"}),
                "split": "vote" if vote else self.split,
                "teachers": [_pinned(session, teacher) for teacher in vote.teachers] if vote else [],
                "changes": self.changes(),
            },
            inputs=inputs,
            namespace=namespace,
            visibility=visibility,
        )

    def changes(self) -> dict[str, dict[str, Any]]:
        """What is asked for instead of the named settings."""
        parts = {"partition": self.partition, "supervised": self.sft, "reinforced": self.grpo}
        return {name: part.model_dump(exclude_none=True) for name, part in parts.items()}


def _pinned(session: Session, teacher: Teacher) -> dict[str, Any]:
    return {"server": teacher.server} if teacher.server else {"base": agree(session, [], teacher.base)}
