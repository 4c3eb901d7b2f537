"""Plots as inline SVG, drawn on the server, so that a page needs no script for them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

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
    group: str  # the CSS class that colours it


def scatter(dots: Sequence[Dot], label: str) -> Markup:
    """Dots as links, on one scale in both directions. A name that would overlap something is only the dot's title."""
    width, height, margin = 900, 520, 28
    xs, ys = [dot.x for dot in dots] or [0.0], [dot.y for dot in dots] or [0.0]
    scale = min((width - 2 * margin) / ((max(xs) - min(xs)) or 1), (height - 2 * margin) / ((max(ys) - min(ys)) or 1))
    middle = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    centres = [(width / 2 + (dot.x - middle[0]) * scale, height / 2 - (dot.y - middle[1]) * scale) for dot in dots]
    drawn = [(y, x - 7, x + 7) for x, y in centres]  # (height, left end, right end) of everything drawn so far
    parts = []
    for dot, (x, y) in zip(dots, centres, strict=True):
        left = _free(x, y, 6.4 * len(dot.name), width, drawn)
        text = ""
        if left is not None:
            drawn.append((y, left, left + 6.4 * len(dot.name)))
            text = Markup('<text x="{:.1f}" y="{:.1f}">{}</text>').format(left, y + 4, dot.name)
        circle = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="6"><title>{}</title></circle>').format(
            dot.group, x, y, dot.name
        )
        parts.append(Markup('<a href="{}">{}{}</a>').format(dot.href, circle, text))
    head = Markup('<svg class="scatter" width="{0}" height="{1}" viewBox="0 0 {0} {1}" role="group" aria-label="{2}">')
    return head.format(width, height, label) + Markup().join(parts) + Markup("</svg>")


def _free(x: float, y: float, length: float, width: float, drawn: Sequence[tuple[float, float, float]]) -> float | None:
    """Where a name may begin, to the right of its dot or to the left, without overlapping anything; None where it cannot."""
    for left in (x + 9, x - 9 - length):
        clear = all(abs(y - row) > 12 or left > end or left + length < start for row, start, end in drawn)
        if clear and left > 0 and left + length < width:
            return left
    return None


def search_plot(evaluations: Iterable[tuple[int, float | None, float | None]]) -> Markup:
    """A search's loss at every evaluation as dots, and the best objective so far as a line. Empty for fewer than two points.

    `evaluations` are (step, loss, best objective so far); one whose loss is not finite has None, and is left out.
    """
    finite = [(step, loss, best) for step, loss, best in evaluations if loss is not None]
    dots = [(step, loss) for step, loss, _ in finite]
    line = [(step, best) for step, _, best in finite if best is not None]
    return _plot(dots, line, "evaluation", "Loss on the examples at each evaluation of the search")


def training_plot(every: int, losses: Sequence[float], validations: Sequence[Point]) -> Markup:
    """A training's losses as dots and its validation losses, as (step, loss), as a line. A dot is the mean of `every` steps."""
    dots = [(number * every, loss) for number, loss in enumerate(losses, 1)]
    line = [(step, loss) for step, loss in validations if step > 0]
    return _plot(dots, line, "step", "Training and validation loss at each step")


def reward_plot(every: int, rewards: Sequence[float]) -> Markup:
    """A reinforcement's mean rewards as dots. A dot is the mean of `every` steps."""
    dots = [(number * every, reward) for number, reward in enumerate(rewards, 1)]
    return _plot(dots, [], "step", "Mean reward at each step", "reward")


def progress_plot(points: Sequence[tuple[int, Mapping[str, float]]]) -> Markup:
    """What a running part of a job has reported so far, as (step, figures by name).

    Its losses, or else its rewards, are dots; the best objective so far, or else the validation losses, are a line.
    """
    what = "loss" if any("loss" in figures for _, figures in points) else "reward"
    dots = [(step, figures[what]) for step, figures in points if what in figures]
    second = "best" if any("best" in figures for _, figures in points) else "validation_loss"
    line = [(step, figures[second]) for step, figures in points if second in figures]
    return _plot(dots, line, "step", f"The {what} at each step so far", what)


def _plot(dots: Sequence[Point], line: Sequence[Point], unit: str, label: str, what: str = "loss") -> Markup:
    if len(dots) < 2:
        return Markup()
    # One outlier would flatten all other points, so the axis ends at twice the ninth decile where the largest loss lies above that.
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
