"""LoraHub (arXiv 2307.13269): weigh existing modules for a new task by a search that needs no gradient of the weights.

For modules i with pairs A_i (r_i, in), B_i (out, r_i) and scaling s_i, and weights w, per layer:
- form "product", the paper's (section 2.1): delta = (sum_i w_i s_i B_i)(sum_i w_i A_i). It keeps the rank, needs equal ranks, holds
  the cross terms w_i w_j B_i A_j, is even in w, and shrinks with w squared. Reference: sail-sg/lorahub, lorahub/algorithm.py,
  get_final_weights, which sums the raw matrices; with s_i folded into B_i unequal scalings come out right as well.
- form "sum": delta = sum_i w_i s_i B_i A_i, exactly, by concatenation: rows of A, columns of B. Ranks add up and may differ.

The objective is the released code's, loss + l1 * mean |w_i|, where the paper writes alpha * sum |w_i|: divided by N, `l1` means the same
for any number of modules. The loss is the mean over target tokens; the released code divides that once more by the number of
examples (at its published batch size of 5 it is a fifth of the cross-entropy), which would tie `l1` to the batch size.
"""

import difflib
import math
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import nevergrad
import numpy
import torch
from torch import Tensor, nn

from hub.lora.adapter import Adapter, Pair, UnsupportedAdapter, applied, layers_of
from hub.lora.bases import Base
from hub.lora.errors import LoraError
from hub.lora.examples import IGNORED, Batch, Example, OnProgress, encode, target_loss

Form = Literal["sum", "product"]

BATCH_SIZE = 16  # examples per forward pass

# What the optimiser is told of a point whose loss is not finite: far above any cross-entropy, and finite, as an infinity would end up
# in its model of the objective.
_REJECTED = 1e6


class IncompatibleModules(LoraError):
    code = "incompatible_modules"


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
class _Point:
    objective: float
    loss: float
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Composition:
    """The adapter at the evaluated weights with the least objective; `evaluations` counts the forward passes over the examples."""

    adapter: Adapter
    weights: dict[str, float]
    objective: float
    loss: float
    trace: list[Evaluation]
    evaluations: int
    seconds: float
    settings: dict[str, Any]


@dataclass(frozen=True)
class _Stack:
    """One layer of all modules: a (R, in), b (out, R) with the scalings folded in, owner (R,) the module each rank belongs to."""

    a: Tensor
    b: Tensor
    owner: Tensor
    modules: int  # how many modules adapt this layer


class Mixture:
    """All modules as one adapter with a knob each: stacked once, so that new weights cost one scaling of the columns of B."""

    def __init__(self, modules: Sequence[Adapter], form: Form, device: torch.device) -> None:
        _check_compatible(modules, form)
        self.form = form
        paths = sorted({path for module in modules for path in module.pairs})
        self._stacks = {path: _stacked(modules, path, device) for path in paths}

    def pairs(self, weights: Sequence[float]) -> dict[str, Pair]:
        """The layers' pairs at these weights (one per module), float32, scaling 1."""
        vector = torch.tensor(weights, dtype=torch.float32)
        return {path: self._pair(stack, vector.to(stack.b.device)) for path, stack in self._stacks.items()}

    def _pair(self, stack: _Stack, weights: Tensor) -> Pair:
        knobs = weights[stack.owner]
        if self.form == "sum":
            return Pair(stack.a, stack.b * knobs, 1.0)
        a = (stack.a * knobs[:, None]).reshape(stack.modules, -1, stack.a.shape[1]).sum(0)
        b = (stack.b * knobs).reshape(len(stack.b), stack.modules, -1).sum(1)
        return Pair(a, b, 1.0)


def _stacked(modules: Sequence[Adapter], path: str, device: torch.device) -> _Stack:
    members = [(index, module.pairs[path]) for index, module in enumerate(modules) if path in module.pairs]
    return _Stack(
        a=torch.cat([pair.a.to(device, torch.float32) for _, pair in members]),
        b=torch.cat([pair.b.to(device, torch.float32) * pair.scaling for _, pair in members], dim=1),
        owner=torch.tensor([index for index, pair in members for _ in range(pair.rank)], device=device),
        modules=len(members),
    )


