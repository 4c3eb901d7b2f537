"""Compose, then train: a composition, or one module, as the start of a short training on the same few examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hub.lora.compose.forms import truncate
from hub.lora.core.adapter import Adapter
from hub.lora.core.bases import Base
from hub.lora.core.examples import Example, OnProgress
from hub.lora.train.loop import Recipe, train


@dataclass(frozen=True)
class FurtherTraining:
    """How a start is trained further. `rank` is that of the result.

    Truncation leaves both factors with the same singular values, none of them zero, so one rate for both (`ratio` 1) is the natural
    choice: LoRA+'s unequal rates are for a start with B at zero.
    """

    rank: int
    steps: int = 40
    learning_rate: float = 5e-4
    ratio: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Fit:
    """`truncation_error` is the loss of truncating the start to its rank, see `forms.Truncated`; `losses` has one value per step."""

    adapter: Adapter
    truncation_error: float
    losses: list[float]
    settings: dict[str, Any]


def train_further(
    base: Base,
    start: Adapter,
    examples: Sequence[Example],
    training: FurtherTraining,
    *,
    template: str,
    on_progress: OnProgress,
) -> Fit:
    """Train from `start`, truncated if its rank is higher than the training's. Raises what `truncate` and `train` raise."""
    truncated = truncate(start, training.rank)
    settings: dict[str, Any] = {
        "rank": training.rank,
        "alpha": training.rank,
        "steps": training.steps,
        "learning_rate": training.learning_rate,
        "ratio": training.ratio,
        "seed": training.seed,
    }
    trained = train(
        base, examples, Recipe(**settings), template=template, start=truncated.adapter, on_progress=on_progress
    )
    adapter = Adapter(start.name, start.config, trained.adapter.pairs)
    return Fit(adapter, truncated.error, trained.losses, settings)
