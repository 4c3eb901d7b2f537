"""Which cuts make a base better at a task: the paper's variants by name, from predicted gains or over LASER's whole grid.

Of the paper (arXiv 2510.20800) only the summary of its variants could be read. What the names stand for here is in `VARIANTS`; that several
cuts are joined where this helps is ours. LASER (arXiv 2312.13558) takes the one best cell of a grid over the matrices of its MLPs.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor, nn

from hub.lora.core.bases import Base
from hub.lora.core.decompose import Decompose, svd
from hub.lora.core.examples import Batch, Example, OnProgress
from hub.lora.reduce.gains import BLOCKS, SHARES, Cut, NothingToReduce, edited, gains, gradients, matrices
from hub.lora.reduce.objective import batches_of, loss, mean_loss, weight
from hub.vocabulary import CutScore, Grouping, VariantName

GRADED_ROWS = (
    8  # of a batch that gives gradients: what backpropagation keeps of more would weigh more than it saves time
)
GRID = (0.9, 0.8, 0.6, 0.2, 0.1, 0.05, 0.01)  # LASER's table 5
# A block's first and last matrix of the MLP, as LASER's code names them for its architectures, and for others of the same build.
MLP = (
    ("gate_proj", "fc_in", "c_fc", "dense_h_to_4h", "fc1", "wi", "wi_0"),
    ("down_proj", "fc_out", "dense_4h_to_h", "fc2", "wo"),
)


@dataclass(frozen=True)
class Variant:
    """`graded` examples give the gradient (None: no gradient, the whole grid is tried), `tried` measure each cut (None: all).

    `joined` says whether cuts that helped alone are tried together.
    """

    shares: Sequence[float]
    blocks: Sequence[int]
    graded: int | None
    tried: int | None
    joined: bool = True
    grouping: Grouping = "contiguous"


VARIANTS: dict[VariantName, Variant] = {
    "laser": Variant(GRID, (1,), None, None, joined=False),
    "100g-std": Variant(SHARES, (1,), 100, None),
    "100g-100e": Variant(SHARES, (1,), 100, 100),
    "cl-100g-100e": Variant(SHARES, BLOCKS, 100, 100),
    "subspace-100g-100e": Variant(SHARES, BLOCKS, 100, 100, grouping="subspace"),  # ours
}


@dataclass(frozen=True)
class Trial:
    """`predicted` is the gain by the score (for "tail_taylor" in nats, as `loss` is), None where nothing was."""

    cuts: tuple[Cut, ...]
    predicted: float | None
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


def scan(
    base: Base,
    examples: Sequence[Example],
    *,
    template: str,
    variant: Variant = VARIANTS["cl-100g-100e"],
    score: CutScore = "tail_taylor",
    top: int = 10,
    budget: int = 10,
    seed: int = 0,
    decompose: Decompose = svd,
    on_progress: OnProgress,
) -> Reduction:
    """Try `budget` of the best predicted cuts of the `top` matrices one by one, then add to the best one what helps it further.

    The choice is by the mean loss of `hub.lora.reduce.objective`: of choosing, where all examples have choices, else of their targets.
    A trial computes nothing before the block that it changes. Where a variant takes fewer examples than there are, `seed` draws them.
    `on_progress(step, steps at most, {loss, best})`, called for every matrix that is scored and every trial, may raise to stop, with the
    base as it was. Raises NothingToReduce.
    """
    layers = matrices(base)
    if variant.graded is None:
        tables: dict[str, dict[Cut, float]] = {}
        cells: dict[Cut, float | None] = dict.fromkeys(grid(layers, variant))
    else:
        graded = batches_of(base, _drawn(examples, variant.graded, seed), template, GRADED_ROWS)
        steps = len(layers) + 2 * budget
        told = lambda step: on_progress(step, steps, {})  # noqa: E731 - a name for what scoring reports
        tables = scored(base, graded, layers, variant, score, decompose, told)
        most = mean_loss(base, graded) if score == "tail_taylor" else math.inf
        cells = dict(_promising(tables, top, budget, most))
    batches = batches_of(base, examples if variant.tried is None else _drawn(examples, variant.tried, seed), template)
    done = len(tables)
    most = done + len(cells) * (2 if variant.joined else 1)
    before = mean_loss(base, batches)
    trials: list[Trial] = []

    def tried(cuts: tuple[Cut, ...], loss: float, kept: bool) -> None:
        known = [cells[cut] for cut in cuts]
        predicted = sum(gain for gain in known if gain is not None) if None not in known else None
        trials.append(Trial(cuts, predicted, loss, kept))
        best = min(before, *(trial.loss for trial in trials))
        on_progress(done + len(trials), most, {"loss": loss, "best": best})

    prefixes = Prefixes(base, batches)
    single: dict[Cut, float] = {}
    for cut in cells:
        with edited(layers, (cut,), decompose):
            single[cut] = prefixes.mean_loss_from(cut.path)
        tried((cut,), single[cut], False)
    best, least = _joined(base, layers, batches, single, before, variant.joined, decompose, tried)
    predicted = {path: max(table.values()) for path, table in tables.items()}
    return Reduction(best, before, least, trials, predicted)


def _joined(
    base: Base,
    layers: Mapping[str, nn.Linear],
    batches: Sequence[Batch],
    single: Mapping[Cut, float],
    before: float,
    joined: bool,
    decompose: Decompose,
    tried: Callable[[tuple[Cut, ...], float, bool], None],
) -> tuple[tuple[Cut, ...], float]:
    """The best cut alone, and if `joined` greedily every next one that lowers the loss further, one cut a matrix; with their loss."""
    best: tuple[Cut, ...] = ()
    least = before
    for cut in sorted(single, key=single.__getitem__):
        if single[cut] >= before or (best and not joined):
            break
        if not best:
            best, least = (cut,), single[cut]
        elif cut.path not in {taken.path for taken in best}:
            with edited(layers, (*best, cut), decompose):
                found = mean_loss(base, batches)
            tried((*best, cut), found, found < least)
            if found < least:
                best, least = (*best, cut), found
    return best, least


def scored(
    base: Base,
    batches: Sequence[Batch],
    layers: Mapping[str, nn.Linear],
    variant: Variant,
    score: CutScore,
    decompose: Decompose,
    on_scored: Callable[[int], None],
) -> dict[str, dict[Cut, float]]:
    """What every cut of every matrix is predicted to gain. Each gradient is freed as soon as its matrix is scored."""
    slope = gradients(base, batches, layers)
    tables = {}
    for number, (path, layer) in enumerate(layers.items(), 1):
        found = gains(
            layer.weight,
            slope.pop(path),
            score=score,
            shares=variant.shares,
            blocks=variant.blocks,
            grouping=variant.grouping,
            decompose=decompose,
        )
        tables[path] = {Cut(path, *cell, variant.grouping): value for cell, value in found.items()}
        on_scored(number)
    return tables


def _promising(
    tables: Mapping[str, Mapping[Cut, float]], top: int, budget: int, most: float
) -> list[tuple[Cut, float]]:
    """`budget` cells of the `top` matrices with the best cell: the best one of each, then each one's second, and so on.

    Predictions hold for small cuts. Where one promises more than `most`, all the loss there is, the cut is so large that it says nothing,
    and the matrix is judged by its next one. Trials go to different matrices first, as a matrix's best cells succeed or fail together.
    """
    plausible = {
        path: sorted(((cut, gain) for cut, gain in table.items() if gain <= most), key=lambda item: -item[1])
        for path, table in tables.items()
    }
    chosen = sorted((path for path in plausible if plausible[path]), key=lambda path: -plausible[path][0][1])[:top]
    rounds = zip_longest(*(plausible[path] for path in chosen))
    return [item for each in rounds for item in each if item is not None][:budget]


def grid(layers: Mapping[str, nn.Linear], variant: Variant) -> list[Cut]:
    """LASER's cells: first and last matrix of every MLP, by every share. Raises NothingToReduce."""
    chosen = [path for path in layers if path.rpartition(".")[2] in MLP[0] + MLP[1]]
    if not chosen:
        raise NothingToReduce(
            "LASER's grid is over the matrices of MLPs, and none of this base has a name that is known; choose another variant."
        )
    return [Cut(path, share, blocks) for path in chosen for share in variant.shares for blocks in variant.blocks]


