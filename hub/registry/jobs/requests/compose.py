"""The kind `compose`: LoraHub."""

import random
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self, get_args

from pydantic import ConfigDict, Field, model_validator
from sqlalchemy.orm import Session

from hub.registry.access.viewer import Viewer
from hub.registry.content import repos
from hub.registry.datasets.examples import Examples, Strict
from hub.registry.inspection.facts import NOT_PLAIN
from hub.registry.jobs.contracts.compose import ComposeParams, Tune
from hub.registry.jobs.queueing import Submission
from hub.registry.jobs.requests.common import (
    Adapter,
    IncompatibleModules,
    Module,
    ResultRequest,
    check_plain,
    common_template,
    inputs,
    pin_module,
    pin_optional,
    resolve_base,
)
from hub.vocabulary import Controls, Form, Merge, SearchMethod, Template

SEARCHED: tuple[str, ...] = get_args(Form)
ON_FACTORS = ("product", *(merge for merge in get_args(Merge) if not merge.endswith("_svd")))


OWN = {"base", "modules", "examples", "held_out", "budget", "tune", "template"}  # fields that params have otherwise


class Candidates(Strict):
    """Adapters to choose from: all plain ones of the namespaces that the viewer may see, `pool` of them at random if there are more."""

    model_config = ConfigDict(populate_by_name=True)

    namespaces: list[str] = Field(alias="from", min_length=1, max_length=50)
    k: int = Field(20, ge=1, le=100, description="how many take part")
    by: Literal["loss", "random"] = Field("loss", description="on the examples, each adapter alone; or at random")
    pool: int = Field(200, ge=1, le=500, description="how many are tried, drawn at random if there are more")


class ComposeRequest(ResultRequest):
    """LoraHub: find weights for existing adapters from a handful of examples (arXiv 2307.13269), or merge them at given ones."""

    kind: Literal["compose"]
    modules: Annotated[list[Module], Field(min_length=1, max_length=100)] | Candidates
    examples: Examples | None = Field(None, description="what the weights are searched on; needed for any search")
    held_out: Examples | None = Field(None, description="what the report measures on; at least 100 for a claim")
    base: str | None = Field(None, description="left out: the base on which the adapters agree")
    form: Form | Merge = Field(
        "sum",
        description="how adapters are added: sum of updates, product of factors or svd can be searched, the others need weights",
    )
    search: SearchMethod = Field(
        "gradient",
        description="how weights are found: by gradient, by nevergrad without gradients as in the paper, or none are searched",
    )
    weights: list[float] | None = Field(None, description="one for each adapter, with search none")
    optimizer: str = Field("NGOpt", max_length=60, description="with search nevergrad: the name of its optimiser")
    per_layer: bool = Field(False, description="with search gradient: a weight for each adapter and layer")
    budget: int | None = Field(
        None, ge=1, le=5_000, description="evaluations of the loss; left out: 10 with gradients, 40 without"
    )
    population: int = Field(1, ge=1, le=256, description="with search nevergrad: points evaluated in one pass")
    patience: int | None = Field(None, ge=1, description="evaluations without a new best after which the search ends")
    seconds: float | None = Field(None, gt=0, le=86_400, description="after which the search ends")
    bound: float = Field(1.5, gt=0, le=100, description="weights lie in [-bound, bound]")
    l1: float = Field(0.05, ge=0, le=100, description="times the mean absolute weight, added to the loss")
    rank: int | None = Field(None, ge=1, le=1_024, description="of a form that is cut; left out: the adapters' largest")
    density: float = Field(0.5, gt=0, lt=1, description="share of entries that ties, dare and magnitude_prune keep")
    tune: Tune | None = Field(Tune(), description="null for the composition alone, as with search none")
    controls: Controls = Field("quick", description="what the report sets beside the composition")
    seed: int = Field(0, ge=0, lt=2**32, description="of every draw: the same request gives the same result")
    template: Template | None = Field(None, description="left out: the one the adapters were trained with, else chat")

    @model_validator(mode="after")
    def weights_fit_search(self) -> "ComposeRequest":
        if self.search == "none":
            if isinstance(self.modules, Candidates):
                raise ValueError("given weights need given adapters; name them")
            if self.weights is None or len(self.weights) != len(self.modules):
                count = 0 if self.weights is None else len(self.weights)
                raise ValueError(f"search none needs a weight for each adapter: {len(self.modules)}, not {count}")
        elif self.weights is not None:
            raise ValueError("a search finds the weights itself; leave them out, or choose search none")
        elif self.form not in SEARCHED:
            raise ValueError(f"the form {self.form} cannot be searched; give weights and search none")
        elif self.examples is None:
            raise ValueError("a search needs examples")
        return self

    @model_validator(mode="after")
    def options_fit_search(self) -> "ComposeRequest":
        if "tune" in self.model_fields_set and self.tune and self.examples is None:
            raise ValueError("tuning needs examples")
        if "optimizer" in self.model_fields_set and self.search != "nevergrad":
            raise ValueError("only search nevergrad has an optimizer; choose that, or leave the optimizer out")
        if self.per_layer and self.search != "gradient":
            raise ValueError("only search gradient finds weights by layer")
        if self.population > 1 and self.search != "nevergrad":
            raise ValueError("only search nevergrad evaluates a population")
        return self

    def named_modules(self) -> Sequence[Module]:
        return [] if isinstance(self.modules, Candidates) else self.modules

    def pin_modules(self, session: Session, viewer: Viewer) -> Sequence[Adapter]:
        if isinstance(self.modules, Candidates):
            return pin_candidates(session, viewer, self.modules, self.base, self.seed)
        return super().pin_modules(session, viewer)

    def sources(self) -> Mapping[str, Examples]:
        named = {"examples.jsonl": self.examples, "held_out.jsonl": self.held_out}
        return {name: source for name, source in named.items() if source}

    def with_sources(self, sources: Mapping[str, Examples]) -> Self:
        return self.model_copy(
            update={"examples": sources.get("examples.jsonl"), "held_out": sources.get("held_out.jsonl")}
        )

    def resolve(self, session: Session, viewer: Viewer, modules: Sequence[Adapter]) -> Submission:
        base = resolve_base(session, modules, self.base)
        check_composable(modules, self.form)
        examples, held_out = (pin_optional(session, viewer, source) for source in (self.examples, self.held_out))
        needed = inputs(modules, examples, held_out)
        namespace, visibility = self.target(session, viewer, [item.commit_id for item in needed])
        params = ComposeParams(
            **self.model_dump(include=set(ComposeParams.model_fields) - OWN),
            result=self.name,
            base=base,
            modules=[module.pinned for module in modules],
            choose=self.modules.k if isinstance(self.modules, Candidates) and self.modules.by == "loss" else None,
            examples=examples,
            held_out=held_out,
            budget=self.budget or (10 if self.search == "gradient" else 40),
            tune=self.tune if self.search != "none" or "tune" in self.model_fields_set else None,
            template=self.template or common_template(modules),
        )
        return Submission(self.kind, "gpu", params, needed, namespace, visibility)


