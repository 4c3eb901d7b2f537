"""What a composition is set beside: everything simpler that the same modules and the same few examples allow.

Table 1 of arXiv 2307.13269 compares with zero-shot and in-context learning, where a fresh LoRA is better than LoraHub on average;
arXiv 2602.12323 finds random and average merges as good as chosen ones. So both belong into every report, and what is left of them
after a short training as well: a composition is one way among others to start.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hub.lora.compose.forms import mixed
from hub.lora.compose.tune import tune
from hub.lora.core.adapter import Adapter, applied
from hub.lora.core.bases import Base
from hub.lora.core.examples import Example, OnProgress
from hub.lora.core.layer_names import target_names
from hub.lora.core.losses import encoded, mean_loss
from hub.lora.train.loop import Recipe, train
from hub.vocabulary import ComposeArm, Form

SHOTS = 5


@dataclass(frozen=True)
class Control:
    """`shots` are shown in the prompt; `made_by` is enough to make the adapter again."""

    adapter: Adapter | None
    made_by: dict[str, Any]
    shots: Sequence[Example] = ()


@dataclass(frozen=True)
class Setting:
    """What the arms share: the modules, the examples they may learn from, and how a training on those is done."""

    base: Base
    modules: Sequence[Adapter]
    examples: Sequence[Example]
    template: str
    form: Form
    seed: int
    on_progress: OnProgress
    steps: int = 20
    learning_rate: float = 1e-3

    @property
    def rank(self) -> int:
        return largest_rank(self.modules)


def largest_rank(modules: Sequence[Adapter]) -> int:
    return max(pair.rank for module in modules for pair in module.pairs.values())


def quick(setting: Setting) -> dict[ComposeArm, Control]:
    """The base alone, the best single module, the plain average, and a fresh LoRA; without examples the first and the third."""
    arms: dict[ComposeArm, Control] = {"base": Control(None, {}), "average": _average(setting)}
    if setting.examples:
        single, made_by = _best_single(setting)
        arms |= {"best_single": Control(single, made_by), "fresh_lora": _fresh_lora(setting)}
    return arms


def full(
    setting: Setting,
    *,
    bound: float,
    others: Sequence[Adapter] = (),
    search: Callable[[Sequence[Adapter]], Adapter] | None = None,
) -> dict[ComposeArm, Control]:
    """All of `quick`, five solved examples in the prompt, random weights in [-bound, bound], the best single module trained further.

    `search` composes `others`, modules drawn at random where these were chosen from more.
    """
    arms = quick(setting)
    generator = random.Random(setting.seed)  # noqa: S311
    weights = [generator.uniform(-bound, bound) for _ in setting.modules]
    arms["random_weights"] = Control(_mixed(setting, weights), {"form": setting.form, "weights": weights})
    if setting.examples:
        arms["five_shot"] = Control(None, {"shots": min(SHOTS, len(setting.examples))}, setting.examples[:SHOTS])
        arms["best_single_tuned"] = _tuned(setting, *_best_single(setting))
    if others and search is not None:
        arms["random_modules"] = Control(search(others), {"modules": [module.name for module in others]})
    return arms


def _mixed(setting: Setting, weights: Sequence[float]) -> Adapter:
    return mixed(setting.base, setting.modules, weights, setting.form, "control")


def _average(setting: Setting) -> Control:
    share = 1 / len(setting.modules)
    return Control(_mixed(setting, [share] * len(setting.modules)), {"form": setting.form, "weight": share})


def _best_single(setting: Setting) -> tuple[Adapter, dict[str, Any]]:
    # Chosen by what the search itself saw, the loss on the examples, so that the held-out ones stay unseen.
    losses = losses_of(setting.base, setting.modules, setting.examples, setting.template)
    best = min(setting.modules, key=lambda module: losses[module.name])
    return best, {"module": best.name, "loss_on_examples": losses[best.name]}


def losses_of(base: Base, modules: Sequence[Adapter], examples: Sequence[Example], template: str) -> dict[str, float]:
    """Each module's mean loss per target token on the examples, by its name."""
    batches, losses = encoded(base, examples, template), {}
    for module in modules:
        with applied(base.model, module):
            losses[module.name] = mean_loss(base, batches)
    return losses


def _fresh_lora(setting: Setting) -> Control:
    """The modules' own largest rank, on every layer that any of them adapts, with alpha = 2 * rank as is usual."""
    paths = {path for module in setting.modules for path in module.pairs}
    recipe: dict[str, Any] = {
        "rank": setting.rank,
        "alpha": 2 * setting.rank,
        "target_modules": target_names(setting.base.model, paths),
        "steps": setting.steps,
        "learning_rate": setting.learning_rate,
        "ratio": 1.0,
        "batch_size": 8,
        "seed": setting.seed,
    }
    trained = train(
        setting.base, setting.examples, Recipe(**recipe), template=setting.template, on_progress=setting.on_progress
    )
    return Control(trained.adapter, recipe)


def _tuned(setting: Setting, start: Adapter, made_by: dict[str, Any]) -> Control:
    fit = tune(
        setting.base,
        start,
        setting.examples,
        template=setting.template,
        rank=setting.rank,
        steps=setting.steps,
        learning_rate=setting.learning_rate,
        seed=setting.seed,
        on_progress=setting.on_progress,
    )
    return Control(fit.adapter, {**made_by, **fit.settings})