def _check_compatible(modules: Sequence[Adapter], form: Form) -> None:
    if not modules:
        raise IncompatibleModules("There is no module to compose. Choose at least one.")
    names = [module.name for module in modules]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise IncompatibleModules(f"{twice} is chosen twice; every module may take part once.")
    first: dict[str, tuple[str, Pair]] = {}
    for module in modules:
        for path, pair in module.pairs.items():
            if pair.magnitude is not None:
                raise UnsupportedAdapter(
                    f"{module.name}: it uses DoRA, whose magnitudes no weighted sum of low-rank pairs can express. Leave it out."
                )
            other, reference = first.setdefault(path, (module.name, pair))
            if (pair.a.shape[1], pair.b.shape[0]) != (reference.a.shape[1], reference.b.shape[0]):
                raise IncompatibleModules(
                    f"{other} and {module.name} adapt {path} in different shapes, {reference.b.shape[0]} x {reference.a.shape[1]} and "
                    f"{pair.b.shape[0]} x {pair.a.shape[1]}: they belong to different bases."
                )
            if form == "product" and pair.rank != reference.rank:
                raise IncompatibleModules(
                    f"{other} has rank {reference.rank} at {path} and {module.name} has rank {pair.rank}: the form 'product' adds the "
                    "matrices themselves and needs equal ranks. Use the form 'sum'."
                )


def mixed(base: Base, modules: Sequence[Adapter], weights: Sequence[float], form: Form, name: str) -> Adapter:
    """The modules at fixed weights as one adapter, ready to write: float32, alpha = rank, scalings folded in.

    A module of weight zero is left out, which changes nothing in either form and spares its rank in "sum".
    """
    weighed = [(module, weight) for module, weight in zip(modules, weights, strict=True) if weight] or [
        (modules[0], 0.0)
    ]
    kept = [module for module, _ in weighed]
    pairs = Mixture(kept, form, torch.device("cpu")).pairs([weight for _, weight in weighed])
    config: dict[str, Any] = {"target_modules": target_names(base.model, pairs)}
    for field in ("auto_mapping", "base_model_name_or_path", "fan_in_fan_out", "revision", "task_type"):
        config[field] = modules[0].config.get(field)
    return Adapter(name, config, pairs)


def target_names(model: nn.Module, paths: Collection[str]) -> list[str]:
    """Short names ("q_proj") where they mean exactly these layers, as serving engines prefer them; else the full paths."""
    leaves = {path.rpartition(".")[2] for path in paths}
    named = {path for path, _ in model.named_modules() if path.rpartition(".")[2] in leaves}
    return sorted(leaves) if named == set(paths) else sorted(paths)


def compose(
    base: Base,
    modules: Sequence[Adapter],
    examples: Sequence[Example],
    *,
    form: Form,
    template: str,
    optimizer: str = "NGOpt",
    budget: int = 40,
    bound: float = 1.5,
    l1: float = 0.05,
    seed: int = 0,
    on_progress: OnProgress,
) -> Composition:
    """Search weights in [-bound, bound] for `modules` on a few examples, starting from zero, in `budget` evaluations.

    The defaults are the released call's: nevergrad's NGOpt, which for such budgets is COBYLA, whatever the paper says of CMA-ES; it
    is sequential and deterministic, so `seed` acts only with optimisers that draw. Any name in nevergrad's registry will do.
    Raises IncompatibleModules, WrongBase, UnknownOptimizer, OptimizerFailed, or NoFiniteLoss when no point had a finite
    loss. Whatever `on_progress(step, budget, {objective, loss, best})` raises ends the search, with the base as it was.
    """
    started = time.perf_counter()
    for module in modules:
        layers_of(base.model, module)
    mixture = Mixture(modules, form, base.device)
    batches = encoded(base, examples, template)
    search = _optimizer(optimizer, len(modules), budget, bound, seed)

    def loss_at(weights: Sequence[float]) -> float:
        with applied(base.model, Adapter("composition", {}, mixture.pairs(weights))):
            return mean_loss(base, batches)

    trace, best = _searched(search, loss_at, budget, l1, on_progress)
    if not math.isfinite(best.objective):
        raise NoFiniteLoss(
            f"None of {budget} combinations of {len(modules)} modules gave a finite loss. Evaluate the modules one by one."
        )
    return Composition(
        adapter=mixed(base, modules, best.weights, form, "composition"),
        weights={module.name: weight for module, weight in zip(modules, best.weights, strict=True)},
        objective=best.objective,
        loss=best.loss,
        trace=trace,
        evaluations=sum(not evaluation.cached for evaluation in trace),
        seconds=time.perf_counter() - started,
        settings={
            "form": form,
            "template": template,
            "optimizer": optimizer,
            "resolved_optimizer": getattr(search, "optim", search).name,  # what NGOpt chose
            "budget": budget,
            "bound": bound,
            "l1": l1,
            "seed": seed,
            "examples": len(examples),
        },
    )


