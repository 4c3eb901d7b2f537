"""LoraHub (arXiv 2307.13269): weigh existing modules for a new task by a search that needs no gradient of the weights.

What a composition is at given weights stands in `hub.lora.compose.forms`; the search that uses gradients in `hub.lora.compose.gradient`.

The objective is the released code's, loss + l1 * mean |w_i|, where the paper writes alpha * sum |w_i|: divided by N, `l1` means the same
for any number of modules. The loss is the mean over target tokens; the released code divides that once more by the number of
examples (at its published batch size of 5 it is a fifth of the cross-entropy), which would tie `l1` to the batch size.
"""

import difflib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import nevergrad
import numpy
import torch
from torch import Tensor

from hub.lora.compose.forms import IncompatibleModules, Mixture, mixed, truncated
from hub.lora.compose.population import mean_losses
from hub.lora.core.adapter import Adapter, applied, layers_of
from hub.lora.core.bases import Base
from hub.lora.core.errors import LoraError
from hub.lora.core.examples import Example, OnProgress
from hub.lora.core.losses import encoded, mean_loss
from hub.vocabulary import Form

# What the optimiser is told of a point whose loss is not finite: far above any cross-entropy, and finite, as an infinity would end up
# in its model of the objective.
_REJECTED = 1e6

LossesAt = Callable[[Sequence[Sequence[float]]], Sequence[float]]


class UnknownOptimizer(LoraError):
    code = "unknown_optimizer"


class OptimizerFailed(LoraError):
    code = "optimizer_failed"


class NoFiniteLoss(LoraError):
    code = "no_finite_loss"


@dataclass(frozen=True)
class Evaluation:
    """One point that the search asked for. None stands for a number that is not finite, `best` is the least objective up to here,
    `cached` says that the same weights had been evaluated before and cost nothing."""

    step: int
    weights: tuple[float, ...]
    objective: float | None
    loss: float | None
    best: float | None
    cached: bool


