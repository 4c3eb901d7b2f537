"""Summarize a report as the pages of a job and of a module show it: whether the result helped, and its figures beside its controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hub.vocabulary import ENOUGH_EXAMPLES, Metric

# What each metric counts, in the order in which tables show them.
METRICS: Mapping[Metric, str] = {
    "exact_match": "share that match exactly",
    "contains": "share that contain the target",
    "numeric": "share with the right number",
    "choice": "share with the right choice",
    "target_loss": "nats per target token",
}

Arm = Mapping[str, Any]  # of a report: its name, and by metric a mean with its interval
Comparison = Mapping[str, Any]  # of a report: by metric the result's difference to one arm


@dataclass(frozen=True)
class ReportSummary:
    """A report in the order in which a page shows it."""

    tone: str  # of the headline: "good", "warn", "bad" or ""
    headline: str  # whether the result helped
    metrics: Sequence[Metric]  # those measured
    compared: Sequence[Metric]  # those of which the differences are known
    first: Metric  # the one that decides, and is drawn
    scale: tuple[float, float]  # of the drawing
    ours: str  # the arm that is the result
    rows: Sequence[tuple[Arm, Comparison | None]]  # every arm; the result's own has no comparison


def summarize_report(report: Mapping[str, Any]) -> ReportSummary:
    metrics = [name for name in METRICS if name in report["arms"][0]]
    differences = {line["against"]: line for line in report["comparisons"]}
    ours = next((arm["name"] for arm in report["arms"] if arm["name"] not in differences), "")
    compared = [name for name in metrics if differences and all(name in line for line in differences.values())]
    first = compared[0] if compared else metrics[0]
    tone, headline = _verdict(report, {name: _side(line, first) for name, line in differences.items() if compared})
    values = [arm[first][end] for arm in report["arms"] for end in ("low", "high")]
    return ReportSummary(
        tone=tone,
        headline=headline,
        metrics=metrics,
        compared=compared,
        first=first,
        scale=(min(0.0, *values), max(1.0, *values) if first != "target_loss" else max(values)),
        ours=ours,
        rows=[(arm, differences.get(arm["name"])) for arm in report["arms"]],
    )


def _side(line: Comparison, metric: Metric) -> int:
    """1 where the result is better than the other arm for certain, -1 where it is worse, 0 where the interval holds both."""
    low, high = line[metric]["low"], line[metric]["high"]
    if metric == "target_loss":
        low, high = -high, -low
    return 1 if low > 0 else -1 if high < 0 else 0


def _verdict(report: Mapping[str, Any], sides: Mapping[str, int]) -> tuple[str, str]:
    """(tone, headline). `sides`: by arm, whether the result is better."""
    if report["held_out"] < ENOUGH_EXAMPLES:
        return (
            "",
            f"Too few held-out examples to say whether it helped: {report['held_out']} of the {ENOUGH_EXAMPLES} needed.",
        )
    against_base = sides.get("base", 0)
    if against_base < 0:
        return "bad", "It did harm: it is worse than the base alone."
    if against_base == 0:
        return "", "It is not shown to help: nothing tells it from the base alone."
    rest = [side for name, side in sides.items() if name != "base"]
    if all(side > 0 for side in rest):
        return "good", "It helped." if not rest else "It helped, and is better than all it was set beside."
    if any(side < 0 for side in rest):
        return "warn", "It is better than the base alone, but something simpler is better still."
    return "", "It is better than the base alone, but not shown to beat all that is simpler."
