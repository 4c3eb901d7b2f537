"""Adapt a base by reducing it: cut singular values whose removal lowers a task's loss, found from one gradient.

The method is that of arXiv 2510.20800; its public code could not be found, and its tables not be read. What follows is derived, and
choices of ours are named so. With W = U S V^T and G = dL/dW, dL/dsigma_i = u_i^T G v_i, so that cutting the values i > k changes the
loss to first order by -sum_{i>k} sigma_i u_i^T G v_i. One G serves every rank and every grouping of the rows.

- `gradients`: G of all matrices from one pass over the examples.
- `gains`: what every cut of a matrix is predicted to gain, by rank share and number of row blocks.
- `cut`: the matrix with its tail zeroed, block by block, by an exact SVD (LASER's code, arXiv 2312.13558, takes an unseeded random one).
- `scan`: try the best predicted cuts, keep what lowers the measured loss, several together where that helps.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hub.lora.bases import Base
from hub.lora.compose import encoded, mean_loss
from hub.lora.errors import LoraError
from hub.lora.examples import IGNORED, Batch, Example, OnProgress, target_loss

Score = Literal["tail_taylor", "grad_sum", "neg_count"]

SHARES = (0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01)  # LASER's (its table 5), and the 0.4 that its optima hold
BLOCKS = (1, 2, 4, 8, 16)  # ours; the paper groups rows, how many could not be read


class NothingToReduce(LoraError):
    code = "nothing_to_reduce"


@dataclass(frozen=True)
class Cut:
    """Keep floor(share * smaller side), at least one, singular values of each of `blocks` contiguous groups of rows (outputs)."""

    path: str
    share: float
    blocks: int


@dataclass(frozen=True)
class Trial:
    """`predicted` is the first-order gain, in nats per target token as `loss` is; `kept` says whether the cut stayed."""

    cuts: tuple[Cut, ...]
    predicted: float
    loss: float
    kept: bool


@dataclass(frozen=True)
class Reduction:
    """`cuts` together gave `loss`, down from `before`; none if nothing helped. `matrices` has each one's best predicted gain."""

    cuts: tuple[Cut, ...]
    before: float
    loss: float
    trials: list[Trial]
    matrices: dict[str, float]


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
    """dL/dW of each layer, (out, in) in float32, L the mean loss per target token over all batches.

    Each gradient is moved to its sum and freed as soon as it is there, so the memory beside the weights is that of the sums and of one
    matrix. The base is left without gradients.
    """
    found = {path: torch.zeros_like(layer.weight, dtype=torch.float32) for path, layer in layers.items()}
    tokens = [int((batch.labels != IGNORED).sum()) for batch in batches]
    handles = []
    try:
        for path, layer in layers.items():
            layer.weight.requires_grad_(True)
            hook = layer.weight.register_post_accumulate_grad_hook(_moved_to(found[path]))  # type: ignore[no-untyped-call]
            handles.append(hook)
        for batch, count in zip(batches, tokens, strict=True):
            with torch.enable_grad():
                (target_loss(base.model, batch) * (count / sum(tokens))).backward()  # type: ignore[no-untyped-call]
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers.values():
            layer.weight.requires_grad_(False)
            layer.weight.grad = None
    return found


def _moved_to(total: Tensor) -> Callable[[Tensor], None]:
    def move(weight: Tensor) -> None:
        if weight.grad is not None:
            total.add_(weight.grad)
            weight.grad = None

    return move


def slopes(weight: Tensor, gradient: Tensor, blocks: int) -> list[tuple[Tensor, Tensor]]:
    """(sigma, dL/dsigma) of each block of rows, singular values in falling order."""
    found = []
    for rows, slope in zip(weight.float().tensor_split(blocks), gradient.tensor_split(blocks), strict=True):
        u, sigma, vt = torch.linalg.svd(rows, full_matrices=False)
        found.append((sigma, (u * (slope @ vt.T)).sum(0)))
    return found


def gains(
    weight: Tensor,
    gradient: Tensor,
    *,
    score: Score = "tail_taylor",
    shares: Sequence[float] = SHARES,
    blocks: Sequence[int] = BLOCKS,
) -> dict[tuple[float, int], float]:
    """By (share, blocks) how good a cut looks, larger is better. "tail_taylor" is the predicted fall of the loss in nats.

    "grad_sum" leaves sigma out of that sum, and "neg_count" is the share of the tail's values whose shrinking lowers the loss: two
    readings of what the paper may mean, in no unit. More blocks than rows are left out.
    """
    found = {}
    for count in blocks:
        if count > len(weight):
            continue
        each = slopes(weight, gradient, count)
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


def cut_weight(weight: Tensor, share: float, blocks: int) -> Tensor:
    """The matrix (out, in) after the cut, in its own dtype."""
    parts = []
    for rows in weight.float().tensor_split(blocks):
        u, sigma, vt = torch.linalg.svd(rows, full_matrices=False)
        count = kept(sigma, share)
        parts.append((u[:, :count] * sigma[:count]) @ vt[:count])
    return torch.cat(parts).to(weight.dtype)


@contextmanager
def edited(layers: Mapping[str, nn.Linear], cuts: Sequence[Cut]) -> Iterator[None]:
    """Within the block these layers are cut, in place; afterwards every bit is as it was, however the block ends."""
    before = {cut.path: layers[cut.path].weight.detach().clone() for cut in cuts}
    try:
        with torch.no_grad():
            for cut in cuts:
                layers[cut.path].weight.copy_(cut_weight(before[cut.path], cut.share, cut.blocks))
        yield
    finally:
        with torch.no_grad():
            for path, weight in before.items():
                layers[path].weight.copy_(weight)