@dataclass(frozen=True)
class Composition:
    """The adapter at the evaluated weights with the least objective; `evaluations` counts the passes over the examples.

    With weights by layer, `weights` has their means and `by_layer` all of them. Of the form "svd", `truncation_error` is what the cut
    lost, |delta - cut| / |delta| in the Frobenius norm over all layers; objective and loss are those before the cut.
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
    """The points evaluated so far and the best of them. `patience` is how many of them without a new best end a search."""

    l1: float
    evaluations: list[Evaluation] = field(default_factory=list)
    objective: float = math.inf
    loss: float = math.inf
    weights: Tensor | None = None
    best_step: int = 0

    def add(self, weights: Tensor, loss: float, *, cached: bool = False) -> float:
        """Keep the point `weights`, (modules,) or (modules, layers); returns its objective."""
        objective = loss + self.l1 * float(weights.abs().mean())
        step = len(self.evaluations) + 1
        if objective < self.objective:
            self.objective, self.loss, self.weights, self.best_step = objective, loss, weights.clone(), step
        means = weights if weights.ndim == 1 else weights.mean(1)
        objective_, loss_, best = (n if math.isfinite(n) else None for n in (objective, loss, self.objective))
        self.evaluations.append(Evaluation(step, tuple(means.tolist()), objective_, loss_, best, cached))
        return objective

    def numbers(self) -> dict[str, float]:
        last = self.evaluations[-1]
        named = {"objective": last.objective, "loss": last.loss, "best": last.best}
        return {name: number for name, number in named.items() if number is not None}

    def is_over(self, *, patience: int | None, seconds: float | None, started: float) -> bool:
        """Whether so many points brought no new best, or the time is used up; not before the first point."""
        if not self.evaluations:
            return False
        stale = len(self.evaluations) - self.best_step
        late = seconds is not None and time.perf_counter() - started >= seconds
        return late or (patience is not None and stale >= patience)


def compose(
    base: Base,
    modules: Sequence[Adapter],
    examples: Sequence[Example],
    *,
    form: Form,
    template: str,
    optimizer: str = "NGOpt",
    budget: int = 40,
    population: int = 1,
    patience: int | None = None,
    seconds: float | None = None,
    bound: float = 1.5,
    l1: float = 0.05,
    rank: int | None = None,
    seed: int = 0,
    on_progress: OnProgress,
) -> Composition:
    """Search weights in [-bound, bound] for `modules` on a few examples, starting from zero, in `budget` evaluations.

    The defaults are the released call's: nevergrad's NGOpt, which for such budgets is COBYLA, whatever the paper says of CMA-ES; it
    is sequential and deterministic, so `seed` acts only with optimisers that draw. Any name in nevergrad's registry will do.
    `population` points are asked for and evaluated together, where the optimiser can. `patience` evaluations without a new best, or
    `seconds`, end the search before its budget. `rank` is that of the form "svd", the largest of the modules' if it is left out.

    Raises IncompatibleModules, WrongBase, UnknownOptimizer, OptimizerFailed, or NoFiniteLoss when no point had a finite
    loss. Whatever `on_progress(step, budget, {objective, loss, best})` raises ends the search, with the base as it was.
    """
    started = time.perf_counter()
    for module in modules:
        layers_of(base.model, module)
    mixture = Mixture(modules, form, base.device)
    batches = encoded(base, examples, template)
    search = _optimizer(optimizer, len(modules), budget, population, bound, seed)

    def losses_at(points: Sequence[Sequence[float]]) -> Sequence[float]:
        if len(points) > 1:
            return mean_losses(base, mixture, points, batches)
        with applied(base.model, Adapter("composition", {}, mixture.pairs(points[0]))):
            return [mean_loss(base, batches)]

    def is_over(trace: Trace) -> bool:
        return trace.is_over(patience=patience, seconds=seconds, started=started)

    trace = _searched(search, losses_at, budget, population, l1, is_over, on_progress)
    return composed(
        base,
        modules,
        trace,
        started=started,
        rank=rank,
        settings={
            "search": "nevergrad",
            "form": form,
            "template": template,
            "optimizer": optimizer,
            "resolved_optimizer": getattr(search, "optim", search).name,  # what NGOpt chose
            "budget": budget,
            "population": population,
            "patience": patience,
            "seconds": seconds,
            "bound": bound,
            "l1": l1,
            "seed": seed,
            "examples": len(examples),
        },
    )


def weighed(
    base: Base, modules: Sequence[Adapter], weights: Sequence[float], *, form: Form, rank: int | None = None
) -> Composition:
    """The modules at given weights, one each: no search, no examples. Raises IncompatibleModules or WrongBase."""
    started = time.perf_counter()
    if len(weights) != len(modules):
        raise IncompatibleModules(f"There are {len(modules)} modules and {len(weights)} weights; give one a module.")
    for module in modules:
        layers_of(base.model, module)
    return _finished(
        base,
        modules,
        torch.tensor(weights),
        Trace(l1=0.0),
        started=started,
        rank=rank,
        settings={"search": "none", "form": form},
    )


def composed(
    base: Base,
    modules: Sequence[Adapter],
    trace: Trace,
    *,
    started: float,
    rank: int | None,
    settings: dict[str, Any],
) -> Composition:
    """What a search found, as an adapter. Raises NoFiniteLoss if it found nothing."""
    if trace.weights is None:
        raise NoFiniteLoss(
            f"None of {len(trace.evaluations)} combinations of {len(modules)} modules gave a finite loss. Evaluate the modules one by one."
        )
    return _finished(base, modules, trace.weights, trace, started=started, rank=rank, settings=settings)


def _finished(
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
    adapter, error = mixed(base, modules, weights, form, "composition"), None
    if form == "svd":
        rank = rank or max(pair.rank for module in modules for pair in module.pairs.values())
        cut = truncated(adapter, rank)
        adapter, error, settings = cut.adapter, cut.error, settings | {"rank": rank}
    by_layer = None
    if weights.ndim == 2:
        layers = Mixture(modules, form, torch.device("cpu")).layers
        rows = weights.tolist()
        by_layer = {name: dict(zip(layers, row, strict=True)) for name, row in zip(names, rows, strict=True)}
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
        by_layer=by_layer,
    )


def _optimizer(name: str, dimension: int, budget: int, population: int, bound: float, seed: int) -> Any:
    if name not in nevergrad.optimizers.registry:
        close = difflib.get_close_matches(name, list(nevergrad.optimizers.registry), n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(close)}?" if close else " NGOpt is the default."
        raise UnknownOptimizer(f"nevergrad has no optimiser named {name!r}.{hint}")
    if population > 1 and nevergrad.optimizers.registry[name].no_parallelization:
        raise OptimizerFailed(
            f"nevergrad's {name} asks for one point after the other; give it a population of 1, or try 'CMA'."
        )
    point = nevergrad.p.Array(init=numpy.zeros(dimension), lower=-bound, upper=bound)
    point.random_state = numpy.random.RandomState(seed)
    with _failure_named(name):
        return nevergrad.optimizers.registry[name](parametrization=point, budget=budget, num_workers=population)


@contextmanager
def _failure_named(name: str) -> Iterator[None]:
    # Several of nevergrad's optimisers need packages of their own, and its MetaModel (NGOpt's choice for budgets of about 50 a module
    # and more) breaks with NumPy 2.4 ("only 0-dimensional arrays can be converted").
    try:
        yield
    except (ArithmeticError, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise OptimizerFailed(f"nevergrad's {name} failed ({error}). Try 'Cobyla' or 'CMA'.") from error


def _searched(
    search: Any,
    losses_at: LossesAt,
    budget: int,
    population: int,
    l1: float,
    is_over: Callable[[Trace], bool],
    on_progress: OnProgress,
) -> Trace:
    trace = Trace(l1)
    losses: dict[bytes, float] = {}
    with warnings.catch_warnings():
        # nevergrad asks scipy's COBYLA for the tolerance 0, and for the last few evaluations; scipy corrects both aloud.
        warnings.filterwarnings("ignore", message="COBYLA: Invalid ", category=UserWarning)
        # One that has ended goes on with random points, or raises after this warning if it ended by an error.
        warnings.filterwarnings("ignore", category=nevergrad.errors.FinishedUnderlyingOptimizerWarning)
        while len(trace.evaluations) < budget and not is_over(trace):
            with _failure_named(search.name):
                asked = [search.ask() for _ in range(min(population, budget - len(trace.evaluations)))]
            new = {each.value.tobytes(): each.value.tolist() for each in asked if each.value.tobytes() not in losses}
            if new:
                losses |= dict(zip(new, losses_at(list(new.values())), strict=True))
            for candidate in asked:
                key = candidate.value.tobytes()
                objective = trace.add(torch.tensor(candidate.value), losses[key], cached=key not in new)
                new.pop(key, None)  # asked for twice in one population, it is evaluated once
                with _failure_named(search.name):
                    search.tell(candidate, min(objective, _REJECTED) if math.isfinite(objective) else _REJECTED)
                on_progress(len(trace.evaluations), budget, trace.numbers())
    return trace
