"""The result of a composition, and the record of the search that found its weights."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hub.lora.compose.forms import IncompatibleModules, Mixture, mix, truncate
from hub.lora.core.adapter import Adapter, largest_rank, layers_of
from hub.lora.core.bases import Base
from hub.lora.core.errors import LoraError
from hub.vocabulary import Form


class NoFiniteLoss(LoraError):
    code = "no_finite_loss"


@dataclass(frozen=True)
class Evaluation:
    """One point of a search. None stands for a number that is not finite; `best` is the lowest objective so far.

    `cached` means that the same weights had been evaluated before and cost nothing.
    """

    step: int
    weights: tuple[float, ...]
    objective: float | None
    loss: float | None
    best: float | None
    cached: bool


@dataclass(frozen=True)
class Composition:
    """The adapter at the evaluated weights with the lowest objective; `evaluations` counts the passes over the examples.

    With weights per layer, `weights` has their means and `by_layer` all of them. For the form "svd", `truncation_error` is the loss of
    the truncation, |delta - truncated| / |delta| in the Frobenius norm over all layers; objective and loss are those before it.
    """

    adapter: Adapter
    weights: dict[str, float]
    objective: float | None
    loss: float | None
    trace: list[Evaluation]
    evaluations: int
    seconds: float
    settings: dict[str, Any]
    truncation_error: float | None = None
    by_layer: dict[str, dict[str, float]] | None = None


@dataclass
class Trace:
    """The points evaluated so far, and the best of them."""

    l1: float
    evaluations: list[Evaluation] = field(default_factory=list)
    objective: float = math.inf
    loss: float = math.inf
    weights: Tensor | None = None
    best_step: int = 0

    def add(self, weights: Tensor, loss: float, *, cached: bool = False) -> float:
        """Record the point `weights`, (modules,) or (modules, layers), and return its objective."""
        objective = loss + self.l1 * float(weights.abs().mean())
        step = len(self.evaluations) + 1
        if objective < self.objective:
            self.objective, self.loss, self.weights, self.best_step = objective, loss, weights.clone(), step
        means = weights if weights.ndim == 1 else weights.mean(1)
        self.evaluations.append(
            Evaluation(
                step=step,
                weights=tuple(means.tolist()),
                objective=_finite_or_none(objective),
                loss=_finite_or_none(loss),
                best=_finite_or_none(self.objective),
                cached=cached,
            )
        )
        return objective

    def numbers(self) -> dict[str, float]:
        """The finite ones of objective, loss and best, of the last point."""
        last = self.evaluations[-1]
        numbers = {"objective": last.objective, "loss": last.loss, "best": last.best}
        return {name: number for name, number in numbers.items() if number is not None}

    def is_over(self, *, patience: int | None, seconds: float | None, started: float) -> bool:
        """Whether `patience` points brought no new best, or `seconds` have passed; never before the first point."""
        if not self.evaluations:
            return False
        stale = len(self.evaluations) - self.best_step
        late = seconds is not None and time.perf_counter() - started >= seconds
        return late or (patience is not None and stale >= patience)


def _finite_or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None


def check_base(base: Base, modules: Sequence[Adapter]) -> None:
    """Raise WrongBase or UnsupportedAdapter unless every module fits the base."""
    for module in modules:
        layers_of(base.model, module)


def compose_at_weights(
    base: Base, modules: Sequence[Adapter], weights: Sequence[float], *, form: Form, rank: int | None = None
) -> Composition:
    """The modules at given weights, one per module: no search, no examples. Raises IncompatibleModules or WrongBase."""
    started = time.perf_counter()
    check_weight_count(modules, weights)
    check_base(base, modules)
    settings = {"search": "none", "form": form}
    return _assemble(base, modules, torch.tensor(weights), Trace(l1=0.0), started=started, rank=rank, settings=settings)


def check_weight_count(modules: Sequence[Adapter], weights: Sequence[float]) -> None:
    if len(weights) != len(modules):
        raise IncompatibleModules(
            f"There are {len(modules)} adapters and {len(weights)} weights; give one for each adapter."
        )


def best_composition(
    base: Base,
    modules: Sequence[Adapter],
    trace: Trace,
    *,
    started: float,
    rank: int | None,
    settings: dict[str, Any],
) -> Composition:
    """The best point of a search as an adapter. Raises NoFiniteLoss if no point had a finite loss."""
    if trace.weights is None:
        raise NoFiniteLoss(
            f"None of {len(trace.evaluations)} combinations of {len(modules)} adapters gave a finite loss. Evaluate them one by one."
        )
    return _assemble(base, modules, trace.weights, trace, started=started, rank=rank, settings=settings)


def _assemble(
    base: Base,
    modules: Sequence[Adapter],
    weights: Tensor,
    trace: Trace,
    *,
    started: float,
    rank: int | None,
    settings: dict[str, Any],
) -> Composition:
    form: Form = settings["form"]
    names = [module.name for module in modules]
    adapter, error = mix(base, modules, weights, form, "composition"), None
    if form == "svd":
        rank = rank or largest_rank(modules)
        truncated = truncate(adapter, rank)
        adapter, error, settings = truncated.adapter, truncated.error, settings | {"rank": rank}
    means = weights if weights.ndim == 1 else weights.mean(1)
    return Composition(
        adapter=adapter,
        weights=dict(zip(names, means.tolist(), strict=True)),
        objective=trace.objective if trace.evaluations else None,
        loss=trace.loss if trace.evaluations else None,
        trace=trace.evaluations,
        evaluations=sum(not evaluation.cached for evaluation in trace.evaluations),
        seconds=time.perf_counter() - started,
        settings=settings,
        truncation_error=error,
        by_layer=_by_layer(modules, form, weights) if weights.ndim == 2 else None,
    )


def _by_layer(modules: Sequence[Adapter], form: Form, weights: Tensor) -> dict[str, dict[str, float]]:
    """Module -> layer -> weight, from weights (modules, layers)."""
    layers = Mixture(modules, form, torch.device("cpu")).layers
    names = [module.name for module in modules]
    return {name: dict(zip(layers, row, strict=True)) for name, row in zip(names, weights.tolist(), strict=True)}
