"""Partition against the definition taken literally: rank every element by itself, add up until there is enough."""

from collections.abc import Sequence

import numpy
import pytest
import torch

from hub.lora.par.partition import NothingToPartition, highest, partition, smallest_set
from hub.lora.train.masks import Layout, Mask

LAYOUT = Layout({"q.lora_A": (3, 7), "q.lora_B": (5, 3), "v.lora_A": (3, 7)})


def by_hand(importance: Sequence[float], theta: float) -> set[int]:
    """The paper's text, element by element."""
    order = sorted(range(len(importance)), key=lambda index: (-importance[index], index))
    total, taken, chosen = sum(importance), 0.0, set()
    for index in order:
        if taken >= theta * total:
            break
        taken += importance[index]
        chosen.add(index)
    return chosen


def integers(seed: int, size: int = LAYOUT.size) -> numpy.ndarray:
    """Few different values, so that there are ties; whole numbers, so that sums are exact in any order."""
    return numpy.random.default_rng(seed).integers(0, 9, size).astype(numpy.float32)


def elements(mask: Mask) -> set[int]:
    return set(numpy.flatnonzero(mask.chosen()).tolist())


@pytest.mark.parametrize("theta", [0.01, 0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_smallest_set_is_that_of_one_ranking_over_everything(seed: int, theta: float) -> None:
    importance = integers(seed)
    assert set(numpy.flatnonzero(smallest_set(importance, theta))) == by_hand(importance.tolist(), theta)


def test_a_set_is_no_larger_than_needed_and_leaves_out_what_does_not_matter() -> None:
    importance = numpy.array([5, 0, 3, 2, 0], dtype=numpy.float32)
    assert numpy.flatnonzero(smallest_set(importance, 0.8)).tolist() == [0, 2]
    assert numpy.flatnonzero(smallest_set(importance, 1.0)).tolist() == [0, 2, 3]


def test_a_sum_of_many_small_values_is_not_cut_short_by_rounding() -> None:
    """In float32 the running sum of 2^24 ones and more stays at 2^24."""
    importance = numpy.ones(2**24 + 2**20, dtype=numpy.float32)
    assert int(smallest_set(importance, 1.0).sum()) == len(importance)


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_importances_without_a_finite_sum_above_zero_are_refused(bad: float) -> None:
    with pytest.raises(NothingToPartition, match="add up to"):
        smallest_set(numpy.full(4, bad, dtype=numpy.float32), 0.9)


@pytest.mark.parametrize(("alpha", "beta"), [(0, 0), (0, 1), (0.5, 0.5), (1, 0.3), (1, 1)])
def test_stages_get_their_own_elements_and_their_share_of_the_common_ones(alpha: float, beta: float) -> None:
    one, two = integers(1), integers(2)
    found = partition(LAYOUT, one, two, theta=0.8, alpha=alpha, beta=beta)
    first, second = by_hand(one.tolist(), 0.8), by_hand(two.tolist(), 0.8)
    common = first & second
    best1 = sorted(common, key=lambda index: (-one[index], index))[: int(alpha * len(common))]
    best2 = sorted(common, key=lambda index: (-two[index], index))[: int(beta * len(common))]
    assert 0 < len(common) < len(first) + len(second), "the case has something in common"
    assert (elements(found.system1), elements(found.system2)) == (first, second)
    assert elements(found.stage1) == (first - second) | set(best1)
    assert elements(found.stage2) == (second - first) | set(best2)
    assert found.jaccard == len(common) / len(first | second)
    assert len(found.stage1) == len(elements(found.stage1))


def test_highest_takes_none_when_none_are_asked_for() -> None:
    assert not highest(integers(0), numpy.ones(LAYOUT.size, dtype=bool), 0).any()


def test_a_mask_is_one_bit_an_element_and_comes_back_by_name_and_place() -> None:
    chosen = numpy.zeros(LAYOUT.size, dtype=bool)
    chosen[[0, 21 + 4, 36 + 20]] = True
    mask = Mask.of(LAYOUT, chosen)
    assert mask.bits.nbytes == -(-LAYOUT.size // 8)
    tensors = mask.tensors()
    assert {name: tuple(each.shape) for name, each in tensors.items()} == dict(LAYOUT.shapes)
    assert {name: each.nonzero().tolist() for name, each in tensors.items()} == {
        "q.lora_A": [[0, 0]],
        "q.lora_B": [[1, 1]],
        "v.lora_A": [[2, 6]],
    }


def test_a_vector_is_in_the_order_of_the_layout_whatever_the_order_of_the_tensors() -> None:
    values = {name: torch.randn(shape) for name, shape in LAYOUT.shapes.items()}
    joined = LAYOUT.joined(dict(reversed(values.items())))
    for name, span in LAYOUT.spans().items():
        assert joined[span].tolist() == values[name].flatten().tolist()


def test_shares_of_each_tensor_add_up_and_say_what_is_where() -> None:
    one, two = numpy.zeros(LAYOUT.size, dtype=numpy.float32), numpy.zeros(LAYOUT.size, dtype=numpy.float32)
    one[:21] = 1  # all of q.lora_A
    two[0:7] = 1  # its first row
    two[36:] = 1  # all of v.lora_A
    shares = partition(LAYOUT, one, two, theta=1.0, alpha=1, beta=1).shares()
    assert shares["q.lora_A"] == pytest.approx({"system1": 2 / 3, "system2": 0, "common": 1 / 3, "none": 0})
    assert shares["q.lora_B"] == {"system1": 0, "system2": 0, "common": 0, "none": 1}
    assert shares["v.lora_A"] == {"system1": 0, "system2": 1, "common": 0, "none": 0}


def test_the_controls_keep_sizes_and_overlap() -> None:
    found = partition(LAYOUT, integers(1), integers(2), theta=0.7, alpha=1, beta=0.5)
    drawn = found.shuffled(seed=3)
    assert [len(mask) for mask in (drawn.system1, drawn.system2, drawn.stage1, drawn.stage2)] == [
        len(mask) for mask in (found.system1, found.system2, found.stage1, found.stage2)
    ]
    assert drawn.jaccard == found.jaccard
    assert elements(drawn.stage1) != elements(found.stage1)
    assert elements(found.shuffled(seed=3).stage1) == elements(drawn.stage1), "the draw is its seed's"
    assert elements(found.swapped().stage1) == elements(found.stage2)
    assert elements(found.swapped().stage2) == elements(found.stage1)
