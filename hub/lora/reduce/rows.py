"""Groups of a matrix's rows (outputs), each of which is cut by a decomposition of its own."""

import torch
from torch import Tensor

from hub.lora.core.decompose import Decompose, svd
from hub.vocabulary import Grouping

ROUNDS = 5
DIMENSIONS = 8  # of each group's subspace


def row_groups(weight: Tensor, count: int, grouping: Grouping, decompose: Decompose = svd) -> list[Tensor]:
    """Indices of the rows of each of `count` groups, every row in one, each in rising order; none is empty.

    "contiguous" are equal runs of rows, the paper's. "subspace" is ours: K-subspaces (Bradley and Mangasarian 2000), which from the
    contiguous groups on moves each row to the group whose leading DIMENSIONS right singular vectors hold most of it. It depends on
    nothing but the weights, rounded to bfloat16, so that a copy in another precision is grouped alike.
    """
    rows = torch.arange(len(weight), device=weight.device)
    groups = list(rows.tensor_split(count))
    if grouping == "contiguous" or count == 1:
        return groups
    rounded = weight.to(torch.bfloat16).float()
    for _ in range(ROUNDS):
        held = torch.stack([_held(rounded, rounded[group], decompose) for group in groups])
        nearest = held.argmax(0)
        # A group that would lose all rows keeps the one that it holds best.
        for index in range(count):
            if not bool((nearest == index).any()):
                nearest[held[index].argmax()] = index
        moved = [rows[nearest == index] for index in range(count)]
        if any(len(group) == 0 for group in moved):
            break  # two groups wanted the same row: what was found before is kept
        if all(torch.equal(a, b) for a, b in zip(moved, groups, strict=True)):
            break
        groups = moved
    return groups


def _held(rows: Tensor, group: Tensor, decompose: Decompose) -> Tensor:
    """How much of each row's square lies in the group's leading subspace, (rows,)."""
    return (rows @ decompose(group).vt[:DIMENSIONS].T).square().sum(1)
