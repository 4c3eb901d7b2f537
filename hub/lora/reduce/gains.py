"""Adapt a base by reducing it: cut singular values whose removal lowers a task's loss, found from one gradient.

The method is that of arXiv 2510.20800; its public code could not be found, and its tables not be read. What follows is derived, and
choices of ours are named so. With W = U S V^T and G = dL/dW, dL/dsigma_i = u_i^T G v_i, so that cutting the values i > k changes the
loss to first order by -sum_{i>k} sigma_i u_i^T G v_i. One G serves every rank and every grouping of the rows.

- `gradients`: G of all matrices from one pass over the examples.
- `gains`: what every cut of a matrix is predicted to gain, by rank share and number of row blocks.
- `cut_weight`: the matrix with its tail zeroed, group by group of rows, by an exact SVD (LASER's code, arXiv 2312.13558, takes an
  unseeded random one).
- `edited`: cuts in place, and every bit back afterwards. `hub.lora.reduce.scan` tries cuts so and keeps what lowers the loss.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hub.lora.core.bases import Base
from hub.lora.core.decompose import Decompose, svd
from hub.lora.core.errors import LoraError
from hub.lora.core.examples import Batch
from hub.lora.reduce import objective
from hub.lora.reduce.rows import row_groups
from hub.vocabulary import CutScore, Grouping

SHARES = (0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01)  # LASER's (its table 5), and the 0.4 that its optima hold
BLOCKS = (1, 2, 4, 8, 16)  # ours; the paper groups rows, how many could not be read


class NothingToReduce(LoraError):
    code = "nothing_to_reduce"


@dataclass(frozen=True)
class Cut:
    """Keep floor(share * smaller side), at least one, singular values of each of `blocks` groups of rows (hub.lora.reduce.rows)."""

    path: str
    share: float
    blocks: int
    grouping: Grouping = "contiguous"


def matrices(base: Base) -> dict[str, nn.Linear]:
    """The linear layers of the base's blocks, by path; the output layer is none of them."""
    head = base.model.get_output_embeddings()
    found = {
        path: layer for path, layer in base.model.named_modules() if isinstance(layer, nn.Linear) and layer is not head
    }
    if not found:
        raise NothingToReduce(f"{base.id} has no linear layers to reduce; choose another base.")
    return found


def gradients(base: Base, batches: Sequence[Batch], layers: Mapping[str, nn.Linear]) -> dict[str, Tensor]:
    """dL/dW of each layer, (out, in) in the weights' dtype, L the mean over all batches of `hub.lora.reduce.objective`'s loss.

    Sums in bfloat16 rank the cuts as sums in float32 do (correlation 1.0000 on the built-in base), at half the memory. The base is left
    without gradients.
    """
    counts = [objective.weight(batch) for batch in batches]
    try:
        for layer in layers.values():
            layer.weight.requires_grad_(True)
        for batch, count in zip(batches, counts, strict=True):
            with torch.enable_grad():
                (objective.loss(base.model, batch) * (count / sum(counts))).backward()  # type: ignore[no-untyped-call]
        return {path: layer.weight.grad for path, layer in layers.items() if layer.weight.grad is not None}
    finally:
        for layer in layers.values():
            layer.weight.requires_grad_(False)
            layer.weight.grad = None


def slopes(
    weight: Tensor, gradient: Tensor, blocks: int, grouping: Grouping = "contiguous", decompose: Decompose = svd
) -> list[tuple[Tensor, Tensor]]:
    """(sigma, dL/dsigma) of each group of rows, singular values in falling order."""
    found = []
    for rows in row_groups(weight, blocks, grouping, decompose):
        parts = decompose(weight[rows])
        found.append((parts.sigma, (parts.u * (gradient[rows].float() @ parts.vt.T)).sum(0)))
    return found


def gains(
    weight: Tensor,
    gradient: Tensor,
    *,
    score: CutScore = "tail_taylor",
    shares: Sequence[float] = SHARES,
    blocks: Sequence[int] = BLOCKS,
    grouping: Grouping = "contiguous",
    decompose: Decompose = svd,
) -> dict[tuple[float, int], float]:
    """By (share, blocks) how good a cut looks, larger is better. "tail_taylor" is the predicted fall of the loss in nats.

    "grad_sum" leaves sigma out of that sum, and "neg_count" is the share of the tail's values whose shrinking lowers the loss: two
    readings of what the paper may mean, in no unit. More blocks than rows are left out.
    """
    found = {}
    for count in blocks:
        if count > len(weight):
            continue
        each = slopes(weight, gradient, count, grouping, decompose)
        for share in shares:
            tails = [(sigma[kept(sigma, share) :], slope[kept(sigma, share) :]) for sigma, slope in each]
            if score == "tail_taylor":
                value = sum(float(sigma @ slope) for sigma, slope in tails)
            elif score == "grad_sum":
                value = sum(float(slope.sum()) for _, slope in tails)
            else:
                length = sum(len(slope) for _, slope in tails)
                value = sum(int((slope > 0).sum()) for _, slope in tails) / max(1, length)
            found[share, count] = value
    return found


def kept(sigma: Tensor, share: float) -> int:
    # A share that is meant to be a whole number of values must not lose one to the rounding of floats.
    return max(1, math.floor(share * len(sigma) + 1e-9))


def cut_weight(weight: Tensor, cut: Cut, decompose: Decompose = svd) -> Tensor:
    """The matrix (out, in) after the cut, in its own dtype."""
    made = torch.empty_like(weight)
    for rows in row_groups(weight, cut.blocks, cut.grouping, decompose):
        found = decompose(weight[rows])
        count = kept(found.sigma, cut.share)
        made[rows] = ((found.u[:, :count] * found.sigma[:count]) @ found.vt[:count]).to(made.dtype)
    return made


@contextmanager
def edited(layers: Mapping[str, nn.Linear], cuts: Sequence[Cut], decompose: Decompose = svd) -> Iterator[None]:
    """Within the block these layers are cut, in place; afterwards every bit is as it was, however the block ends."""
    before = {cut.path: layers[cut.path].weight.detach().clone() for cut in cuts}
    try:
        with torch.no_grad():
            for cut in cuts:
                layers[cut.path].weight.copy_(cut_weight(before[cut.path], cut, decompose))
        yield
    finally:
        with torch.no_grad():
            for path, weight in before.items():
                layers[path].weight.copy_(weight)
