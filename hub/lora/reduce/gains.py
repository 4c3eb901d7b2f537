"""Adapt a base by reducing it: cut singular values whose removal lowers a task's loss, found from one gradient.

The method is that of arXiv 2510.20800. Its public code could not be found, nor its tables read. The formulas here are derived, and
our own choices are marked. With W = U S V^T and G = dL/dW, dL/dsigma_i = u_i^T G v_i, so that cutting the values i > k changes the
loss to first order by -sum_{i>k} sigma_i u_i^T G v_i. One G serves every rank and every grouping of the rows.

- `gradients`: G of all matrices from one pass over the examples.
- `gains`: the predicted gain of every cut of a matrix, by rank share and number of row blocks.
- `cut_weight`: the matrix with its tail zeroed, group by group of rows, by an exact SVD (LASER's code, arXiv 2312.13558, takes an
  unseeded random one).
- `edited`: cuts in place, and restores every bit afterwards. `hub.lora.reduce.scan` uses it to try cuts.
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
    """The linear layers of the base by path, without the output layer. Raises NothingToReduce if there are none."""
    head = base.model.get_output_embeddings()
    layers = {
        path: layer for path, layer in base.model.named_modules() if isinstance(layer, nn.Linear) and layer is not head
    }
    if not layers:
        raise NothingToReduce(f"{base.id} has no linear layers to reduce; choose another base.")
    return layers


def gradients(base: Base, batches: Sequence[Batch], layers: Mapping[str, nn.Linear]) -> dict[str, Tensor]:
    """dL/dW of each layer, (out, in) in the weights' dtype, L the mean over all batches of `hub.lora.reduce.objective`'s loss.

    Sums in bfloat16 rank the cuts as sums in float32 do (correlation 1.0000 on the built-in base), at half the memory. Afterwards the
    base has no gradients.
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
    groups = []
    for rows in row_groups(weight, blocks, grouping, decompose):
        svd = decompose(weight[rows])
        groups.append((svd.sigma, (svd.u * (gradient[rows].float() @ svd.vt.T)).sum(0)))
    return groups


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
    """(share, blocks) -> score of the cut; higher is better. "tail_taylor" is the predicted fall of the loss in nats.

    "grad_sum" leaves sigma out of that sum, and "neg_count" is the share of the tail's values whose shrinking lowers the loss: two
    readings of what the paper may mean, in no unit. Block counts above the number of rows are skipped.
    """
    scores = {}
    for count in blocks:
        if count > len(weight):
            continue
        groups = slopes(weight, gradient, count, grouping, decompose)
        for share in shares:
            tails = [(sigma[kept_count(sigma, share) :], slope[kept_count(sigma, share) :]) for sigma, slope in groups]
            scores[share, count] = _tail_score(tails, score)
    return scores


def _tail_score(tails: Sequence[tuple[Tensor, Tensor]], score: CutScore) -> float:
    """The score of removing these tails, each (sigma, dL/dsigma)."""
    if score == "tail_taylor":
        return sum(float(sigma @ slope) for sigma, slope in tails)
    if score == "grad_sum":
        return sum(float(slope.sum()) for _, slope in tails)
    length = sum(len(slope) for _, slope in tails)
    return sum(int((slope > 0).sum()) for _, slope in tails) / max(1, length)


def kept_count(sigma: Tensor, share: float) -> int:
    """How many singular values a cut to this share leaves."""
    # A share that is meant to be a whole number of values must not lose one to the rounding of floats.
    return max(1, math.floor(share * len(sigma) + 1e-9))


def cut_weight(weight: Tensor, cut: Cut, decompose: Decompose = svd) -> Tensor:
    """The matrix (out, in) after the cut, in its own dtype."""
    result = torch.empty_like(weight)
    for rows in row_groups(weight, cut.blocks, cut.grouping, decompose):
        svd = decompose(weight[rows])
        count = kept_count(svd.sigma, cut.share)
        result[rows] = ((svd.u[:, :count] * svd.sigma[:count]) @ svd.vt[:count]).to(result.dtype)
    return result


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
