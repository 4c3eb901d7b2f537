"""Partition the elements of a LoRA by the kind of thinking that they matter for (LoRA-PAR, arXiv 2507.20999, section 3.3).

Every element of every factor has an importance for System 1 and one for System 2. A system's set is the smallest one that holds a share
theta of the total importance, in one ranking over all layers and both factors. A threshold defines the set, so values are sorted, not
indices. An element is identified by its tensor's name and flat index, and a set is stored as one bit per element.
"""

import math
from dataclasses import dataclass

import numpy

from hub.lora.core.errors import LoraError
from hub.lora.train.masks import Bools, Floats, Layout, Mask


class NothingToPartition(LoraError):
    code = "nothing_to_partition"


@dataclass(frozen=True)
class Partition:
    """`system1` and `system2` matter for each kind of thinking; `stage1` and `stage2` are what each stage may train."""

    system1: Mask
    system2: Mask
    stage1: Mask
    stage2: Mask

    @property
    def layout(self) -> Layout:
        return self.system1.layout

    @property
    def jaccard(self) -> float:
        """The Jaccard index of the two systems' sets."""
        both = numpy.bitwise_count(self.system1.bits & self.system2.bits).sum()
        either = numpy.bitwise_count(self.system1.bits | self.system2.bits).sum()
        return float(both / either)

    def shares(self) -> dict[str, dict[str, float]]:
        """Tensor name -> the shares of its elements in System 1 only, System 2 only, both, and neither."""
        first, second = self.system1.chosen(), self.system2.chosen()
        shares = {}
        for name, span in self.layout.spans().items():
            one, two = first[span], second[span]
            shares[name] = {
                "system1": float((one & ~two).mean()),
                "system2": float((two & ~one).mean()),
                "common": float((one & two).mean()),
                "none": float((~one & ~two).mean()),
            }
        return shares

    def swapped(self) -> "Partition":
        """The control in which each stage trains what matters for the other system."""
        return Partition(self.system2, self.system1, self.stage2, self.stage1)

    def shuffled(self, seed: int) -> "Partition":
        """The control with random elements: all four sets keep their sizes and overlaps."""
        order = numpy.random.default_rng(seed).permutation(self.layout.size)
        masks = (self.system1, self.system2, self.stage1, self.stage2)
        return Partition(*(Mask.of(self.layout, mask.chosen()[order]) for mask in masks))


def partition(
    layout: Layout, importance1: Floats, importance2: Floats, *, theta: float, alpha: float, beta: float
) -> Partition:
    """Partition by two importances, each (size,) and not negative.

    Stage 1 gets the elements of System 1 only and the share `alpha` of the common elements that System 1 ranks highest. Stage 2 gets those
    of System 2 only and the share `beta` that System 2 ranks highest. Other elements are never trained. Raises NothingToPartition.
    """
    one, two = smallest_set(importance1, theta), smallest_set(importance2, theta)
    common = one & two
    count = int(common.sum())
    stage1 = (one & ~two) | highest(importance1, common, int(alpha * count))
    stage2 = (two & ~one) | highest(importance2, common, int(beta * count))
    return Partition(*(Mask.of(layout, chosen) for chosen in (one, two, stage1, stage2)))


def smallest_set(importance: Floats, theta: float) -> Bools:
    """The smallest set whose importance is at least `theta` of the total, (size,). Ties go to the first elements."""
    # NumPy sorts floats with vector instructions, many times faster than torch on a processor. Sums are float64: a float32 sum of
    # millions of values stops growing before its end.
    descending = numpy.sort(importance)[::-1]
    reached = numpy.cumsum(descending, dtype=numpy.float64)
    if not math.isfinite(reached[-1]) or reached[-1] <= 0:
        raise NothingToPartition(
            f"The importances add up to {reached[-1]}, so no element stands out. Check that the examples have targets and the base "
            "gives finite losses."
        )
    # The product may round to more than the sum itself.
    count = int(numpy.searchsorted(reached, min(theta * reached[-1], reached[-1]))) + 1
    return _at_least(importance, descending[count - 1], count)


def highest(importance: Floats, among: Bools, count: int) -> Bools:
    """The `count` elements of the set `among` with the highest importance, (size,). Ties go to the first elements."""
    chosen = numpy.zeros_like(among)
    if count:
        values = importance[among]
        least = numpy.partition(values, len(values) - count)[len(values) - count]
        chosen[among] = _at_least(values, least, count)
    return chosen


def _at_least(values: Floats, least: numpy.float32, count: int) -> Bools:
    """The `count` highest elements. `least` is the count-th highest value; ties at it go to the first elements."""
    chosen: Bools = values > least
    equal = numpy.flatnonzero(values == least)
    chosen[equal[: count - int(chosen.sum())]] = True
    return chosen