def _drawn(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    return list(examples) if len(examples) <= count else random.Random(seed).sample(list(examples), count)  # noqa: S311


class Prefixes:
    """The hidden states that enter each block of the untouched base, so that a change in a block costs only what comes after it.

    They are computed at once for all blocks, of the base as it is then, and take (blocks, examples, length, width) of memory.
    """

    def __init__(self, base: Base, batches: Sequence[Batch]) -> None:
        self.base, self.batches = base, batches
        self.blocks = _block_list(base)
        self.states = [self._states(batch) for batch in batches]

    def mean_loss_from(self, path: str) -> float:
        """The mean loss per target token, everything before the block of the layer `path` taken from the untouched base."""
        start = next((index for index, (name, _) in enumerate(self.blocks) if path.startswith(f"{name}.")), 0)
        total, counted = 0.0, 0
        for batch, states in zip(self.batches, self.states, strict=True):
            count = weight(batch)
            with torch.inference_mode(), self._entered(start, states):
                total += float(loss(self.base.model, batch)) * count
            counted += count
        return total / counted

    def _states(self, batch: Batch) -> list[Tensor]:
        found: list[Tensor] = []
        handles = [
            block.register_forward_pre_hook(lambda _block, inputs: found.append(inputs[0])) for _, block in self.blocks
        ]
        try:
            with torch.inference_mode():
                loss(self.base.model, batch)
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
