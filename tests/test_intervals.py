"""Intervals against their definitions and a published example."""

import itertools
import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy
import pytest

from hub.intervals import bootstrap_interval, paired_bootstrap, share_interval


def exact_bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """The 2.5 % and 97.5 % points of the mean over all n^n resamples, each as likely as any other."""
    means = [sum(drawn) / len(values) for drawn in itertools.product(values, repeat=len(values))]
    low, high = numpy.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def test_bootstrap_agrees_with_all_resamples_there_are() -> None:
    values = [0.1, 2.0, 0.7, 1.1, 3.2, 0.4]
    mean, low, high = bootstrap_interval(values, seed=1)
    assert mean == pytest.approx(1.25)
    # 2000 of the 46,656 resamples: the ends are known to about two hundredths of the values' spread.
    assert (low, high) == pytest.approx(exact_bootstrap(values), abs=0.1)
    assert bootstrap_interval(values, seed=1) == (mean, low, high)
    assert bootstrap_interval(values, seed=2) != (mean, low, high)
    narrower = bootstrap_interval(values, seed=1, level=0.5)
    assert low < narrower[1] < narrower[2] < high


def test_paired_bootstrap_looks_at_the_differences_alone() -> None:
    ours, theirs = [5.0, 1.0, 9.0, 3.0], [4.5, 0.5, 8.5, 2.5]
    assert paired_bootstrap(ours, theirs, seed=0) == (0.5, 0.5, 0.5)
    assert paired_bootstrap(theirs, ours, seed=0) == (-0.5, -0.5, -0.5)
    differences = [1.0, -1.0, 0.5, 0.0, 2.0, 0.25]
    theirs = [10.0, 200.0, -3.0, 4.0, 5.0, 6.0]
    ours = [base + difference for base, difference in zip(theirs, differences, strict=True)]
    assert paired_bootstrap(ours, theirs, seed=3) == pytest.approx(bootstrap_interval(differences, seed=3))
    with pytest.raises(ValueError, match="zip"):
        paired_bootstrap([1.0], [1.0, 2.0], seed=0)


@pytest.mark.parametrize(("right", "count"), [(0, 10), (10, 10), (1, 4), (37, 100), (50, 120)])
def test_share_interval_is_where_the_score_test_does_not_reject(right: int, count: int) -> None:
    mean, low, high = share_interval([1.0] * right + [0.0] * (count - right))
    z = NormalDist().inv_cdf(0.975)
    # Wilson's interval by its definition: all p with |mean - p| <= z * sqrt(p (1 - p) / n), here by looking at many p.
    inside = [
        p for p in (step / 100_000 for step in range(100_001)) if abs(mean - p) <= z * math.sqrt(p * (1 - p) / count)
    ]
    assert mean == right / count
    assert (low, high) == pytest.approx((inside[0], inside[-1]), abs=2e-5)


def test_share_interval_of_a_published_example() -> None:
    # 81 of 263, Newcombe 1998 (Statistics in Medicine 17, 857), table I, method 3.
    assert share_interval([1.0] * 81 + [0.0] * 182)[1:] == pytest.approx((0.2553, 0.3662), abs=5e-5)
