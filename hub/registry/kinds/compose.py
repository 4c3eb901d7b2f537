"""The kind `compose`: LoraHub."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field
from sqlalchemy.orm import Session

from hub.registry.inspect import NOT_PLAIN
from hub.registry.jobs import Input, Submission
from hub.registry.kinds.common import (
    Examples,
    IncompatibleModules,
    Module,
    ResultRequest,
    Template,
    agree,
    common_template,
    pin_examples,
    pin_module,
    without_facts,
)
from hub.registry.teams import Viewer


class ComposeRequest(ResultRequest):
    """LoraHub: find weights for existing modules from a handful of examples (arXiv 2307.13269)."""

    kind: Literal["compose"]
    modules: list[Module] = Field(min_length=1, max_length=100)
    examples: Examples = Field(description="what the weights are searched on")
    held_out: Examples | None = Field(None, description="what the report measures on; at least 100 for a claim")
    base: str | None = Field(None, description="left out: the base on which the modules agree")
    form: Literal["sum", "product"] = "sum"
    optimizer: str = Field("NGOpt", max_length=60, description="the name of a nevergrad optimiser")
    budget: int = Field(40, ge=1, le=5_000, description="evaluations of the loss")
    bound: float = Field(1.5, gt=0, le=100, description="weights lie in [-bound, bound]")
    l1: float = Field(0.05, ge=0, le=100, description="times the mean absolute weight, added to the loss")
    seed: int = Field(0, ge=0, lt=2**32)
    template: Template | None = Field(None, description="left out: the one the modules were trained with, else chat")

    def named_modules(self) -> Sequence[Module]:
        return self.modules

    def sources(self) -> Mapping[str, Examples]:
        held_out = {"held_out.jsonl": self.held_out} if self.held_out else {}
        return {"examples.jsonl": self.examples, **held_out}

    def with_sources(self, sources: Mapping[str, Examples]) -> Self:
        changed = {"examples": sources["examples.jsonl"], "held_out": sources.get("held_out.jsonl")}
        return self.model_copy(update=changed)

    def resolve(self, session: Session, viewer: Viewer) -> Submission:
        modules = [pin_module(session, viewer, module) for module in self.modules]
        base = agree(session, modules, self.base)
        check_composable(modules, self.form)
        sources = {"examples": self.examples, "held_out": self.held_out}
        pinned = {role: pin_examples(session, viewer, source) for role, source in sources.items() if source}
        inputs = [Input(module["commit"], "module") for module in modules]
        inputs += [Input(source["commit"], "dataset") for source in pinned.values()]
        namespace, visibility = self.target(session, viewer, [item.commit_id for item in inputs])
        settings = self.model_dump(include={"form", "optimizer", "budget", "bound", "l1", "seed"})
        return Submission(
            kind=self.kind,
            queue="gpu",
            params={
                "result": self.name,
                "base": base,
                "modules": [without_facts(module) for module in modules],
                **pinned,
                **settings,
                "template": self.template or common_template(modules),
            },
            inputs=inputs,
            namespace=namespace,
            visibility=visibility,
        )


def check_composable(modules: Sequence[dict[str, Any]], form: str) -> None:
    seen = set()
    for module in modules:
        place = (module["commit"], module["folder"])
        if place in seen:
            raise IncompatibleModules(f"{module['repo']} is chosen twice; every module may take part once.")
        seen.add(place)
        odd = [flag for flag in module["facts"]["flags"] if flag in NOT_PLAIN]
        if odd:
            raise IncompatibleModules(
                f"{module['repo']} uses {odd[0]}, which a weighted sum of A and B cannot express; leave it out."
            )
    if form == "product":
        _check_equal_ranks(modules)


def _check_equal_ranks(modules: Sequence[dict[str, Any]]) -> None:
    first: dict[str, tuple[str, int]] = {}
    for module in modules:
        for layer, (_, _, rank) in module["facts"]["shapes"].items():
            name, other = first.setdefault(layer, (module["repo"], rank))
            if rank != other:
                raise IncompatibleModules(
                    f"{name} has rank {other} at {layer} and {module['repo']} has rank {rank}: "
                    "the product form adds the matrices themselves and needs equal ranks; use form `sum`."
                )
