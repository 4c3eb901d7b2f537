"""Does a composition earn its keep? It is set beside what is simpler, on examples that none of the arms has seen.

Controls: the base alone, the best single module, the plain average, and a fresh LoRA trained on the very same examples (which in
table 1 of arXiv 2307.13269 is better than LoraHub on average, and in arXiv 2602.12323 about as good as adaptive merging). Two arms
are compared example by example, by a paired bootstrap, since most of the spread lies between examples and not between arms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hub.lora.adapter import Adapter, applied
from hub.lora.bases import Base
from hub.lora.compose import Composition, encoded, mean_loss
from hub.lora.errors import LoraError
from hub.lora.evaluate import Estimate, Metric, Scores, evaluate
from hub.lora.examples import Example, OnProgress, paired_bootstrap
from hub.lora.forms import mixed, target_names
from hub.lora.train import Recipe, train

ENOUGH = 100  # held-out examples below which no claim is made: at 100, a share near one half is known to about +-0.1

# Tokens that an answer may have beyond the longest target: its end, and what exact match forgives (a full stop, white space).
SLACK = 4

ArmName = Literal["base", "best_single", "average", "fresh_lora", "composition"]

_WORDS: dict[ArmName, str] = {
    "base": "the base alone",
    "best_single": "the best single module",
    "average": "the plain average of the modules",
    "fresh_lora": "a fresh LoRA trained on the same examples",
    "composition": "the composition",
}


class HeldOutUnusable(LoraError):
    code = "held_out_unusable"


@dataclass(frozen=True)
class Arm:
    """`exact_match` is a share from 0 to 1; `target_loss` is each example's mean negative log-likelihood per target token, averaged."""

    name: ArmName
    made_by: dict[str, Any]
    exact_match: Estimate
    target_loss: Estimate


@dataclass(frozen=True)
class Comparison:
    """Composition minus the arm `against`: good is above zero for exact match, below zero for the loss."""

    against: ArmName
    exact_match: Estimate
    target_loss: Estimate


@dataclass(frozen=True)
class Report:
    """`strongest` is the control with the highest held-out exact match, or the lowest loss among equals. It is picked on the held-out
    examples themselves, which flatters the controls, so `beats` errs towards no. `beats` also needs ENOUGH examples."""

    arms: list[Arm]
    comparisons: list[Comparison]
    strongest: ArmName
    beats: bool
    verdict: str
    examples: int
    held_out: int


def report(
    base: Base,
    modules: Sequence[Adapter],
    composition: Composition,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    *,
    batch_size: int = 32,
    fresh_steps: int = 40,
    fresh_learning_rate: float = 5e-4,
    seed: int = 0,
    on_progress: OnProgress,
) -> Report:
    """Score the composition of `modules` on `examples`, and its controls, on `held_out`.

    Raises HeldOutUnusable when `held_out` is empty or shares an input with `examples`. Whatever `on_progress(step, total, values)`
    raises ends the work between batches or training steps, with the base as it was.
    """
    check_held_out(examples, held_out)
    template, form = composition.settings["template"], composition.settings["form"]
    total = fresh_steps + 5 * len(held_out)
    room = longest_target(base, held_out) + SLACK
    share = 1 / len(modules)
    single, single_made_by = _best_single(base, modules, examples, template)
    recipe = _fresh_recipe(base, modules, fresh_steps, fresh_learning_rate, seed)
    progress = _part(on_progress, 0, fresh_steps, total)
    fresh = train(base, examples, Recipe(**recipe), template=template, on_progress=progress).adapter
    arms: dict[ArmName, tuple[Adapter | None, dict[str, Any]]] = {
        "base": (None, {}),
        "best_single": (single, single_made_by),
        "average": (mixed(base, modules, [share] * len(modules), form, "average"), {"form": form, "weight": share}),
        "fresh_lora": (fresh, recipe),
        "composition": (composition.adapter, {"form": form, "weights": composition.weights}),
    }
    scores: dict[ArmName, Scores] = {}
    for index, (name, (adapter, _)) in enumerate(arms.items()):
        scores[name] = evaluate(
            base,
            adapter,
            held_out,
            template=template,
            metrics=("exact_match", "target_loss"),
            max_new_tokens=room,
            batch_size=batch_size,
            seed=seed,
            on_progress=_part(on_progress, fresh_steps + index * len(held_out), len(held_out), total),
        )
    made_by = {name: made_by for name, (_, made_by) in arms.items()}
    return compared(scores, made_by, examples=len(examples), seed=seed)