def scan(
    base: Base,
    examples: Sequence[Example],
    *,
    template: str,
    score: Score = "tail_taylor",
    shares: Sequence[float] = SHARES,
    blocks: Sequence[int] = BLOCKS,
    top: int = 5,
    budget: int = 10,
    on_progress: OnProgress,
) -> Reduction:
    """Try the `budget` best predicted cuts of the `top` matrices one by one, then add to the best one what helps it further.

    The choice is by the mean loss per target token on the examples. A trial computes nothing before the layer that it changes. After
    each one `on_progress(trial, trials at most, {loss, best})` may raise to stop, with the base as it was. Raises NothingToReduce.
    """
    layers, batches = matrices(base), encoded(base, examples, template)
    slope = gradients(base, batches, layers)
    tables = {
        path: gains(layer.weight, slope.pop(path), score=score, shares=shares, blocks=blocks)
        for path, layer in layers.items()
    }
    best_of = {path: max(table.values()) for path, table in tables.items()}
    chosen = sorted(best_of, key=lambda path: -best_of[path])[:top]
    cells = [(value, Cut(path, *cell)) for path in chosen for cell, value in tables[path].items()]
    cells.sort(key=lambda cell: -cell[0])
    predicted = {cut: value for value, cut in cells[:budget]}

    before = mean_loss(base, batches)
    trials: list[Trial] = []
    best: tuple[Cut, ...] = ()
    least, single = before, {}
    prefixes = Prefixes(base, batches)
    for cut in predicted:
        single[cut] = _measured(base, layers, batches, (cut,), prefixes)
        trials.append(Trial((cut,), predicted[cut], single[cut], False))
        on_progress(len(trials), 2 * budget, {"loss": single[cut], "best": min(least, *single.values())})
    for cut in sorted(single, key=single.__getitem__):
        if single[cut] >= before or cut.path in {taken.path for taken in best}:
            continue
        cuts = (*best, cut)
        loss = single[cut] if not best else _measured(base, layers, batches, cuts, None)
        if best:
            trials.append(Trial(cuts, sum(predicted[taken] for taken in cuts), loss, loss < least))
            on_progress(len(trials), 2 * budget, {"loss": loss, "best": min(least, loss)})
        if loss < least:
            best, least = cuts, loss
    return Reduction(best, before, least, trials, dict(sorted(best_of.items(), key=lambda item: -item[1])))


def _measured(
    base: Base,
    layers: Mapping[str, nn.Linear],
    batches: Sequence[Batch],
    cuts: Sequence[Cut],
    prefixes: "Prefixes | None",
) -> float:
    with edited(layers, cuts):
        if prefixes is None:
            return mean_loss(base, batches)
        return prefixes.mean_loss_from(cuts[0].path)


class Prefixes:
    """The hidden states that enter each block of the untouched base, so that a change in a block costs only what comes after it.

    They are computed for all blocks at once, when the first is asked for, and take (blocks, examples, length, width) of memory.
    """

    def __init__(self, base: Base, batches: Sequence[Batch]) -> None:
        self.base, self.batches = base, batches
        self.blocks = _block_list(base)
        self.states: list[list[Tensor]] = []

    def mean_loss_from(self, path: str) -> float:
        """The mean loss per target token, everything before the block of the layer `path` taken from the untouched base."""
        if not self.states:
            self.states = [self._states(batch) for batch in self.batches]
        start = next((index for index, (name, _) in enumerate(self.blocks) if path.startswith(f"{name}.")), 0)
        total, tokens = 0.0, 0
        for batch, states in zip(self.batches, self.states, strict=True):
            count = int((batch.labels != IGNORED).sum())
            with torch.inference_mode(), self._entered(start, states):
                total += float(target_loss(self.base.model, batch)) * count
            tokens += count
        return total / tokens

    def _states(self, batch: Batch) -> list[Tensor]:
        found: list[Tensor] = []
        handles = [
            block.register_forward_pre_hook(lambda _block, inputs: found.append(inputs[0])) for _, block in self.blocks
        ]
        try:
            with torch.inference_mode():
                target_loss(self.base.model, batch)
        finally:
            for handle in handles:
                handle.remove()
        return found

    @contextmanager
    def _entered(self, start: int, states: Sequence[Tensor]) -> Iterator[None]:
        """Blocks before `start` hand on what they are given, the last of them what the untouched base gives the block `start`."""
        skipped = [block for _, block in self.blocks[:start]]
        try:
            for index, block in enumerate(skipped):
                block.forward = _handing_on(states[start] if index == start - 1 else None)
            yield
        finally:
            for block in skipped:
                del block.forward  # the class's own is there again


def _handing_on(state: Tensor | None) -> Callable[..., Tensor]:
    return lambda hidden, *_args, **_options: hidden if state is None else state


def _block_list(base: Base) -> list[tuple[str, nn.Module]]:
    """The base's blocks in their order: the longest list of modules; none for an encoder-decoder, whose two halves do not follow on."""
    if base.model.config.is_encoder_decoder:
        return []
    lists = [(name, module) for name, module in base.model.named_modules() if isinstance(module, nn.ModuleList)]
    name, blocks = max(lists, key=lambda item: len(item[1]))
    return [(f"{name}.{index}", block) for index, block in enumerate(blocks)]
