"""Which elements of a LoRA matter for which of two kinds of thinking (LoRA-PAR, arXiv 2507.20999, section 3.3).

Every element of every factor has an importance for System 1 and one for System 2. A system's set is the smallest one that holds a share
theta of all its importance, in one ranking over all layers and both factors. A set is nothing but a threshold, so values are sorted and
never indices; an element is known by its tensor's name and its flat index there, and a set is kept as one bit an element.
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
    """`system1` and `system2` matter for each kind of thinking; `stage1` and `stage2` are what each stage of training may move."""

    system1: Mask
    system2: Mask
    stage1: Mask
    stage2: Mask

    @property
    def layout(self) -> Layout:
        return self.system1.layout

    @property
    def jaccard(self) -> float:
        """Elements that both systems share, over those that either has."""
        both = numpy.bitwise_count(self.system1.bits & self.system2.bits).sum()
        either = numpy.bitwise_count(self.system1.bits | self.system2.bits).sum()
        return float(both / either)

    def shares(self) -> dict[str, dict[str, float]]:
        """Of each tensor: how much of it only System 1 has, only System 2, both, and neither."""
        first, second = self.system1.chosen(), self.system2.chosen()
        found = {}
        for name, span in self.layout.spans().items():
            one, two = first[span], second[span]
            found[name] = {
                "system1": float((one & ~two).mean()),
                "system2": float((two & ~one).mean()),
                "common": float((one & two).mean()),
                "none": float((~one & ~two).mean()),
            }
        return found

    def swapped(self) -> "Partition":
        """The control in which each stage trains what matters for the other system."""
        return Partition(self.system2, self.system1, self.stage2, self.stage1)

    def shuffled(self, seed: int) -> "Partition":
        """The control in which elements are drawn at random: all four sets keep their sizes and what they have in common."""
        order = numpy.random.default_rng(seed).permutation(self.layout.size)
        masks = (self.system1, self.system2, self.stage1, self.stage2)
        return Partition(*(Mask.of(self.layout, mask.chosen()[order]) for mask in masks))


def partition(
    layout: Layout, importance1: Floats, importance2: Floats, *, theta: float, alpha: float, beta: float
) -> Partition:
    """Two importances, each (size,) and not negative, to what each stage may train.

    Stage 1 gets what only System 1 has and the share `alpha` of the common elements that System 1 ranks highest; stage 2 what only
    System 2 has and the share `beta` that System 2 ranks highest. What neither has is never trained. Raises NothingToPartition.
    """
    one, two = smallest_set(importance1, theta), smallest_set(importance2, theta)
    common = one & two
    count = int(common.sum())
    stage1 = (one & ~two) | highest(importance1, common, int(alpha * count))
    stage2 = (two & ~one) | highest(importance2, common, int(beta * count))
    return Partition(*(Mask.of(layout, chosen) for chosen in (one, two, stage1, stage2)))


def smallest_set(importance: Floats, theta: float) -> Bools:
    """The smallest set whose importance is at least `theta` of the total, (size,); of equal elements the first ones."""
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
    """The `count` elements of the set `among` with the highest importance, (size,); of equal elements the first ones."""
    found = numpy.zeros_like(among)
    if count:
        values = importance[among]
        least = numpy.partition(values, len(values) - count)[len(values) - count]
        found[among] = _at_least(values, least, count)
    return found


def _at_least(values: Floats, least: numpy.float32, count: int) -> Bools:
    """The `count` elements above `least`, the count-th highest value, and as many at it as are needed, the first ones first."""
    chosen: Bools = values > least
    equal = numpy.flatnonzero(values == least)
    chosen[equal[: count - int(chosen.sum())]] = True
    return chosen
