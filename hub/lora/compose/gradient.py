"""Weights of a composition by gradient: one backward pass gives the derivative of the loss with respect to every weight.

COBYLA needs N + 1 forward passes to learn as much. LoRA Soups (arXiv 2410.13025) learns a scalar per layer and module so; here the
weights may be negative and are pulled to zero by the objective's L1 term, which is taken as a proximal step (Parikh and Boyd 2014,
section 4.2) in Adam's metric: it sets weights to exactly zero, where a subgradient only makes them small.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hub.lora.compose.forms import Mixture
from hub.lora.compose.search import Composition, Trace, composed
from hub.lora.core.adapter import Adapter, applied, layers_of
from hub.lora.core.bases import Base
from hub.lora.core.examples import IGNORED, Batch, Example, OnProgress, target_loss
from hub.lora.core.losses import encoded
from hub.vocabulary import Form


def compose_by_gradient(
    base: Base,
    modules: Sequence[Adapter],
    examples: Sequence[Example],
    *,
    form: Form,
    template: str,
    per_layer: bool = False,
    budget: int = 10,
    learning_rate: float = 0.1,
    patience: int | None = 10,
    seconds: float | None = None,
    bound: float = 1.5,
    l1: float = 0.05,
    rank: int | None = None,
    on_progress: OnProgress,
) -> Composition:
    """Weights in [-bound, bound], one a module or one a module and layer, by `budget` steps of proximal Adam on all examples.

    The objective is `compose`'s, and the best evaluated point is the result. The start is the average, 1/N each: at zero the gradient of
    a product is zero, and a sum needs more steps to get as far from there. A loss that is not finite ends the search at the best point
    before. Nothing is drawn, so there is no seed. Raises as `compose` does, and leaves the base as it was when `on_progress` raises.
    """
    started = time.perf_counter()
    for module in modules:
        layers_of(base.model, module)
    mixture = Mixture(modules, form, base.device)
    batches = encoded(base, examples, template)
    shape = (len(modules), len(mixture.layers)) if per_layer else (len(modules),)
    weights = torch.full(shape, min(1 / len(modules), bound))
    trace, adam = Trace(l1), _Adam(torch.zeros(shape), torch.zeros(shape))
    while len(trace.evaluations) < budget and not trace.is_over(patience=patience, seconds=seconds, started=started):
        loss, gradient = loss_and_gradient(base, mixture, batches, weights)
        trace.add(weights, loss)
        on_progress(len(trace.evaluations), budget, trace.numbers())
        if not (math.isfinite(loss) and gradient.isfinite().all()):
            break
        direction, rates = adam.step(gradient, learning_rate)
        moved = weights - direction
        threshold = rates * l1 / weights.numel()
        weights = (moved.sign() * (moved.abs() - threshold).clamp(min=0)).clamp(-bound, bound)
    return composed(
        base,
        modules,
        trace,
        started=started,
        rank=rank,
        settings={
            "search": "gradient",
            "form": form,
            "template": template,
            "per_layer": per_layer,
            "budget": budget,
            "learning_rate": learning_rate,
            "patience": patience,
            "seconds": seconds,
            "bound": bound,
            "l1": l1,
            "examples": len(examples),
        },
    )


def loss_and_gradient(base: Base, mixture: Mixture, batches: Sequence[Batch], weights: Tensor) -> tuple[float, Tensor]:
    """The mean loss per target token over all batches, and its gradient with respect to weights (modules,) or (modules, layers)."""
    tokens = [int((batch.labels != IGNORED).sum()) for batch in batches]
    total, gradient = 0.0, torch.zeros_like(weights)
    for batch, count in zip(batches, tokens, strict=True):
        # A batch at a time, so that the memory is that of one.
        variable = weights.clone().requires_grad_(True)
        with torch.enable_grad(), applied(base.model, Adapter("composition", {}, mixture.pairs(variable))):
            part = target_loss(base.model, batch) * (count / sum(tokens))
            (found,) = torch.autograd.grad(part, variable)
        total += part.item()
        gradient += found
    return total, gradient


@dataclass
class _Adam:
    """Adam (arXiv 1412.6980, algorithm 1) with its rate of every coordinate laid open, which the proximal step needs."""

    mean: Tensor
    square: Tensor
    steps: int = 0

    def step(self, gradient: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """(what to subtract, the rate of each coordinate)."""
        self.steps += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient.square()
        rates = rate / ((self.square / (1 - 0.999**self.steps)).sqrt() + 1e-8)
        return rates * self.mean / (1 - 0.9**self.steps), rates