def check_held_out(examples: Sequence[Example], held_out: Sequence[Example]) -> None:
    """Raises HeldOutUnusable if there is nothing held out, or something that the search would see."""
    if not held_out:
        raise HeldOutUnusable(f"There are no held-out examples; give at least one, and {ENOUGH} for a claim.")
    seen = {example.input.strip() for example in examples}
    shared = [example.input for example in held_out if example.input.strip() in seen]
    if shared:
        raise HeldOutUnusable(
            f"{len(shared)} of {len(held_out)} held-out inputs are also among the examples (the first is {shared[0][:80]!r}), so the "
            "report would measure memory. Remove them from one of the two."
        )


def _best_single(
    base: Base, modules: Sequence[Adapter], examples: Sequence[Example], template: str
) -> tuple[Adapter, dict[str, Any]]:
    # Chosen by what the search itself saw, the loss on the examples, so that the held-out ones stay unseen.
    batches = encoded(base, examples, template)
    losses = {}
    for module in modules:
        with applied(base.model, module):
            losses[module.name] = mean_loss(base, batches)
    best = min(modules, key=lambda module: losses[module.name])
    return best, {"module": best.name, "loss_on_examples": losses[best.name]}


def _fresh_recipe(
    base: Base, modules: Sequence[Adapter], steps: int, learning_rate: float, seed: int
) -> dict[str, Any]:
    """The modules' own largest rank, on every layer that any of them adapts, with alpha = 2 * rank as is usual."""
    paths = {path for module in modules for path in module.pairs}
    rank = max(pair.rank for module in modules for pair in module.pairs.values())
    return {
        "rank": rank,
        "alpha": 2 * rank,
        "target_modules": target_names(base.model, paths),
        "steps": steps,
        "learning_rate": learning_rate,
        "ratio": 1.0,
        "batch_size": 8,
        "seed": seed,
    }


def longest_target(base: Base, examples: Sequence[Example]) -> int:
    """In tokens. A longer answer cannot match exactly, so writing it to its end would only cost time."""
    targets = [f" {example.target}" for example in examples]
    return max(len(tokens) for tokens in base.tokenizer(targets, add_special_tokens=False)["input_ids"])


def _part(on_progress: OnProgress, start: int, size: int, total: int) -> OnProgress:
    def forward(step: int, of: int, values: dict[str, float]) -> None:
        on_progress(start + size * step // of, total, values)

    return forward


def compared(
    scores: Mapping[ArmName, Scores], made_by: Mapping[ArmName, dict[str, Any]], *, examples: int, seed: int
) -> Report:
    """The report, from every arm's scores of the same held-out examples in the same order."""
    arms = [
        Arm(name, made_by[name], score.estimates["exact_match"], score.estimates["target_loss"])
        for name, score in scores.items()
    ]
    controls = [arm for arm in arms if arm.name != "composition"]
    strongest = max(controls, key=lambda arm: (arm.exact_match.mean, -arm.target_loss.mean)).name
    ours = scores["composition"]
    comparisons = [
        Comparison(
            arm.name,
            _difference(ours, scores[arm.name], "exact_match", seed),
            _difference(ours, scores[arm.name], "target_loss", seed),
        )
        for arm in controls
    ]
    decisive = next(comparison for comparison in comparisons if comparison.against == strongest)
    held_out = len(ours.values["exact_match"])
    return Report(
        arms=arms,
        comparisons=comparisons,
        strongest=strongest,
        beats=held_out >= ENOUGH and decisive.exact_match.low > 0,
        verdict=_verdict(decisive, held_out),
        examples=examples,
        held_out=held_out,
    )


def _difference(ours: Scores, theirs: Scores, metric: Metric, seed: int) -> Estimate:
    return Estimate(*paired_bootstrap(ours.values[metric], theirs.values[metric], seed=seed))


def _verdict(decisive: Comparison, held_out: int) -> str:
    exact, loss = decisive.exact_match, decisive.target_loss
    control = f"{_WORDS[decisive.against]}, the strongest control on the {held_out} held-out examples"
    figures = f"difference in exact match {_signed(exact)}, in target loss {_signed(loss)}"
    if held_out < ENOUGH:
        return f"No claim: {held_out} held-out examples are too few, {ENOUGH} are needed. Against {control}: {figures}."
    if exact.low > 0:
        return f"The composition beats {control}: {figures}."
    if exact.high < 0:
        return f"The composition does not beat {control}, it is worse: {figures}."
    aside = (
        " Its target loss is lower beyond the interval, but that has not made more answers right."
        if loss.high < 0
        else ""
    )
    return f"The composition does not beat {control}: {figures}.{aside}"


def _signed(estimate: Estimate) -> str:
    return f"{estimate.mean:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]"
