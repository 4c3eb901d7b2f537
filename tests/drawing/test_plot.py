"""Plots: every point at its place, outliers cut, nothing drawn of fewer than two points."""

import re

from hub.drawing.plot import search_plot, training_plot


def heights(svg: str) -> list[float]:
    return [float(height) for height in re.findall(r'cy="([0-9.]+)"', svg)]


def test_a_training_shows_every_loss_and_the_validations() -> None:
    svg = str(training_plot(every=5, losses=[4.0, 2.0, 1.0], validations=[(0, 5.0), (5, 3.0), (15, 1.5)]))
    assert re.findall(r"<title>([^<]+)</title>", svg) == [
        "step 5: loss 4.000",
        "step 10: loss 2.000",
        "step 15: loss 1.000",
    ]
    assert heights(svg) == sorted(heights(svg)), "a falling loss goes down the page"
    (line,) = re.findall(r'polyline points="([^"]+)"', svg)
    assert len(line.split()) == 2, "the untrained state is not on the axis of steps"
    assert ">15 steps<" in svg


def test_an_outlier_does_not_flatten_the_other_losses() -> None:
    falling = [(step, 1.0 - step / 100, 0.5) for step in range(1, 20)]
    svg = str(search_plot([*falling, (20, 1e6, 0.5)]))
    assert max(heights(svg)) - sorted(heights(svg))[1] > 10
    assert ">20 evaluations<" in svg


def test_fewer_than_two_points_are_not_plotted() -> None:
    assert not training_plot(every=1, losses=[1.0], validations=[])
    assert not search_plot([(1, 1.0, 1.0), (2, None, 1.0)])