def _optimizer(name: str, dimension: int, budget: int, bound: float, seed: int) -> Any:
    if name not in nevergrad.optimizers.registry:
        close = difflib.get_close_matches(name, list(nevergrad.optimizers.registry), n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(close)}?" if close else " NGOpt is the default."
        raise UnknownOptimizer(f"nevergrad has no optimiser named {name!r}.{hint}")
    point = nevergrad.p.Array(init=numpy.zeros(dimension), lower=-bound, upper=bound)
    point.random_state = numpy.random.RandomState(seed)
    with _failure_named(name):
        return nevergrad.optimizers.registry[name](parametrization=point, budget=budget)


@contextmanager
def _failure_named(name: str) -> Iterator[None]:
    # Several of nevergrad's optimisers need packages of their own, and its MetaModel (NGOpt's choice for budgets of about 50 a module
    # and more) breaks with NumPy 2.4 ("only 0-dimensional arrays can be converted").
    try:
        yield
    except (ArithmeticError, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise OptimizerFailed(f"nevergrad's {name} failed ({error}). Try 'Cobyla' or 'CMA'.") from error


def _searched(
    search: Any, loss_at: Callable[[Sequence[float]], float], budget: int, l1: float, on_progress: OnProgress
) -> tuple[list[Evaluation], _Point]:
    trace: list[Evaluation] = []
    losses: dict[bytes, float] = {}
    best = _Point(math.inf, math.inf, ())
    with warnings.catch_warnings():
        # nevergrad asks scipy's COBYLA for the tolerance 0, and for the last few evaluations; scipy corrects both aloud.
        warnings.filterwarnings("ignore", message="COBYLA: Invalid ", category=UserWarning)
        for step in range(1, budget + 1):
            with _failure_named(search.name):
                candidate = search.ask()
            weights = tuple(float(weight) for weight in candidate.value)
            key = candidate.value.tobytes()
            cached = key in losses
            if not cached:
                losses[key] = loss_at(weights)
            objective = losses[key] + l1 * sum(map(abs, weights)) / len(weights)
            if objective < best.objective:
                best = _Point(objective, losses[key], weights)
            with _failure_named(search.name):
                search.tell(candidate, min(objective, _REJECTED) if math.isfinite(objective) else _REJECTED)
            numbers = {"objective": objective, "loss": losses[key], "best": best.objective}
            finite = {name: number for name, number in numbers.items() if math.isfinite(number)}
            trace.append(
                Evaluation(step, weights, finite.get("objective"), finite.get("loss"), finite.get("best"), cached)
            )
            on_progress(step, budget, finite)
    return trace, best


def encoded(base: Base, examples: Sequence[Example], template: str) -> list[Batch]:
    """The examples as batches of at most BATCH_SIZE, encoded once for all evaluations."""
    starts = range(0, len(examples), BATCH_SIZE)
    return [encode(base.tokenizer, examples[start : start + BATCH_SIZE], template) for start in starts]


def mean_loss(base: Base, batches: Sequence[Batch]) -> float:
    """Mean negative log-likelihood per target token, over all batches together."""
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for batch in batches:
            count = int((batch.labels != IGNORED).sum())
            total += float(target_loss(base.model, batch)) * count
            tokens += count
    return total / tokens
