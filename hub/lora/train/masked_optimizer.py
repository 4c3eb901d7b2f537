"""Train some elements of a tensor and not the others, with an optimiser that keeps state only for those.

A gradient that is set to zero does not hold an element still: AdamW's decoupled weight decay goes on shrinking it, and momentum of an
earlier phase goes on moving it. Nor does it save memory, since AdamW keeps two moments for every element of a parameter. Here the
active elements are gathered into a vector, AdamW updates that vector, and it is written back. Other elements are never touched.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from hub.lora.train.masks import Mask


@dataclass(frozen=True)
class Active:
    """The trainable elements of one tensor: one bit each, on the tensor's device, the highest bit of a byte first."""

    bits: Tensor
    shape: torch.Size

    @classmethod
    def of(cls, mask: Tensor, device: torch.device) -> "Active":
        flat = mask.flatten().to(device)
        padded = nn.functional.pad(flat, (0, -len(flat) % 8)).view(-1, 8)
        return cls((padded << _shifts(device)).sum(1, dtype=torch.uint8), mask.shape)

    def mask(self) -> Tensor:
        """bool, in the tensor's shape."""
        bits = (self.bits.unsqueeze(1) >> _shifts(self.bits.device)) & 1
        return bits.flatten()[: self.shape.numel()].view(self.shape).bool()


def _shifts(device: torch.device) -> Tensor:
    return torch.arange(7, -1, -1, dtype=torch.uint8, device=device)


class PackedAdamW(torch.optim.Optimizer):
    """AdamW (arXiv 1711.05101) on the active elements of each parameter; the moments are vectors over those elements.

    `groups` are AdamW's parameter groups with all their settings. `masks` has a bool mask of the same shape for every parameter.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], masks: Mapping[nn.Parameter, Tensor]) -> None:
        # A checkpoint holds `state`. What can be computed from the masks is kept outside it.
        self.active = {parameter: Active.of(mask, parameter.device) for parameter, mask in masks.items()}
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: nn.Parameter, group: Mapping[str, Any]) -> None:
        # The active indices are computed once for two reads and a write; indexing with the mask would compute them three times.
        indices = self.active[parameter].mask().flatten().nonzero().squeeze(1)
        flat = parameter.view(-1)
        values, gradient = flat[indices], parameter.grad.flatten()[indices]  # type: ignore[union-attr]
        if not len(values):
            return
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(values), torch.zeros_like(values)
        adamw(
            [values],
            [gradient],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            foreach=False,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        flat[indices] = values


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """The size of AdamW's state: its moments and, if packed, its masks."""
    tensors = [state[moment] for state in optimizer.state.values() for moment in ("exp_avg", "exp_avg_sq") if state]
    if isinstance(optimizer, PackedAdamW):
        tensors += [active.bits for active in optimizer.active.values()]
    return sum(tensor.nbytes for tensor in tensors)


def masks_of(parameters: Mapping[str, nn.Parameter], mask: Mask) -> dict[nn.Parameter, Tensor]:
    """Parameter -> its part of the mask, looked up by name."""
    tensors = mask.tensors()
    return {parameter: tensors[name] for name, parameter in parameters.items()}


@contextmanager
def without_gradient_outside(masks: Mapping[nn.Parameter, Tensor]) -> Iterator[None]:
    """Within the block gradients are zero outside the masks, so that gradient clipping sees the norm of the trained elements."""
    active = {parameter: Active.of(mask, parameter.device) for parameter, mask in masks.items()}
    handles = [parameter.register_hook(_zeroing(mask)) for parameter, mask in active.items()]  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _zeroing(active: Active) -> Any:
    return lambda gradient: gradient.masked_fill(~active.mask(), 0)