def pin_candidates(
    session: Session, viewer: Viewer, candidates: Candidates, base: str | None, seed: int
) -> list[Adapter]:
    """The pool that a worker chooses from, or a random choice of `k`. Only plain LoRA adapters are candidates."""
    rows = repos.current_adapters(session, viewer, candidates.namespaces, base)
    plain = [
        Module(repo=repo, revision=facts.commit_id, folder=facts.folder)
        for repo, facts in rows
        if not any(flag in NOT_PLAIN for flag in facts.facts["flags"])
    ]
    if not plain:
        where = " or ".join(candidates.namespaces)
        raise IncompatibleModules(
            f"No adapter in {where} can take part{f' on {base}' if base else ''}: there is none that you may see, is "
            "plain LoRA and is for a base registered here."
        )
    count = candidates.pool if candidates.by == "loss" else candidates.k
    drawn = random.Random(seed).sample(plain, min(count, len(plain)))  # noqa: S311
    return [pin_module(session, viewer, module) for module in sorted(drawn, key=lambda module: module.repo)]


def check_composable(modules: Sequence[Adapter], form: str) -> None:
    seen = set()
    for module in modules:
        place = (module.pinned.commit, module.pinned.folder)
        if place in seen:
            raise IncompatibleModules(f"{module.repo} is chosen twice; every adapter may take part once.")
        seen.add(place)
        check_plain(module)
    if form in ON_FACTORS:
        _check_equal_ranks(modules, form)


def _check_equal_ranks(modules: Sequence[Adapter], form: str) -> None:
    first: dict[str, tuple[str, int]] = {}
    for module in modules:
        for layer, (_, _, rank) in module.shapes.items():
            name, other = first.setdefault(layer, (module.repo, rank))
            if rank != other:
                raise IncompatibleModules(
                    f"{name} has rank {other} at {layer} and {module.repo} has rank {rank}: "
                    f"the form {form} adds the matrices themselves and needs equal ranks; use form `sum`."
                )
