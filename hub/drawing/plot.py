"""Plots as inline SVG, drawn on the server: they need no script, and no library of one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

WIDTH, HEIGHT = 640, 200
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 28  # margins


Point = tuple[int, float]


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    name: str
    href: str
    group: str  # the class that colours it


def scatter(dots: Sequence[Dot], label: str) -> Markup:
    """Dots as links at their places, on one scale in both directions. A name that would lie over something is a title alone."""
    width, height, margin = 900, 520, 28
    xs, ys = [dot.x for dot in dots] or [0.0], [dot.y for dot in dots] or [0.0]
    scale = min((width - 2 * margin) / ((max(xs) - min(xs)) or 1), (height - 2 * margin) / ((max(ys) - min(ys)) or 1))
    middle = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    places = [(width / 2 + (dot.x - middle[0]) * scale, height / 2 - (dot.y - middle[1]) * scale) for dot in dots]
    taken = [(y, x - 7, x + 7) for x, y in places]  # of each thing drawn its height, and from where to where it goes
    parts = []
    for dot, (x, y) in zip(dots, places, strict=True):
        left = _free(x, y, 6.4 * len(dot.name), width, taken)
        text = ""
        if left is not None:
            taken.append((y, left, left + 6.4 * len(dot.name)))
            text = Markup('<text x="{:.1f}" y="{:.1f}">{}</text>').format(left, y + 4, dot.name)
        circle = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="6"><title>{}</title></circle>').format(
            dot.group, x, y, dot.name
        )
        parts.append(Markup('<a href="{}">{}{}</a>').format(dot.href, circle, text))
    head = Markup('<svg class="scatter" width="{0}" height="{1}" viewBox="0 0 {0} {1}" role="group" aria-label="{2}">')
    return head.format(width, height, label) + Markup().join(parts) + Markup("</svg>")


def _free(x: float, y: float, length: float, width: float, taken: Sequence[tuple[float, float, float]]) -> float | None:
    """Where a name may begin, to the right of its dot or to the left, without lying over anything."""
    for left in (x + 9, x - 9 - length):
        clear = all(abs(y - row) > 12 or left > end or left + length < start for row, start, end in taken)
        if clear and left > 0 and left + length < width:
            return left
    return None


def loss_trace(trace: Sequence[Mapping[str, Any]]) -> Markup:
    """A search's loss at every evaluation as dots, and the best objective so far as a line. Empty for fewer than two points."""
    found = [step for step in trace if step["loss"] is not None]
    dots = [(step["step"], step["loss"]) for step in found]
    line = [(step["step"], step["best"]) for step in found]
    return _plot(dots, line, "evaluation", "Loss on the examples at each evaluation of the search")


def training_curve(curve: Mapping[str, Any]) -> Markup:
    """A training's losses as dots, each the mean of `every` steps, and its validation losses as a line."""
    dots = [(number * curve["every"], loss) for number, loss in enumerate(curve["losses"], 1)]
    line = [(step, loss) for step, loss in curve["validations"] if step > 0]
    return _plot(dots, line, "step", "Training and validation loss at each step")


def reward_curve(curve: Mapping[str, Any]) -> Markup:
    """A reinforcement's mean rewards as dots, each the mean of `every` steps."""
    dots = [(number * curve["every"], row["reward"]) for number, row in enumerate(curve["steps"], 1)]
    return _plot(dots, [], "step", "Mean reward at each step", "reward")


def progress_curve(points: Sequence[Mapping[str, Any]]) -> Markup:
    """What a running part of a job has reported so far: its losses, or else its rewards, as dots, and the best so far or the validations
    as a line."""
    what = "loss" if any("loss" in point for point in points) else "reward"
    dots = [(point["step"], point[what]) for point in points if what in point]
    second = "best" if any("best" in point for point in points) else "validation_loss"
    line = [(point["step"], point[second]) for point in points if second in point]
    return _plot(dots, line, "step", f"The {what} at each step so far", what)


def _plot(dots: Sequence[Point], line: Sequence[Point], unit: str, label: str, what: str = "loss") -> Markup:
    if len(dots) < 2:
        return Markup()
    # One wild point would flatten all the others, so the axis ends at the ninth tenth of the losses if that is far below the largest.
    losses = sorted(loss for _, loss in dots)
    top = min(losses[-1], 2 * losses[math.ceil(0.9 * len(losses)) - 1])
    bottom = min(0.0, losses[0])
    last = max(step for step, _ in dots)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - 1) / max(1, last - 1)

    def y(loss: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (min(loss, top) - bottom) / ((top - bottom) or 1))

    circles = Markup().join(
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2.5"><title>{} {}: {} {:.3f}</title></circle>').format(
            x(step), y(loss), unit, step, what, loss
        )
        for step, loss in dots
    )
    corners = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in line)
    ticks = Markup().join(
        Markup(
            '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/><text x="{}" y="{:.1f}" class="y">{:.2f}</text>'
        ).format(LEFT, WIDTH - RIGHT, y(value), y(value), LEFT - 6, y(value) + 4, value)
        for value in sorted({bottom, (bottom + top) / 2, top})
    )
    ends = Markup('<text x="{}" y="{}">1</text><text x="{}" y="{}" class="y">{} {}s</text>').format(
        LEFT, HEIGHT - 8, WIDTH - RIGHT, HEIGHT - 8, last, unit
    )
    return Markup(
        '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}<polyline points="{}"/>{}</svg>'
    ).format(WIDTH, HEIGHT, label, ticks, ends, corners, circles)
