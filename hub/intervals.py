"""Confidence intervals of means and shares over examples, without torch, so that the registry can use them."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy

RESAMPLES = 2000


def bootstrap_interval(values: Sequence[float], *, seed: int, level: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high): the percentile bootstrap interval of the mean (Efron and Tibshirani 1993, section 13.3).

    It is too narrow for few values, and has width zero if all are equal. Use `share_interval` for values that are 0 or 1.
    """
    data = numpy.asarray(values, dtype=float)
    generator = numpy.random.default_rng(seed)
    means = [data[generator.integers(len(data), size=len(data))].mean() for _ in range(RESAMPLES)]
    low, high = numpy.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(data.mean()), float(low), float(high)


def paired_bootstrap(a: Sequence[float], b: Sequence[float], *, seed: int) -> tuple[float, float, float]:
    """(difference, low, high): the mean of a - b with its 95 % interval, over values of the same examples in the same order."""
    return bootstrap_interval([left - right for left, right in zip(a, b, strict=True)], seed=seed)


def share_interval(values: Sequence[float], *, level: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high): Wilson's interval of a share (1927) of values that are 0 or 1, with a positive width also for 0 or n of n."""
    count, mean = len(values), sum(values) / len(values)
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (mean + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(mean * (1 - mean) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return mean, max(0.0, centre - half), min(1.0, centre + half)
