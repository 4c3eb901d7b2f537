"""The kind `train`: LoRA+."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator
from sqlalchemy.orm import Session

from hub.registry.access.viewer import Viewer
from hub.registry.bases import base_models
from hub.registry.datasets.examples import Examples, Strict, pin_examples
from hub.registry.jobs.contracts.common import RecipeSettings
from hub.registry.jobs.contracts.train import TrainParams
from hub.registry.jobs.queueing import Submission
from hub.registry.jobs.requests.common import (
    Adapter,
    Module,
    ResultRequest,
    common_template,
    inputs,
    pin_optional,
    resolve_base,
)
from hub.registry.platform.errors import InvalidInput
from hub.vocabulary import Init, Schedule, Template

# Settings that the adapter to train further fixes.
GIVEN_BY_START = ("rank", "alpha", "targets", "dropout", "init", "rslora", "dora")

# Fields of the request that hub.lora's Recipe names otherwise.
_RENAMED = {"targets": "target_modules", "early_stop": "patience"}


class UnknownTarget(InvalidInput):
    code = "unknown_target"


class LrSearch(Strict):
    """A short run at each rate; the one with the least validation loss is taken."""

    rates: list[float] | None = Field(
        None, min_length=2, max_length=12, description="of A; left out: learning_rate times 1/4, 1/2, 1, 2 and 4"
    )
    steps: int | None = Field(
        None, ge=1, le=100_000, description="of each; left out: a fifth of the run's, at least 20"
    )

    @model_validator(mode="after")
    def sound(self) -> "LrSearch":
        if self.rates and not all(0 < rate <= 1 for rate in self.rates):
            raise ValueError("every rate must lie above 0 and not above 1")
        return self


class TrainRequest(ResultRequest):
    """LoRA+: train an adapter, or train one further, with two learning rates (arXiv 2402.12354)."""

    kind: Literal["train"]
    examples: Examples = Field(description="what is learnt: a file of a data set, or examples written out here")
    held_out: Examples | None = Field(None, description="what the result is measured on; at least 100 for a claim")
    base: str | None = Field(None, description="may be left out where an adapter is trained further")
    start_from: Module | None = Field(None, description="the adapter to train further")
    rank: int = Field(8, ge=1, le=512, description="of A and B: more can learn more, and is larger")
    alpha: float | None = Field(None, gt=0, le=4_096, description="left out: twice the rank")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="names of linear layers, as PEFT takes them"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the inputs of A left out at random while training")
    init: Init = Field("default", description="where A and B start; PEFT's own is B at zero")
    rslora: bool = Field(False, description="scale by alpha over the root of the rank, which suits high ranks")
    dora: bool = Field(False, description="learn the length of each column apart from its direction; slower")
    learning_rate: float = Field(5e-4, gt=0, le=1, description="of A; B's is this times the ratio")
    ratio: float | None = Field(
        None,
        gt=0,
        le=1_000,
        description="B's rate over A's; left out: 4 where B starts at zero, 16 where A does, else 1",
    )
    warmup: float = Field(0.1, ge=0, le=1, description="share of the steps in which the rate rises from zero")
    schedule: Schedule = Field("linear", description="how the rate falls after that")
    steps: int | None = Field(None, ge=1, le=1_000_000, description="updates; left out: as many as the epochs take")
    epochs: int = Field(3, ge=1, le=100, description="passes over the examples")
    batch_size: int = Field(8, ge=1, le=1_024, description="examples computed at once; less takes less memory")
    accumulation: int = Field(1, ge=1, le=1_024, description="batches per update")
    max_length: int = Field(1_024, ge=8, le=131_072, description="tokens; longer examples are left out and counted")
    weight_decay: float = Field(0.0, ge=0, le=1, description="pulls A and B towards zero")
    validation_share: float = Field(
        0.1, ge=0, le=0.5, description="of the examples, 200 at most; they choose the best state and are not learnt"
    )
    validate_every: int | None = Field(None, ge=1, description="steps; left out: a tenth of the run")
    early_stop: int | None = Field(None, ge=1, description="validations without a new best after which training ends")
    load_in_4bit: bool = Field(False, description="the base in NF4 while training (QLoRA), for less memory; not faster")
    lr_search: LrSearch | None = Field(None, description="try several rates first")
    compare: list[Literal["lora"]] = Field([], max_length=1, description="also train plain LoRA at the same budget")
    seed: int = Field(0, ge=0, lt=2**32, description="of every draw: the same request gives the same result")
    template: Template | None = Field(None, description="left out: the one the adapter was trained with, else chat")

    @model_validator(mode="after")
    def adapter_settings_fit(self) -> "TrainRequest":
        if self.start_from:
            decided = [name for name in GIVEN_BY_START if name in self.model_fields_set]
            if decided:
                raise ValueError(f"the adapter to train further decides {', '.join(decided)}; leave that out")
        if self.dora and self.init.startswith("pissa"):
            raise ValueError(
                "what PiSSA takes out of the base cannot be given back to a DoRA adapter; choose one of them"
            )
        if self.load_in_4bit and (self.dora or self.init not in ("default", "gaussian", "a_zero")):
            raise ValueError(
                "dora and init need the base's weights, which are in four bits; leave them out, or load_in_4bit"
            )
        return self

    @model_validator(mode="after")
    def schedule_fits(self) -> "TrainRequest":
        if self.steps is not None and "epochs" in self.model_fields_set:
            raise ValueError("give steps or epochs, not both")
        needs = [name for name in ("early_stop", "lr_search", "compare") if getattr(self, name)]
        if needs and not self.validation_share:
            raise ValueError(f"{needs[0]} is decided on validation examples; raise validation_share above 0")
        return self

    def named_modules(self) -> Sequence[Module]:
        return [self.start_from] if self.start_from else []

    def sources(self) -> Mapping[str, Examples]:
        held_out = {"held_out.jsonl": self.held_out} if self.held_out else {}
        return {"examples.jsonl": self.examples, **held_out}

    def with_sources(self, sources: Mapping[str, Examples]) -> Self:
        changed = {"examples": sources["examples.jsonl"], "held_out": sources.get("held_out.jsonl")}
        return self.model_copy(update=changed)

    def resolve(self, session: Session, viewer: Viewer, modules: Sequence[Adapter]) -> Submission:
        base = resolve_base(session, modules, self.base)
        check_targets(base_models.find(session, base.id).shapes, self.targets, base.id)
        examples = pin_examples(session, viewer, self.examples)
        held_out = pin_optional(session, viewer, self.held_out)
        needed = inputs(modules, examples, held_out)
        namespace, visibility = self.target(session, viewer, [item.commit_id for item in needed])
        params = TrainParams(
            result=self.name,
            base=base,
            start=modules[0].pinned if modules else None,
            examples=examples,
            held_out=held_out,
            recipe=self.recipe(),
            validation_share=self.validation_share,
            rates=self.rates(),
            search_steps=self.lr_search.steps if self.lr_search else None,
            compare=self.compare,
            load_in_4bit=self.load_in_4bit,
            template=self.template or common_template(modules),
        )
        return Submission(self.kind, "gpu", params, needed, namespace, visibility)

    def recipe(self) -> RecipeSettings:
        """The fields of the request that hub.lora's Recipe has, under its names."""
        values = {_RENAMED.get(name, name): value for name, value in self}
        return RecipeSettings.model_validate(values | {"alpha": self.alpha or 2 * self.rank})

    def rates(self) -> list[float]:
        """Learning rates to try before training; empty without a search.

        A comparison always searches, because at one untuned rate it would compare luck.
        """
        if self.lr_search is None and not self.compare:
            return []
        rates = self.lr_search.rates if self.lr_search else None
        return rates or [self.learning_rate * factor for factor in (0.25, 0.5, 1.0, 2.0, 4.0)]


def check_targets(shapes: Mapping[str, object], targets: str | Sequence[str], base_id: str) -> None:
    """Raises UnknownTarget where the base has no linear layer of a name."""
    last = sorted({layer.rpartition(".")[2] for layer in shapes})
    for name in [] if isinstance(targets, str) else targets:
        if not any(layer == name or layer.endswith(f".{name}") for layer in shapes):
            raise UnknownTarget(f"{base_id} has no linear layer named {name}; it has {', '.join(last)}.")
