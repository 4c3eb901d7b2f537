"""Weights of a composition by gradient: one backward pass gives the derivative of the loss with respect to every weight.

COBYLA needs N + 1 forward passes to learn as much. LoRA Soups (arXiv 2410.13025) learns a scalar per layer and module this way. Here
weights may be negative, and the objective's L1 term pulls them to zero. That term is taken as a proximal step (Parikh and Boyd 2014,
section 4.2) in Adam's metric: it sets weights to exactly zero, where a subgradient only makes them small.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from hub.lora.compose.composition import Composition, Trace, best_composition, check_base
from hub.lora.compose.forms import Mixture
from hub.lora.core.adapter import Adapter, applied
from hub.lora.core.bases import Base
from hub.lora.core.examples import Batch, Example, OnProgress, target_loss
from hub.lora.core.losses import encode_batches
from hub.vocabulary import Form


@dataclass(frozen=True)
class GradientSearch:
    """Everything that decides a search by gradient besides base, modules and examples: weights in [-bound, bound].

    `per_layer` searches one weight per module and layer instead of one per module. `budget` counts steps of proximal Adam over all
    examples; `patience` steps without a new best, or `seconds`, end the search early. `rank` is that of the form "svd", by default the
    modules' largest. Nothing is drawn at random, so there is no seed.
    """

    form: Form
    template: str
    per_layer: bool = False
    budget: int = 10
    learning_rate: float = 0.1
    patience: int | None = 10
    seconds: float | None = None
    bound: float = 1.5
    l1: float = 0.05
    rank: int | None = None


def compose_by_gradient(
    base: Base,
    modules: Sequence[Adapter],
    examples: Sequence[Example],
    search: GradientSearch,
    *,
    on_progress: OnProgress,
) -> Composition:
    """Minimise the objective of `compose` by proximal Adam. The best evaluated point is the result.

    The start is the average, 1/N each: at zero the gradient of a product is zero, and a sum needs more steps to get as far from there.
    A loss that is not finite ends the search at the best point before. Raises as `compose` does, and leaves the base as it was when
    `on_progress` raises.
    """
    started = time.perf_counter()
    check_base(base, modules)
    mixture = Mixture(modules, search.form, base.device)
    batches = encode_batches(base, examples, search.template)
    shape = (len(modules), len(mixture.layers)) if search.per_layer else (len(modules),)
    weights = torch.full(shape, min(1 / len(modules), search.bound))
    trace, adam = Trace(search.l1), _Adam(torch.zeros(shape), torch.zeros(shape))
    while len(trace.evaluations) < search.budget and not trace.is_over(
        patience=search.patience, seconds=search.seconds, started=started
    ):
        loss, gradient = loss_and_gradient(base, mixture, batches, weights)
        trace.add(weights, loss)
        on_progress(len(trace.evaluations), search.budget, trace.numbers())
        if not (math.isfinite(loss) and gradient.isfinite().all()):
            break
        direction, rates = adam.step(gradient, search.learning_rate)
        moved = weights - direction
        threshold = rates * search.l1 / weights.numel()
        weights = (moved.sign() * (moved.abs() - threshold).clamp(min=0)).clamp(-search.bound, search.bound)
    settings = asdict(search)
    del settings["rank"]  # the rank that was used is recorded where there is one
    settings = {"search": "gradient", **settings, "examples": len(examples)}
    return best_composition(base, modules, trace, started=started, rank=search.rank, settings=settings)


def loss_and_gradient(base: Base, mixture: Mixture, batches: Sequence[Batch], weights: Tensor) -> tuple[float, Tensor]:
    """The mean loss per target token over all batches, and its gradient with respect to weights (modules,) or (modules, layers)."""
    tokens = [batch.target_tokens for batch in batches]
    total, gradient = 0.0, torch.zeros_like(weights)
    for batch, count in zip(batches, tokens, strict=True):
        # One batch at a time, so that memory holds the activations of one.
        variable = weights.clone().requires_grad_(True)
        with torch.enable_grad(), applied(base.model, Adapter("composition", {}, mixture.pairs(variable))):
            part = target_loss(base.model, batch) * (count / sum(tokens))
            (part_gradient,) = torch.autograd.grad(part, variable)
        total += part.item()
        gradient += part_gradient
    return total, gradient


@dataclass
class _Adam:
    """Adam (arXiv 1412.6980, algorithm 1) that exposes the rate of each coordinate, which the proximal step needs."""

    mean: Tensor
    square: Tensor
    steps: int = 0

    def step(self, gradient: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """(the update to subtract, the rate of each coordinate)."""
        self.steps += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient.square()
        rates = rate / ((self.square / (1 - 0.999**self.steps)).sqrt() + 1e-8)
        return rates * self.mean / (1 - 0.9**self.steps), rates
