"""The kind `reduce`: Compress to Impress for a base, and the same idea for an adapter."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator
from sqlalchemy.orm import Session

from hub.registry.access.viewer import Viewer
from hub.registry.datasets.examples import Examples, pin_examples
from hub.registry.jobs.contracts.reduce import ReduceParams
from hub.registry.jobs.queueing import Submission
from hub.registry.jobs.requests.common import (
    Adapter,
    Module,
    ResultRequest,
    check_plain,
    common_template,
    inputs,
    pin_optional,
    resolve_base,
)
from hub.vocabulary import (
    COMPONENT_SCORES,
    CUT_SCORES,
    ComponentScore,
    CutScore,
    ReducedForm,
    Subject,
    Template,
    VariantName,
)


class ReduceRequest(ResultRequest):
    """Make a base better at a task by cutting singular values of a few of its matrices (arXiv 2510.20800), or an adapter smaller."""

    kind: Literal["reduce"]
    subject: Subject = Field("base", description="what is reduced")
    base: str | None = Field(None, description="left out: the adapter's")
    module: Module | None = Field(
        None, description="what is made smaller, or what is merged into the base before it is reduced"
    )
    examples: Examples = Field(description="what the gradient and the trials are of; the paper takes 100")
    held_out: Examples | None = Field(None, description="what the report measures on; at least 100 for a claim")
    form: ReducedForm = Field(
        "adapter",
        description="of a reduced base: an adapter for the untouched one, the whole model, or the factors of what was cut",
    )
    variant: VariantName = Field(
        "cl-100g-100e",
        description="of a base: which cuts are tried, and how many examples give the gradient and measure a cut",
    )
    score: CutScore | ComponentScore | None = Field(
        None, description="left out: tail_taylor for a base, fisher for an adapter"
    )
    top: int = Field(10, ge=1, le=100, description="of a base: matrices that are tried")
    budget: int = Field(
        10, ge=1, le=1_000, description="of a base: cuts tried one by one; joining them may take as many trials again"
    )
    loss_budget: float = Field(
        0.01, ge=0, le=10, description="of an adapter: nats per target token that being smaller may cost"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of the examples that a variant draws and of the bootstrap")
    template: Template | None = Field(None, description="left out: the one the adapter was trained with, else chat")

    @model_validator(mode="after")
    def fits_together(self) -> "ReduceRequest":
        if self.subject == "module" and self.module is None:
            raise ValueError("name the adapter that shall be smaller")
        what = "an adapter" if self.subject == "module" else "a base"
        foreign = ("form", "variant", "top", "budget") if self.subject == "module" else ("loss_budget",)
        if misplaced := [name for name in foreign if name in self.model_fields_set]:
            raise ValueError(f"{misplaced[0]} has no meaning for {what}; leave it out")
        if self.form == "factors" and self.module:
            raise ValueError("the factors hold only what was cut; leave the adapter out, or choose another form")
        scores = COMPONENT_SCORES if self.subject == "module" else CUT_SCORES
        if self.score is not None and self.score not in scores:
            raise ValueError(f"the score {self.score} is none for {what}; choose {', '.join(scores)}")
        return self

    def named_modules(self) -> Sequence[Module]:
        return [self.module] if self.module else []

    def sources(self) -> Mapping[str, Examples]:
        held_out = {"held_out.jsonl": self.held_out} if self.held_out else {}
        return {"examples.jsonl": self.examples, **held_out}

    def with_sources(self, sources: Mapping[str, Examples]) -> Self:
        changed = {"examples": sources["examples.jsonl"], "held_out": sources.get("held_out.jsonl")}
        return self.model_copy(update=changed)

    def resolve(self, session: Session, viewer: Viewer, modules: Sequence[Adapter]) -> Submission:
        base = resolve_base(session, modules, self.base)
        for module in modules:
            check_plain(module)
        examples = pin_examples(session, viewer, self.examples)
        held_out = pin_optional(session, viewer, self.held_out)
        needed = inputs(modules, examples, held_out)
        namespace, visibility = self.target(session, viewer, [item.commit_id for item in needed])
        of_subject = {"loss_budget"} if self.subject == "module" else {"form", "variant", "top", "budget"}
        params = ReduceParams(
            **self.model_dump(include=of_subject),
            result=self.name,
            subject=self.subject,
            base=base,
            module=modules[0].pinned if modules else None,
            examples=examples,
            held_out=held_out,
            score=self.score or ("fisher" if self.subject == "module" else "tail_taylor"),
            seed=self.seed,
            template=self.template or common_template(modules),
        )
        return Submission(self.kind, "gpu", params, needed, namespace, visibility)
