"""Plots: every point at its place, wild ones cut, nothing drawn of nothing."""

import re

from hub.drawing.plot import loss_trace, training_curve


def heights(svg: str) -> list[float]:
    return [float(height) for height in re.findall(r'cy="([0-9.]+)"', svg)]


def test_a_training_shows_every_loss_and_the_validations() -> None:
    curve = {"every": 5, "losses": [4.0, 2.0, 1.0], "validations": [(0, 5.0), (5, 3.0), (15, 1.5)]}
    svg = str(training_curve(curve))
    assert re.findall(r"<title>([^<]+)</title>", svg) == [
        "step 5: loss 4.000",
        "step 10: loss 2.000",
        "step 15: loss 1.000",
    ]
    assert heights(svg) == sorted(heights(svg)), "a falling loss goes down the page"
    (line,) = re.findall(r'polyline points="([^"]+)"', svg)
    assert len(line.split()) == 2, "the untrained state is not on the axis of steps"
    assert ">15 steps<" in svg


def test_one_wild_loss_does_not_flatten_the_others() -> None:
    tame = [{"step": step, "loss": 1.0 - step / 100, "best": 0.5} for step in range(1, 20)]
    wild = [*tame, {"step": 20, "loss": 1e6, "best": 0.5}]
    assert max(heights(str(loss_trace(wild)))) - sorted(heights(str(loss_trace(wild))))[1] > 10
    assert ">20 evaluations<" in str(loss_trace(wild))


def test_fewer_than_two_points_are_no_plot() -> None:
    assert not training_curve({"every": 1, "losses": [1.0], "validations": []})
    assert not loss_trace([{"step": 1, "loss": 1.0, "best": 1.0}, {"step": 2, "loss": None, "best": 1.0}])
