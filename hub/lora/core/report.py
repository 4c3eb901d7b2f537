"""A result beside what it is compared with, on held-out examples that none of them has seen; and what the figures say in words.

Two arms are compared example by example, by a paired bootstrap, since most of the spread lies between examples and not between arms.
"""

from collections.abc import Mapping, Sequence

from hub.formats.report import Arm, Comparison, Estimate, Report
from hub.intervals import paired_bootstrap
from hub.lora.core.bases import Base
from hub.lora.core.errors import LoraError
from hub.lora.core.evaluate import Scores
from hub.lora.core.examples import Example
from hub.vocabulary import ENOUGH_EXAMPLES, Metric

# Tokens that an answer may have beyond the longest target: its end, and what exact match forgives (a full stop, white space).
SLACK = 4

MEASURED: tuple[Metric, ...] = ("exact_match", "target_loss")

MadeBy = Mapping[str, Mapping[str, object]]  # by arm, enough to make it again, as JSON


class HeldOutUnusable(LoraError):
    code = "held_out_unusable"


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


def paired_report(
    scores: Mapping[str, Scores],
    ours: str,
    words: Mapping[str, str],
    made_by: MadeBy,
    *,
    seed: int,
    metrics: Sequence[Metric] = MEASURED,
) -> Report:
    """`ours` beside every other arm, and a sentence about the first of the metrics; `words` say what the other arms are.

    All scores are of the same held-out examples in the same order.
    """
    comparisons = _comparisons(scores, ours, metrics, seed)
    count = len(scores[ours].values["exact_match"])
    return Report(
        held_out=count,
        arms=_arms(scores, made_by),
        comparisons=comparisons,
        verdict=_verdict_on_each(comparisons, ours, words, count, metrics[0]),
    )


def report_against_strongest(
    scores: Mapping[str, Scores], ours: str, words: Mapping[str, str], made_by: MadeBy, *, examples: int, seed: int
) -> Report:
    """`ours` beside every control, and a sentence about the strongest of them, with what each arm costs whoever uses it.

    The strongest is the control with the highest held-out exact match, or the lowest loss among equals. It is picked on the held-out
    examples themselves, which flatters the controls, so `beats` errs towards no; `beats` also needs ENOUGH_EXAMPLES. `examples` says how
    many the result was made from.
    """
    comparisons = _comparisons(scores, ours, MEASURED, seed)
    controls = {name: score.estimates for name, score in scores.items() if name != ours}
    strongest = max(
        controls, key=lambda name: (controls[name]["exact_match"].mean, -controls[name]["target_loss"].mean)
    )
    exact, loss = (_difference(scores[ours], scores[strongest], metric, seed) for metric in MEASURED)
    held_out = len(scores[ours].values["exact_match"])
    costs = {
        name: {"prompt_tokens": score.prompt_tokens, "seconds_an_answer": score.seconds}
        for name, score in scores.items()
    }
    return Report(
        held_out=held_out,
        arms=[arm.model_copy(update=costs[arm.name]) for arm in _arms(scores, made_by)],
        comparisons=comparisons,
        verdict=_verdict_on_strongest(ours, words[strongest], exact, loss, held_out),
        strongest=strongest,
        beats=held_out >= ENOUGH_EXAMPLES and exact.low > 0,
        examples=examples,
    )


def _arms(scores: Mapping[str, Scores], made_by: MadeBy) -> list[Arm]:
    return [
        Arm.model_validate({"name": name, "made_by": made_by.get(name, {}), **score.estimates})
        for name, score in scores.items()
    ]


def _comparisons(scores: Mapping[str, Scores], ours: str, metrics: Sequence[Metric], seed: int) -> list[Comparison]:
    return [
        Comparison.model_validate(
            {"against": name} | {metric: _difference(scores[ours], score, metric, seed) for metric in metrics}
        )
        for name, score in scores.items()
        if name != ours
    ]


def _difference(ours: Scores, theirs: Scores, metric: Metric, seed: int) -> Estimate:
    return Estimate(*paired_bootstrap(ours.values[metric], theirs.values[metric], seed=seed))


def _verdict_on_each(
    comparisons: Sequence[Comparison], ours: str, words: Mapping[str, str], count: int, metric: Metric
) -> str:
    if count < ENOUGH_EXAMPLES:
        return f"No claim: {count} held-out examples are too few, {ENOUGH_EXAMPLES} are needed."
    parts = []
    for comparison in comparisons:
        difference = comparison.estimates[metric]
        word = "better than" if difference.low > 0 else "worse than" if difference.high < 0 else "not told apart from"
        parts.append(f"{word} {words[comparison.against]} ({_signed(difference)} in {metric.replace('_', ' ')})")
    return f"On {count} held-out examples the {_noun(ours)} is {'; '.join(parts)}."


def _verdict_on_strongest(ours: str, strongest: str, exact: Estimate, loss: Estimate, held_out: int) -> str:
    control = f"{strongest}, the strongest control on the {held_out} held-out examples"
    figures = f"difference in exact match {_signed(exact)}, in target loss {_signed(loss)}"
    if held_out < ENOUGH_EXAMPLES:
        return f"No claim: {held_out} held-out examples are too few, {ENOUGH_EXAMPLES} are needed. Against {control}: {figures}."
    if exact.low > 0:
        return f"The {_noun(ours)} beats {control}: {figures}."
    if exact.high < 0:
        return f"The {_noun(ours)} does not beat {control}, it is worse: {figures}."
    aside = (
        " Its target loss is lower beyond the interval, but that has not made more answers right."
        if loss.high < 0
        else ""
    )
    return f"The {_noun(ours)} does not beat {control}: {figures}.{aside}"


def _noun(arm: str) -> str:
    """The arm `module` is the adapter that a job has made."""
    return "adapter" if arm == "module" else arm


def _signed(estimate: Estimate) -> str:
    return f"{estimate.mean:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]"
