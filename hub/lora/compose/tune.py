"""Compose then tune: a composition, or one module, as the start of a short training on the same few examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hub.lora.compose.forms import truncated
from hub.lora.core.adapter import Adapter
from hub.lora.core.bases import Base
from hub.lora.core.examples import Example, OnProgress
from hub.lora.train.loop import Recipe, train


@dataclass(frozen=True)
class Fit:
    """`truncation_error` is what cutting the start to its rank lost, see `forms.Truncated`; `losses` has one value a step."""

    adapter: Adapter
    truncation_error: float
    losses: list[float]
    settings: dict[str, Any]


def tune(
    base: Base,
    start: Adapter,
    examples: Sequence[Example],
    *,
    template: str,
    rank: int,
    steps: int = 40,
    learning_rate: float = 5e-4,
    ratio: float = 1.0,
    seed: int = 0,
    on_progress: OnProgress,
) -> Fit:
    """Train on from `start`, cut to `rank` where it has more.

    The cut leaves both factors with the same singular values, none of them zero, so one rate for both (`ratio` 1) is the natural choice:
    LoRA+'s unequal rates answer a start of B at zero. Raises what `truncated` and `train` raise.
    """
    cut = truncated(start, rank)
    recipe: dict[str, Any] = {
        "rank": rank,
        "alpha": rank,
        "steps": steps,
        "learning_rate": learning_rate,
        "ratio": ratio,
        "seed": seed,
    }
    done = train(base, examples, Recipe(**recipe), template=template, start=cut.adapter, on_progress=on_progress)
    adapter = Adapter(start.name, start.config, done.adapter.pairs)
    return Fit(adapter, cut.error, done.losses, recipe)
