"""The kind `par`: LoRA-PAR."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator
from sqlalchemy.orm import Session

from hub.registry.access.viewer import Viewer
from hub.registry.bases import base_models
from hub.registry.datasets.examples import Examples, Strict, pin_examples
from hub.registry.jobs.contracts.par import (
    Changes,
    Measure,
    ParParams,
    PartitionSettings,
    PinnedTeacher,
    Preset,
    ReinforcedSettings,
    SupervisedSettings,
)
from hub.registry.jobs.queueing import Submission
from hub.registry.jobs.requests.common import Adapter, Module, ResultRequest, inputs, pin_optional, resolve_base
from hub.registry.jobs.requests.train import check_targets
from hub.vocabulary import ParControl, Template


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
    """LoRA-PAR: fast thinking supervised, slow thinking reinforced, each on its own elements of one adapter (arXiv 2507.20999)."""

    kind: Literal["par"]
    base: str = Field(description="the registered base that learns")
    examples: Examples = Field(description="what is learnt, of both systems")
    held_out: Examples | None = Field(None, description="what every stage is measured on; at least 100 for a claim")
    split: Literal["labels", "random"] | Vote = Field(
        "labels", description="the field `system` of each example, a draw as a control, or a vote of teachers"
    )
    settings: Preset = Field("today", description="the defaults of the settings left out")
    partition: PartitionSettings = PartitionSettings()
    sft: SupervisedSettings = SupervisedSettings()
    grpo: ReinforcedSettings = ReinforcedSettings()
    measure: Measure = Field("exact_match", description="what counts as right")
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
        changed: dict[str, object] = {"examples": sources["examples.jsonl"], "held_out": sources.get("held_out.jsonl")}
        if isinstance(self.split, Vote):
            changed["split"] = self.split.model_copy(update={"gold": sources["gold.jsonl"]})
        return self.model_copy(update=changed)

    def resolve(self, session: Session, viewer: Viewer, modules: Sequence[Adapter]) -> Submission:
        base = resolve_base(session, modules, self.base)
        if self.sft.target_modules:
            check_targets(base_models.find(session, base.id).shapes, self.sft.target_modules, base.id)
        vote = self.split if isinstance(self.split, Vote) else None
        examples = pin_examples(session, viewer, self.examples)
        held_out, gold = (
            pin_optional(session, viewer, source) for source in (self.held_out, vote.gold if vote else None)
        )
        needed = inputs(modules, examples, held_out, gold)
        namespace, visibility = self.target(session, viewer, [item.commit_id for item in needed])
        params = ParParams(
            result=self.name,
            base=base,
            examples=examples,
            held_out=held_out,
            gold=gold,
            preset=self.settings,
            measure=self.measure,
            compare=self.compare,
            validation_share=self.validation_share,
            seed=self.seed,
            template=self.template,
            split="vote" if isinstance(self.split, Vote) else self.split,
            teachers=[_pinned(session, teacher) for teacher in vote.teachers] if vote else [],
            changes=self.changes(),
        )
        return Submission(self.kind, "gpu", params, needed, namespace, visibility)

    def changes(self) -> Changes:
        return Changes(partition=self.partition, supervised=self.sft, reinforced=self.grpo)


def _pinned(session: Session, teacher: Teacher) -> PinnedTeacher:
    if teacher.server:
        return PinnedTeacher(server=teacher.server)
    return PinnedTeacher(base=resolve_base(session, [], teacher.base))
