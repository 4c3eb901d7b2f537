"""Groups of a matrix's rows (outputs). Each group is decomposed and cut separately."""

import torch
from torch import Tensor

from hub.lora.core.decompose import Decompose, svd
from hub.vocabulary import Grouping

ROUNDS = 5
DIMENSIONS = 8  # of each group's subspace


def row_groups(weight: Tensor, count: int, grouping: Grouping, decompose: Decompose = svd) -> list[Tensor]:
    """Row indices of `count` groups, in ascending order; every row is in exactly one group, and no group is empty.

    "contiguous" are equal runs of rows, the paper's. "subspace" is ours: K-subspaces (Bradley and Mangasarian 2000). It starts from the
    contiguous groups and moves each row to the group whose leading DIMENSIONS right singular vectors hold most of it. It depends only
    on the weights, rounded to bfloat16, so that a copy in another precision gets the same groups.
    """
    rows = torch.arange(len(weight), device=weight.device)
    groups = list(rows.tensor_split(count))
    if grouping == "contiguous" or count == 1:
        return groups
    rounded = weight.to(torch.bfloat16).float()
    for _ in range(ROUNDS):
        energies = torch.stack([_energy(rounded, rounded[group], decompose) for group in groups])
        nearest = energies.argmax(0)
        # A group that would lose all rows keeps the row with most energy in its subspace.
        for index in range(count):
            if not bool((nearest == index).any()):
                nearest[energies[index].argmax()] = index
        moved = [rows[nearest == index] for index in range(count)]
        if any(len(group) == 0 for group in moved):
            break  # two groups need the same row; the previous groups stay
        if all(torch.equal(a, b) for a, b in zip(moved, groups, strict=True)):
            break
        groups = moved
    return groups


def _energy(rows: Tensor, group: Tensor, decompose: Decompose) -> Tensor:
    """The squared norm of each row's projection on the group's leading subspace, (rows,)."""
    return (rows @ decompose(group).vt[:DIMENSIONS].T).square().sum(1)
