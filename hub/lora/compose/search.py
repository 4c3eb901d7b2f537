"""LoraHub (arXiv 2307.13269): weigh existing modules for a new task by a search that needs no gradient of the weights.

The adapter at given weights is `hub.lora.compose.forms`; the search by gradients is `hub.lora.compose.gradient`.

The objective is the released code's, loss + l1 * mean |w_i|, where the paper writes alpha * sum |w_i|: divided by N, `l1` means the same
for any number of modules. The loss is the mean over target tokens. The released code divides that once more by the number of
examples (at its published batch size of 5 it is a fifth of the cross-entropy), which would tie `l1` to the batch size.
"""

import difflib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import nevergrad
import numpy
import torch

from hub.lora.compose.composition import Composition, Trace, best_composition, check_base
from hub.lora.compose.forms import Mixture
from hub.lora.compose.population import mean_losses
from hub.lora.core.adapter import Adapter, applied
from hub.lora.core.bases import Base
from hub.lora.core.errors import LoraError
from hub.lora.core.examples import Example, OnProgress
from hub.lora.core.losses import encode_batches, mean_loss
from hub.vocabulary import Form

# The objective reported to the optimiser for a loss that is not finite: far above any cross-entropy, and finite, as an infinity would
# end up in its model of the objective.
_REJECTED = 1e6

LossesAt = Callable[[Sequence[Sequence[float]]], Sequence[float]]


class UnknownOptimizer(LoraError):
    code = "unknown_optimizer"


class OptimizerFailed(LoraError):
    code = "optimizer_failed"


@dataclass(frozen=True)
class Search:
    """Everything that decides a search besides base, modules and examples: weights in [-bound, bound], starting from zero.

    The defaults are the released call's: nevergrad's NGOpt, which for such budgets is COBYLA, whatever the paper says of CMA-ES. It
    is sequential and deterministic, so `seed` only matters for optimisers that draw. Any name in nevergrad's registry is accepted.
    `budget` counts evaluations. `population` points are requested and evaluated together, where the optimiser can. `patience`
    evaluations without a new best, or `seconds`, end the search early. `rank` is that of the form "svd", by default the modules' largest.
    """

    form: Form
    template: str
    optimizer: str = "NGOpt"
    budget: int = 40
    population: int = 1
    patience: int | None = None
    seconds: float | None = None
    bound: float = 1.5
    l1: float = 0.05
    rank: int | None = None
    seed: int = 0


def compose(
    base: Base,
    modules: Sequence[Adapter],
    examples: Sequence[Example],
    search: Search,
    *,
    on_progress: OnProgress,
) -> Composition:
    """Search weights for `modules` on a few examples.

    Raises IncompatibleModules, WrongBase, UnknownOptimizer, OptimizerFailed, or NoFiniteLoss when no point had a finite
    loss. An exception of `on_progress(step, budget, {objective, loss, best})` ends the search and leaves the base as it was.
    """
    started = time.perf_counter()
    check_base(base, modules)
    mixture = Mixture(modules, search.form, base.device)
    batches = encode_batches(base, examples, search.template)
    optimizer = _optimizer(search, len(modules))

    def losses_at(points: Sequence[Sequence[float]]) -> Sequence[float]:
        if len(points) > 1:
            return mean_losses(base, mixture, points, batches)
        with applied(base.model, Adapter("composition", {}, mixture.pairs(points[0]))):
            return [mean_loss(base, batches)]

    trace = _minimize(optimizer, search, losses_at, started, on_progress)
    settings = _settings(search, getattr(optimizer, "optim", optimizer).name, len(examples))
    return best_composition(base, modules, trace, started=started, rank=search.rank, settings=settings)


def _settings(search: Search, resolved_optimizer: str, examples: int) -> dict[str, object]:
    """The search as a manifest records it; `resolved_optimizer` is what NGOpt chose."""
    settings = asdict(search)
    del settings["rank"]  # the rank that was used is recorded where there is one
    first = {name: settings.pop(name) for name in ("form", "template", "optimizer")}
    return {
        "search": "nevergrad",
        **first,
        "resolved_optimizer": resolved_optimizer,
        **settings,
        "examples": examples,
    }


def _optimizer(search: Search, dimension: int) -> Any:
    name = search.optimizer
    if name not in nevergrad.optimizers.registry:
        close = difflib.get_close_matches(name, list(nevergrad.optimizers.registry), n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(close)}?" if close else " NGOpt is the default."
        raise UnknownOptimizer(f"nevergrad has no optimiser named {name!r}.{hint}")
    if search.population > 1 and nevergrad.optimizers.registry[name].no_parallelization:
        raise OptimizerFailed(
            f"nevergrad's {name} asks for one point after the other; give it a population of 1, or try 'CMA'."
        )
    point = nevergrad.p.Array(init=numpy.zeros(dimension), lower=-search.bound, upper=search.bound)
    point.random_state = numpy.random.RandomState(search.seed)
    with _translate_failure(name):
        return nevergrad.optimizers.registry[name](
            parametrization=point, budget=search.budget, num_workers=search.population
        )


@contextmanager
def _translate_failure(name: str) -> Iterator[None]:
    # Several of nevergrad's optimisers need packages of their own, and its MetaModel (NGOpt's choice for budgets of about 50 a module
    # and more) breaks with NumPy 2.4 ("only 0-dimensional arrays can be converted").
    try:
        yield
    except (ArithmeticError, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise OptimizerFailed(f"nevergrad's {name} failed ({error}). Try 'Cobyla' or 'CMA'.") from error


def _minimize(optimizer: Any, search: Search, losses_at: LossesAt, started: float, on_progress: OnProgress) -> Trace:
    trace = Trace(search.l1)
    losses: dict[bytes, float] = {}
    with warnings.catch_warnings():
        # nevergrad calls scipy's COBYLA with the tolerance 0, and for the last few evaluations; scipy corrects both with a warning.
        warnings.filterwarnings("ignore", message="COBYLA: Invalid ", category=UserWarning)
        # An optimiser that has finished goes on with random points, or raises after this warning if it failed.
        warnings.filterwarnings("ignore", category=nevergrad.errors.FinishedUnderlyingOptimizerWarning)
        while len(trace.evaluations) < search.budget and not trace.is_over(
            patience=search.patience, seconds=search.seconds, started=started
        ):
            count = min(search.population, search.budget - len(trace.evaluations))
            with _translate_failure(optimizer.name):
                candidates = [optimizer.ask() for _ in range(count)]
            points = {candidate.value.tobytes(): candidate.value.tolist() for candidate in candidates}
            new = {key: point for key, point in points.items() if key not in losses}
            if new:
                losses |= dict(zip(new, losses_at(list(new.values())), strict=True))
            for candidate in candidates:
                key = candidate.value.tobytes()
                objective = trace.add(torch.tensor(candidate.value), losses[key], cached=key not in new)
                new.pop(key, None)  # a point that occurs twice in one population is evaluated once
                with _translate_failure(optimizer.name):
                    optimizer.tell(candidate, min(objective, _REJECTED) if math.isfinite(objective) else _REJECTED)
                on_progress(len(trace.evaluations), search.budget, trace.numbers())
    return trace
