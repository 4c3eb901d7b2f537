"""hub.lora.reduce.rows: every row in one group, and subspaces that were planted are found."""

import pytest
import torch

from hub.lora.reduce.rows import row_groups
from hub.vocabulary import Grouping


@pytest.mark.parametrize("grouping", ["contiguous", "subspace"])
@pytest.mark.parametrize("count", [1, 2, 4, 16, 30])
def test_every_row_is_in_one_group_and_none_is_empty(grouping: Grouping, count: int) -> None:
    weight = torch.randn(30, 12, generator=torch.Generator().manual_seed(0))
    groups = row_groups(weight, count, grouping)
    assert len(groups) == count
    assert all(len(group) > 0 and torch.equal(group, group.sort().values) for group in groups)
    assert sorted(torch.cat(groups).tolist()) == list(range(30))


def test_rows_of_two_planted_subspaces_are_told_apart() -> None:
    """Three in four of the first half are of one subspace, three in four of the second of another, of eight dimensions each."""
    generator = torch.Generator().manual_seed(1)
    axes = torch.linalg.qr(torch.randn(64, 16, generator=generator)).Q.T
    of_first = torch.tensor([index % 4 != 0 if index < 80 else index % 4 == 0 for index in range(160)])
    weight = torch.randn(160, 8, generator=generator) @ axes[:8]
    weight[~of_first] = torch.randn(int((~of_first).sum()), 8, generator=generator) @ axes[8:]
    first, second = row_groups(weight, 2, "subspace")
    assert first.tolist() == of_first.nonzero().squeeze(1).tolist()
    assert second.tolist() == (~of_first).nonzero().squeeze(1).tolist()


def test_a_copy_in_another_precision_is_grouped_alike() -> None:
    weight = torch.randn(96, 40, generator=torch.Generator().manual_seed(2)).bfloat16()
    for a, b in zip(row_groups(weight, 8, "subspace"), row_groups(weight.float(), 8, "subspace"), strict=True):
        assert torch.equal(a, b)
