"""Several candidate weights in one forward pass: one copy of the batch per candidate, each under its own weights in every layer.

The layers of the base see one large batch, which uses a GPU well. In a sum, x A^T is the same product for all candidates.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hub.lora.compose.forms import Mixture
from hub.lora.core.bases import Base
from hub.lora.core.examples import IGNORED, Batch, target_losses


def mean_losses(
    base: Base, mixture: Mixture, points: Sequence[Sequence[float]], batches: Sequence[Batch]
) -> list[float]:
    """Mean negative log-likelihood per target token over all batches together, at each of the points (modules,)."""
    count = len(points)
    weights = torch.tensor(points, dtype=torch.float32, device=base.device)
    handles = [
        base.model.get_submodule(path).register_forward_hook(_adding(mixture, path, weights, base.dtype))
        for path in mixture.stacks
    ]
    totals, tokens = torch.zeros(count, dtype=torch.float64), 0
    try:
        with torch.inference_mode():
            for batch in batches:
                copies = Batch(
                    *(column.repeat(count, 1) for column in (batch.input_ids, batch.attention_mask, batch.labels))
                )
                targets = (batch.labels != IGNORED).sum(1)
                losses = target_losses(base.model, copies).cpu().double().view(count, -1)
                totals += (losses * targets).sum(1)
                tokens += int(targets.sum())
    finally:
        for handle in handles:
            handle.remove()
    return (totals / tokens).tolist()


def _adding(
    mixture: Mixture, path: str, weights: Tensor, dtype: torch.dtype
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    stack, count = mixture.stacks[path], len(weights)
    rank_weights = weights[:, stack.owner]  # (count, R)
    if mixture.form != "product":
        a, b, scales = stack.a.to(dtype), stack.b.to(dtype), rank_weights[:, None, :].to(dtype)

        def add(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            low = functional.linear(inputs[0], a).view(count, -1, a.shape[0]) * scales
            return output + functional.linear(low, b).view_as(output)

        return add
    width, height = stack.a.shape[1], len(stack.b)
    every_a = (stack.a * rank_weights[:, :, None]).view(count, stack.modules, -1, width).sum(1).to(dtype)
    every_b = (stack.b * rank_weights[:, None, :]).view(count, height, stack.modules, -1).sum(2).to(dtype)

    def add_product(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        low = torch.bmm(inputs[0].view(count, -1, width), every_a.mT)
        return output + torch.bmm(low, every_b.mT).view_as(output)

    return add_product
