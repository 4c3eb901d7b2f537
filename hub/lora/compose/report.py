"""Does a composition earn its keep? It is set beside what is simpler, on examples that none of the arms has seen.

Two arms are compared example by example, by a paired bootstrap, since most of the spread lies between examples and not between arms.
The controls themselves stand in `hub.lora.compose.controls`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hub.intervals import paired_bootstrap
from hub.lora.compose.controls import Control
from hub.lora.core.bases import Base
from hub.lora.core.errors import LoraError
from hub.lora.core.evaluate import Estimate, Scores, evaluate
from hub.lora.core.examples import Example, OnProgress
from hub.vocabulary import ENOUGH_EXAMPLES, ComposeArm, Metric

# Tokens that an answer may have beyond the longest target: its end, and what exact match forgives (a full stop, white space).
SLACK = 4

_WORDS: dict[ComposeArm, str] = {
    "base": "the base alone",
    "five_shot": "the base shown examples in its prompt",
    "best_single": "the best single module",
    "average": "the plain average of the modules",
    "random_weights": "the modules at random weights",
    "random_modules": "a composition of modules drawn at random",
    "fresh_lora": "a fresh LoRA trained on the same examples",
    "best_single_tuned": "the best single module, trained further on the same examples",
    "untuned": "the composition before its tuning",
    "composition": "the composition",
}


class HeldOutUnusable(LoraError):
    code = "held_out_unusable"


@dataclass(frozen=True)
class Arm:
    """`exact_match` is a share from 0 to 1; `target_loss` is each example's mean negative log-likelihood per target token, averaged.

    `prompt_tokens` and `seconds_an_answer` are means: what the arm costs whoever uses it, on this machine in batches.
    """

    name: ComposeArm
    made_by: dict[str, Any]
    exact_match: Estimate
    target_loss: Estimate
    prompt_tokens: float
    seconds_an_answer: float


@dataclass(frozen=True)
class Comparison:
    """Composition minus the arm `against`: good is above zero for exact match, below zero for the loss."""

    against: ComposeArm
    exact_match: Estimate
    target_loss: Estimate


@dataclass(frozen=True)
class Report:
    """`strongest` is the control with the highest held-out exact match, or the lowest loss among equals. It is picked on the held-out
    examples themselves, which flatters the controls, so `beats` errs towards no. `beats` also needs ENOUGH examples."""

    arms: list[Arm]
    comparisons: list[Comparison]
    strongest: ComposeArm
    beats: bool
    verdict: str
    examples: int
    held_out: int


def report(
    base: Base,
    arms: Mapping[ComposeArm, Control],
    held_out: Sequence[Example],
    *,
    template: str,
    examples: int,
    batch_size: int = 32,
    seed: int = 0,
    on_progress: OnProgress,
) -> Report:
    """Score every arm, the composition among them, on `held_out`; `examples` says how many the composition was made from.

    Whatever `on_progress(step, total, values)` raises ends the work between batches, with the base as it was.
    """
    total, room = len(arms) * len(held_out), longest_target(base, held_out) + SLACK
    scores: dict[ComposeArm, Scores] = {}
    for index, name in enumerate(name for name in _WORDS if name in arms):
        arm = arms[name]
        scores[name] = evaluate(
            base,
            arm.adapter,
            held_out,
            template=template,
            metrics=("exact_match", "target_loss"),
            max_new_tokens=room,
            batch_size=batch_size,
            seed=seed,
            shots=arm.shots,
            on_progress=_after(index * len(held_out), total, on_progress),
        )
    return compared(scores, {name: arm.made_by for name, arm in arms.items()}, examples=examples, seed=seed)


def _after(done: int, total: int, on_progress: OnProgress) -> OnProgress:
    return lambda step, _of, values: on_progress(done + step, total, values)


def check_held_out(examples: Sequence[Example], held_out: Sequence[Example]) -> None:
    """Raises HeldOutUnusable if there is nothing held out, or something that the search would see."""
    if not held_out:
        raise HeldOutUnusable(f"There are no held-out examples; give at least one, and {ENOUGH_EXAMPLES} for a claim.")
    seen = {example.input.strip() for example in examples}
    shared = [example.input for example in held_out if example.input.strip() in seen]
    if shared:
        raise HeldOutUnusable(
            f"{len(shared)} of {len(held_out)} held-out inputs are also among the examples (the first is {shared[0][:80]!r}), so the "
            "report would measure memory. Remove them from one of the two."
        )


def longest_target(base: Base, examples: Sequence[Example]) -> int:
    """In tokens. A longer answer cannot match exactly, so writing it to its end would only cost time."""
    targets = [f" {example.target}" for example in examples]
    return max(len(tokens) for tokens in base.tokenizer(targets, add_special_tokens=False)["input_ids"])


def compared(
    scores: Mapping[ComposeArm, Scores], made_by: Mapping[ComposeArm, dict[str, Any]], *, examples: int, seed: int
) -> Report:
    """The report, from every arm's scores of the same held-out examples in the same order."""
    arms = [
        Arm(
            name,
            made_by[name],
            score.estimates["exact_match"],
            score.estimates["target_loss"],
            score.prompt_tokens,
            score.seconds,
        )
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
        beats=held_out >= ENOUGH_EXAMPLES and decisive.exact_match.low > 0,
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
    if held_out < ENOUGH_EXAMPLES:
        return f"No claim: {held_out} held-out examples are too few, {ENOUGH_EXAMPLES} are needed. Against {control}: {figures}."
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
