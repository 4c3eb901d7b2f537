"""Curves of training for manifests and pages, no longer for a long run than for a short one."""

from statistics import fmean
from typing import TypeVar

from hub.lora.par.grpo import Reinforced
from hub.lora.train.loop import Trained
from hub.registry.jobs.contracts.common import TrainingCurve
from hub.registry.jobs.contracts.par import RewardCurve

LOSSES = 500  # at most
REWARDS = 200

T = TypeVar("T")


def training_curve(trained: Trained) -> TrainingCurve:
    """Training losses as means of `every` steps."""
    every, parts = _parts(trained.losses, LOSSES)
    means = [sum(part) / len(part) for part in parts]
    return TrainingCurve(every=every, losses=means, validations=trained.validations)


def reward_curve(reinforced: Reinforced) -> RewardCurve:
    """Each figure of a step as the mean of `every` steps."""
    every, parts = _parts(reinforced.curve, REWARDS)
    return RewardCurve(
        every=every, steps=[{name: fmean(row[name] for row in part) for name in part[0]} for part in parts]
    )


def _parts(values: list[T], most: int) -> tuple[int, list[list[T]]]:
    """(length of a part, at most so many parts)."""
    every = -(-len(values) // most) or 1
    return every, [values[at : at + every] for at in range(0, len(values), every)]
