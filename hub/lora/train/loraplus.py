"""LoRA+ (arXiv 2402.12354): the two factors of a LoRA have two learning rates.

The paper's theory (width n to infinity, Adam): with one rate for A and B the features cannot be learnt efficiently; they can with
eta_A in Theta(1/n) and eta_B in Theta(1). So B's rate is `ratio` times A's, a ratio above 1 that stays fixed while eta_A is tuned.
"""

import math

import torch
from peft.optimizers import create_loraplus_optimizer
from torch import nn

from hub.vocabulary import Init, Schedule

# Under these PEFT subtracts the initial pair from the base's weights, which the result must undo.
BASE_CHANGING: tuple[Init, ...] = ("pissa", "pissa_niter_4")


# The often quoted 16 was found on RoBERTa with A at zero and B random (the authors' fork of PEFT). PEFT itself starts B at
# zero, where the paper's optima lie between 2 and 8. Where neither factor starts at zero no value was ever recommended: both then
# learn at one rate.
DEFAULT_RATIO: dict[Init, float] = {
    "default": 4.0,
    "gaussian": 4.0,
    "a_zero": 16.0,
    "orthogonal": 1.0,
    "pissa": 1.0,
    "pissa_niter_4": 1.0,
}


def make_optimizer(model: nn.Module, learning_rate: float, ratio: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW over PEFT's groups of LoRA+: A at `learning_rate`; B, biases and DoRA's magnitudes at `ratio` times that.

    PEFT 0.21 ignores a `weight_decay` and takes its own option for it. Groups without parameters are dropped.
    """
    optimizer: torch.optim.Optimizer = create_loraplus_optimizer(
        model,
        torch.optim.AdamW,
        lr=learning_rate,
        loraplus_lr_ratio=ratio,
        loraplus_weight_decay=weight_decay,
    )
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
    for group in optimizer.param_groups:
        group["full_lr"] = group["lr"]
    return optimizer


def set_share(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Set the learning rate of every group to this share of its full rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["full_lr"] * share


def share_of_rate(step: int, steps: int, warmup: float, schedule: Schedule) -> float:
    """The factor of the learning rates at a step, counted from 0: linear warmup over the share `warmup` of the steps, then the schedule."""
    warmup_steps = round(steps * warmup)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 1 - done if schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
