"""The controls of a composition: everything simpler that the same modules and the same few examples allow.

Table 1 of arXiv 2307.13269 compares with zero-shot and in-context learning, where a fresh LoRA is better than LoraHub on average;
arXiv 2602.12323 finds random and average merges as good as chosen ones. So both belong in every report. A composition is also one way
among others to start a training, so what a short training makes of each start is measured as well.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hub.lora.compose.forms import mix
from hub.lora.compose.train_further import Fit, FurtherTraining, train_further
from hub.lora.core.adapter import Adapter, applied, largest_rank, target_names
from hub.lora.core.bases import Base
from hub.lora.core.examples import Example, OnProgress
from hub.lora.core.losses import encode_batches, mean_loss
from hub.lora.train.loop import Recipe, train
from hub.vocabulary import ComposeArm, Form

SHOTS = 5


@dataclass(frozen=True)
class Control:
    """`shots` are examples in the prompt; `made_by` is enough to make the adapter again."""

    adapter: Adapter | None
    made_by: dict[str, Any]
    shots: Sequence[Example] = ()


@dataclass(frozen=True)
class ControlSettings:
    """How the controls are made. Random weights lie in [-bound, bound]; a training takes `steps` at `learning_rate`."""

    form: Form
    template: str
    seed: int
    bound: float = 1.5
    steps: int = 20
    learning_rate: float = 1e-3


def quick(
    base: Base,
    modules: Sequence[Adapter],
    examples: Sequence[Example],
    settings: ControlSettings,
    *,
    on_progress: OnProgress,
) -> dict[ComposeArm, Control]:
    """The base alone, the plain average, the best single module and a fresh LoRA. Without examples, only the first two."""
    share = 1 / len(modules)
    average = mix(base, modules, [share] * len(modules), settings.form, "control")
    arms: dict[ComposeArm, Control] = {
        "base": Control(None, {}),
        "average": Control(average, {"form": settings.form, "weight": share}),
    }
    if examples:
        arms["best_single"] = Control(*_best_single(base, modules, examples, settings.template))
        arms["fresh_lora"] = _fresh_lora(base, modules, examples, settings, on_progress)
    return arms


def full(
    base: Base,
    modules: Sequence[Adapter],
    examples: Sequence[Example],
    settings: ControlSettings,
    *,
    others: Sequence[Adapter] = (),
    search: Callable[[Sequence[Adapter]], Adapter] | None = None,
    on_progress: OnProgress,
) -> dict[ComposeArm, Control]:
    """All of `quick`, five solved examples in the prompt, random weights, and the best single module trained further.

    `search` composes `others`, modules drawn at random where the composition's own were chosen from a pool.
    """
    arms = quick(base, modules, examples, settings, on_progress=on_progress)
    generator = random.Random(settings.seed)  # noqa: S311
    weights = [generator.uniform(-settings.bound, settings.bound) for _ in modules]
    at_random = mix(base, modules, weights, settings.form, "control")
    arms["random_weights"] = Control(at_random, {"form": settings.form, "weights": weights})
    if examples:
        arms["five_shot"] = Control(None, {"shots": min(SHOTS, len(examples))}, examples[:SHOTS])
        single, made_by = _best_single(base, modules, examples, settings.template)
        fit = _train_further(base, single, examples, settings, largest_rank(modules), on_progress)
        arms["best_single_tuned"] = Control(fit.adapter, {**made_by, **fit.settings})
    if others and search is not None:
        arms["random_modules"] = Control(search(others), {"modules": [module.name for module in others]})
    return arms


def _best_single(
    base: Base, modules: Sequence[Adapter], examples: Sequence[Example], template: str
) -> tuple[Adapter, dict[str, Any]]:
    # Chosen by the loss on the examples, which is all that the search sees, so that the held-out examples stay unseen.
    losses = losses_of(base, modules, examples, template)
    best = min(modules, key=lambda module: losses[module.name])
    return best, {"module": best.name, "loss_on_examples": losses[best.name]}


def losses_of(base: Base, modules: Sequence[Adapter], examples: Sequence[Example], template: str) -> dict[str, float]:
    """Each module's mean loss per target token on the examples, by its name."""
    batches, losses = encode_batches(base, examples, template), {}
    for module in modules:
        with applied(base.model, module):
            losses[module.name] = mean_loss(base, batches)
    return losses


def _fresh_lora(
    base: Base,
    modules: Sequence[Adapter],
    examples: Sequence[Example],
    settings: ControlSettings,
    on_progress: OnProgress,
) -> Control:
    """A new LoRA of the modules' largest rank, on every layer that any of them adapts, with the usual alpha = 2 * rank."""
    rank = largest_rank(modules)
    recipe: dict[str, Any] = {
        "rank": rank,
        "alpha": 2 * rank,
        "target_modules": target_names(base.model, {path for module in modules for path in module.pairs}),
        "steps": settings.steps,
        "learning_rate": settings.learning_rate,
        "ratio": 1.0,
        "batch_size": 8,
        "seed": settings.seed,
    }
    trained = train(base, examples, Recipe(**recipe), template=settings.template, on_progress=on_progress)
    return Control(trained.adapter, recipe)


def _train_further(
    base: Base,
    start: Adapter,
    examples: Sequence[Example],
    settings: ControlSettings,
    rank: int,
    on_progress: OnProgress,
) -> Fit:
    training = FurtherTraining(
        rank=rank, steps=settings.steps, learning_rate=settings.learning_rate, seed=settings.seed
    )
    return train_further(base, start, examples, training, template=settings.template, on_progress=on_progress)
