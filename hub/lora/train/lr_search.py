"""A short sweep of the learning rate: without one, differences between variants of LoRA mean little.

arXiv 2602.04998 finds nine variants within one or two points of plain LoRA when each has its own best rate.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hub.lora.train.loop import Trained, TrainingDiverged


@dataclass(frozen=True)
class Trial:
    """`validation_loss` is None where the training diverged."""

    learning_rate: float
    validation_loss: float | None


@dataclass(frozen=True)
class Search:
    """`at_edge` means that the best rate was the lowest or the highest of those tried, so a better one may lie outside."""

    trials: list[Trial]
    best: float
    at_edge: bool


def search_rate(rates: Sequence[float], train_at: Callable[[float], Trained]) -> Search:
    """Train once at each rate and choose the one with the lowest validation loss. Raises TrainingDiverged if no loss was finite."""
    trials = []
    for rate in sorted(rates):
        try:
            trials.append(Trial(rate, train_at(rate).validation_loss))
        except TrainingDiverged:
            trials.append(Trial(rate, None))
    best = min(trials, key=lambda trial: math.inf if trial.validation_loss is None else trial.validation_loss)
    if best.validation_loss is None:
        raise TrainingDiverged(f"Training diverges at every rate tried, down to {min(rates)}. Lower learning_rate.")
    edges = (trials[0].learning_rate, trials[-1].learning_rate)
    return Search(trials, best.learning_rate, len(trials) > 1 and best.learning_rate in edges)
