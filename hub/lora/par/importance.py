"""How much each element of a LoRA matters for a class of examples (LoRA-PAR, arXiv 2507.20999, section 3.2).

Setting element phi to zero changes the loss by -g phi + F phi^2 / 2 to second order, where g is the mean gradient over examples and the
diagonal Fisher information F, the mean of squared gradients, stands for the second derivative. The importance is the size of that.

With B at zero, as a LoRA starts, it is zero for every element: phi is for B, g is for A. The paper's code starts both factors with noise
instead, which changes the base. Here no start does. PiSSA's factors are large and leave the function as it was. For other starts the
elements are scored at a probe: B is moved one step down its own gradient on the same examples, just far enough that the loss falls by
PROBE of itself to first order, the importances are taken there, and B is put back. To first order in that step the importance of an
element of B is its squared gradient, and both factors of a layer have the same signed sum.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hub.lora.core.examples import Tokens, pad, target_loss
from hub.lora.par.partition import NothingToPartition
from hub.lora.train.masks import Layout
from hub.lora.train.trainable_layers import Tuned
from hub.vocabulary import PartitionStart

PROBE = 0.01


@dataclass(frozen=True)
class Moments:
    """Over a sample of examples, by tensor name: mean gradient and mean squared gradient; and the mean loss (nats per target token)."""

    gradient: dict[str, Tensor]
    fisher: dict[str, Tensor]
    loss: float


def importance(parameters: Mapping[str, Tensor], moments: Moments) -> dict[str, Tensor]:
    """|g phi - F phi^2 / 2| of every element, by tensor name."""
    return {
        name: (moments.gradient[name] * phi - moments.fisher[name] * phi.square() / 2).abs()
        for name, phi in parameters.items()
    }


def moments(layers: Tuned, rows: Sequence[Tokens], on_example: Callable[[], None]) -> Moments:
    """Gradients of the loss on the targets alone, one example at a time: a batch's gradient squared is not the mean of its examples'."""
    base, parameters = layers.base, layers.parameters()
    gradient = {name: torch.zeros_like(each) for name, each in parameters.items()}
    fisher = {name: torch.zeros_like(each) for name, each in parameters.items()}
    total = 0.0
    for row in rows:
        loss = target_loss(base.model, pad(base.tokenizer, [row]))
        found = torch.autograd.grad(loss, list(parameters.values()))
        for name, each in zip(parameters, found, strict=True):
            gradient[name].add_(each, alpha=1 / len(rows))
            fisher[name].addcmul_(each, each, value=1 / len(rows))
        total += loss.item()
        on_example()
    return Moments(gradient, fisher, total / len(rows))


def score(
    layers: Tuned, rows: Sequence[Tokens], start: PartitionStart, on_example: Callable[[], None]
) -> dict[str, Tensor]:
    """The importance of every element for these examples, by tensor name; the layers are as they were afterwards.

    `on_example` is called after each example, `passes(start)` times as often as there are rows. Raises NothingToPartition.
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
    kept = {name: each.detach().clone() for name, each in parameters.items() if _is_b(name)}
    try:
        with torch.no_grad():
            for name in kept:
                parameters[name].sub_(before.gradient[name], alpha=rate)
        return _scored(parameters, moments(layers, rows, on_example))
    finally:
        for name, each in kept.items():
            parameters[name].data.copy_(each)


def passes(start: PartitionStart) -> int:
    """How often `score` goes over the examples."""
    return 1 if start == "pissa" else 2


def layout(layers: Tuned) -> Layout:
    return Layout({name: tuple(each.shape) for name, each in layers.parameters().items()})


def _scored(parameters: Mapping[str, nn.Parameter], found: Moments) -> dict[str, Tensor]:
    return importance({name: each.detach() for name, each in parameters.items()}, found)


def _is_b(name: str) -> bool:
    return ".lora_B." in name
