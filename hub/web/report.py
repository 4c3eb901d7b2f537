"""Summarize a report as the pages of a job and of an adapter show it: whether the result helped, and its figures beside its controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hub.formats.report import Arm, Comparison, Report
from hub.vocabulary import ENOUGH_EXAMPLES, Metric

# What the metrics count.
METRICS: Mapping[Metric, str] = {
    "exact_match": "share that match exactly",
    "contains": "share that contain the target",
    "numeric": "share with the right number",
    "choice": "share with the right choice",
    "target_loss": "nats per target token",
}

Tone = Literal["good", "warn", "bad", ""]


@dataclass(frozen=True)
class ReportSummary:
    """A report in the order in which a page shows it."""

    tone: Tone  # of the headline
    headline: str  # whether the result helped
    metrics: Sequence[Metric]  # those measured
    compared: Sequence[Metric]  # those of which the differences are known
    first: Metric  # the one that decides, and is drawn
    scale: tuple[float, float]  # of the drawing
    ours: str  # the arm that is the result
    rows: Sequence[tuple[Arm, Comparison | None]]  # every arm; the result's own has no comparison


def summarize_report(report: Report) -> ReportSummary:
    metrics = list(report.arms[0].estimates)
    comparisons = {comparison.against: comparison for comparison in report.comparisons}
    compared = [metric for metric in metrics if comparisons and all(line.of(metric) for line in report.comparisons)]
    first = compared[0] if compared else metrics[0]
    tone, headline = _verdict(report, {arm: _side(line, first) for arm, line in comparisons.items()})
    values = [value for arm in report.arms for value in _ends(arm, first)]
    return ReportSummary(
        tone=tone,
        headline=headline,
        metrics=metrics,
        compared=compared,
        first=first,
        scale=(min(0.0, *values), max(1.0, *values) if first != "target_loss" else max(values)),
        ours=next((arm.name for arm in report.arms if arm.name not in comparisons), ""),
        rows=[(arm, comparisons.get(arm.name)) for arm in report.arms],
    )


def _ends(figures: Arm | Comparison, metric: Metric) -> tuple[float, ...]:
    estimate = figures.of(metric)
    return (estimate.low, estimate.high) if estimate else ()


def _side(comparison: Comparison, metric: Metric) -> int:
    """1 where the result is certainly better than the arm, -1 where it is worse, 0 where the interval leaves that open."""
    low, high = _ends(comparison, metric) or (0.0, 0.0)
    if metric == "target_loss":
        low, high = -high, -low
    return 1 if low > 0 else -1 if high < 0 else 0


def _verdict(report: Report, sides: Mapping[str, int]) -> tuple[Tone, str]:
    """(tone, headline). `sides`: by arm, whether the result is better."""
    if report.held_out < ENOUGH_EXAMPLES:
        needed = f"{report.held_out} of the {ENOUGH_EXAMPLES} needed"
        return "", f"Too few held-out examples to say whether it helped: {needed}."
    against_base = sides.get("base", 0)
    if against_base < 0:
        return "bad", "It did harm: it is worse than the base alone."
    if against_base == 0:
        return "", "It is not shown to help: nothing tells it from the base alone."
    others = [side for arm, side in sides.items() if arm != "base"]
    if all(side > 0 for side in others):
        return "good", "It helped." if not others else "It helped, and is better than all it was set beside."
    if any(side < 0 for side in others):
        return "warn", "It is better than the base alone, but something simpler is better still."
    return "", "It is better than the base alone, but not shown to beat all that is simpler."
