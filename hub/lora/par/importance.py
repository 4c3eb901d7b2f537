"""The importance of each element of a LoRA for a class of examples (LoRA-PAR, arXiv 2507.20999, section 3.2).

Setting element phi to zero changes the loss by -g phi + F phi^2 / 2 to second order, where g is the mean gradient over examples and the
diagonal Fisher information F, the mean of squared gradients, stands for the second derivative. The importance is its absolute value.

With B at zero, the usual start of a LoRA, every importance is zero: phi is zero for B, and g for A. The paper's code starts both factors
with noise instead, which changes the base. Here no start does. PiSSA's factors are large and leave the function as it was. For other
starts the elements are scored at a probe: B moves one step down its gradient on the same examples, far enough that the loss falls by
the share PROBE to first order. The importances are computed there, and B is restored. To first order in that step the importance of an
element of B is its squared gradient, and both factors of a layer have the same signed sum.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hub.lora.core.examples import Tokens, pad, target_loss
from hub.lora.par.partition import NothingToPartition
from hub.lora.train.masks import Layout
from hub.lora.train.trainable_layers import TrainableLayers
from hub.vocabulary import PartitionStart

PROBE = 0.01


@dataclass(frozen=True)
class Moments:
    """Mean gradient and mean squared gradient over a sample of examples, by tensor name, and the mean loss (nats per target token)."""

    gradient: dict[str, Tensor]
    fisher: dict[str, Tensor]
    loss: float


def importance(parameters: Mapping[str, Tensor], moments: Moments) -> dict[str, Tensor]:
    """Tensor name -> |g phi - F phi^2 / 2| of every element."""
    return {
        name: (moments.gradient[name] * phi - moments.fisher[name] * phi.square() / 2).abs()
        for name, phi in parameters.items()
    }


def moments(layers: TrainableLayers, rows: Sequence[Tokens], on_example: Callable[[], None]) -> Moments:
    """Moments of the target loss's gradient, one example at a time: the square of a batch's gradient is not the mean of squares."""
    base, parameters = layers.base, layers.parameters()
    gradient = {name: torch.zeros_like(value) for name, value in parameters.items()}
    fisher = {name: torch.zeros_like(value) for name, value in parameters.items()}
    total = 0.0
    for row in rows:
        loss = target_loss(base.model, pad(base.tokenizer, [row]))
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        for name, value in zip(parameters, gradients, strict=True):
            gradient[name].add_(value, alpha=1 / len(rows))
            fisher[name].addcmul_(value, value, value=1 / len(rows))
        total += loss.item()
        on_example()
    return Moments(gradient, fisher, total / len(rows))


def score(
    layers: TrainableLayers, rows: Sequence[Tokens], start: PartitionStart, on_example: Callable[[], None]
) -> dict[str, Tensor]:
    """Tensor name -> the importance of every element for these examples. Afterwards the layers are as they were.

    `on_example` is called after each example of each of `passes(start)` passes. Raises NothingToPartition.
    """
    parameters = layers.parameters()
    if start == "pissa":
        return _scored(parameters, moments(layers, rows, on_example))
    before = moments(layers, rows, on_example)
    steepness = sum(float(before.gradient[name].double().square().sum()) for name in parameters if _is_b(name))
    if not steepness > 0:
        raise NothingToPartition(
            f"The gradient of B on {len(rows)} examples adds up to {steepness}, so nothing can be scored."
        )
    rate = PROBE * before.loss / steepness
    initial = {name: value.detach().clone() for name, value in parameters.items() if _is_b(name)}
    try:
        with torch.no_grad():
            for name in initial:
                parameters[name].sub_(before.gradient[name], alpha=rate)
        return _scored(parameters, moments(layers, rows, on_example))
    finally:
        for name, value in initial.items():
            parameters[name].data.copy_(value)


def passes(start: PartitionStart) -> int:
    """How many passes over the examples `score` makes."""
    return 1 if start == "pissa" else 2


def layout(layers: TrainableLayers) -> Layout:
    return Layout({name: tuple(value.shape) for name, value in layers.parameters().items()})


def _scored(parameters: Mapping[str, nn.Parameter], measured: Moments) -> dict[str, Tensor]:
    return importance({name: value.detach() for name, value in parameters.items()}, measured)


def _is_b(name: str) -> bool:
    return ".lora_B." in name
