"""The report of a result beside what it is compared with, example by example."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hub.intervals import paired_bootstrap
from hub.lora.core.evaluate import Estimate, Scores
from hub.vocabulary import ENOUGH_EXAMPLES, Metric
from workers.runtime.work import Work

METRICS: tuple[Metric, ...] = ("exact_match", "target_loss")


def paired_report(
    scores: Mapping[str, Scores],
    ours: str,
    words: Mapping[str, str],
    made_by: Mapping[str, Mapping[str, Any]],
    *,
    seed: int,
    metrics: Sequence[Metric] = METRICS,
) -> dict[str, Any]:
    """Arms, differences of `ours` to each other arm with paired intervals, and a sentence about the first of the metrics; `words` say
    what the other arms are."""
    shown = [
        {
            "name": name,
            "made_by": made_by.get(name, {}),
            **{str(metric): asdict(estimate) for metric, estimate in each.estimates.items()},
        }
        for name, each in scores.items()
    ]
    comparisons = [
        {"against": name, **{str(metric): _difference(scores[ours], each, metric, seed) for metric in metrics}}
        for name, each in scores.items()
        if name != ours
    ]
    count = len(scores[ours].values["exact_match"])
    return {
        "held_out": count,
        "arms": shown,
        "comparisons": comparisons,
        "verdict": _verdict(comparisons, ours, words, count, metrics[0]),
    }


def registered(work: Work, scores: Mapping[str, Scores], ours: str) -> list[dict[str, Any]]:
    """The figures of the result, whose commit the runner adds, and of the base, as the registry keeps them."""
    if not scores:
        return []
    source = work.params["held_out"]
    what = {
        "base_id": work.base.id,
        "dataset_commit": source["commit"],
        "dataset_path": source["path"],
        "template": work.params["template"],
        "examples": len(scores[ours].answers),
    }
    found = []
    for name, pins in ((ours, {}), ("base", {"commit_id": None})):
        for metric, estimate in scores[name].estimates.items():
            figures = {"metric": metric, "value": estimate.mean, "low": estimate.low, "high": estimate.high}
            found.append({**what, **pins, **figures, "per_example": scores[name].values[metric]})
    return found


def _difference(ours: Scores, theirs: Scores, metric: Metric, seed: int) -> dict[str, float]:
    return asdict(Estimate(*paired_bootstrap(ours.values[metric], theirs.values[metric], seed=seed)))


def _verdict(
    comparisons: Sequence[Mapping[str, Any]], ours: str, words: Mapping[str, str], count: int, metric: Metric
) -> str:
    if count < ENOUGH_EXAMPLES:
        return f"No claim: {count} held-out examples are too few, {ENOUGH_EXAMPLES} are needed."
    said = []
    for line in comparisons:
        found = line[metric]
        word = "better than" if found["low"] > 0 else "worse than" if found["high"] < 0 else "not told apart from"
        said.append(
            f"{word} {words[line['against']]} ({found['mean']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}] in "
            f"{metric.replace('_', ' ')})"
        )
    return f"On {count} held-out examples the {ours} is {'; '.join(said)}."
