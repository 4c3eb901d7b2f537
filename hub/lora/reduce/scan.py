"""Find the cuts that make a base better at a task: the paper's variants by name, from predicted gains or over LASER's whole grid.

Of the paper (arXiv 2510.20800) only the summary of its variants could be read. `VARIANTS` defines what the names mean here. Joining several
cuts where this helps is our addition. LASER (arXiv 2312.13558) takes the one best cell of a grid over the matrices of its MLPs.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from torch import nn

from hub.lora.core.bases import Base
from hub.lora.core.decompose import Decompose, svd
from hub.lora.core.examples import Batch, Example, OnProgress
from hub.lora.reduce.gains import BLOCKS, SHARES, Cut, NothingToReduce, edited, gains, gradients, matrices
from hub.lora.reduce.objective import batches_of, mean_loss
from hub.lora.reduce.prefixes import Prefixes
from hub.vocabulary import CutScore, Grouping, VariantName

GRADED_ROWS = 8  # of a batch that gives gradients: more would need more memory in backpropagation than they save time
GRID = (0.9, 0.8, 0.6, 0.2, 0.1, 0.05, 0.01)  # LASER's table 5
# The first and last matrix of a block's MLP, as LASER's code names them for its architectures, and names of similar ones.
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
    """`predicted` is the gain by the score (for "tail_taylor" in nats, as `loss` is), None where nothing was predicted."""

    cuts: tuple[Cut, ...]
    predicted: float | None
    loss: float
    kept: bool


@dataclass(frozen=True)
class Reduction:
    """`cuts` together gave `loss`, down from `before`; none if nothing helped. `matrices` has the best predicted gain of each matrix."""

    cuts: tuple[Cut, ...]
    before: float
    loss: float
    trials: list[Trial]
    matrices: dict[str, float]


@dataclass(frozen=True)
class Scan:
    """Everything that decides a scan besides base and examples: `budget` trials of cuts in the `top` matrices by `score`.

    Where a variant takes fewer examples than there are, `seed` draws them.
    """

    template: str
    variant: Variant = VARIANTS["cl-100g-100e"]
    score: CutScore = "tail_taylor"
    top: int = 10
    budget: int = 10
    seed: int = 0


class _Trials:
    """The cuts tried so far. Each trial is reported to `on_progress`."""

    def __init__(
        self,
        predicted: Mapping[Cut, float | None],
        before: float,
        steps_before: int,
        steps: int,
        on_progress: OnProgress,
    ) -> None:
        self.records: list[Trial] = []
        self._predicted, self._before = predicted, before
        self._steps_before, self._steps, self._on_progress = steps_before, steps, on_progress

    def add(self, cuts: tuple[Cut, ...], loss: float, *, kept: bool) -> None:
        gains = [self._predicted[cut] for cut in cuts]
        predicted = sum(gain for gain in gains if gain is not None) if None not in gains else None
        self.records.append(Trial(cuts, predicted, loss, kept))
        best = min(self._before, *(trial.loss for trial in self.records))
        self._on_progress(self._steps_before + len(self.records), self._steps, {"loss": loss, "best": best})


def scan(
    base: Base,
    examples: Sequence[Example],
    settings: Scan,
    *,
    decompose: Decompose = svd,
    on_progress: OnProgress,
) -> Reduction:
    """Try the best predicted cuts one by one, then join to the best one what helps it further.

    Cuts are chosen by the mean loss of `hub.lora.reduce.objective`: of choosing, where all examples have choices, else of their targets.
    A trial computes nothing before the block that it changes. `on_progress(step, steps at most, {loss, best})`, called for every matrix
    that is scored and every trial, may raise to stop; the base is then as it was. Raises NothingToReduce.
    """
    layers, variant = matrices(base), settings.variant
    tables, candidates = _candidates(base, examples, layers, settings, decompose, on_progress)
    batches = batches_of(base, _sample(examples, variant.tried, settings.seed), settings.template)
    before = mean_loss(base, batches)
    steps = len(tables) + len(candidates) * (2 if variant.joined else 1)
    trials = _Trials(candidates, before, len(tables), steps, on_progress)
    prefixes = Prefixes(base, batches)
    single: dict[Cut, float] = {}
    for cut in candidates:
        with edited(layers, (cut,), decompose):
            single[cut] = prefixes.mean_loss_from(cut.path)
        trials.add((cut,), single[cut], kept=False)

    def loss_with(cuts: tuple[Cut, ...]) -> float:
        with edited(layers, cuts, decompose):
            return mean_loss(base, batches)

    best, lowest = _join(single, before, loss_with if variant.joined else None, trials)
    predicted = {path: max(table.values()) for path, table in tables.items()}
    return Reduction(best, before, lowest, trials.records, predicted)


def _candidates(
    base: Base,
    examples: Sequence[Example],
    layers: Mapping[str, nn.Linear],
    settings: Scan,
    decompose: Decompose,
    on_progress: OnProgress,
) -> tuple[dict[str, dict[Cut, float]], dict[Cut, float | None]]:
    """(matrix -> cut -> predicted gain, the cuts to try with their predicted gain)."""
    variant = settings.variant
    if variant.graded is None:
        return {}, dict.fromkeys(grid(layers, variant))
    graded = batches_of(base, _sample(examples, variant.graded, settings.seed), settings.template, GRADED_ROWS)
    steps = len(layers) + 2 * settings.budget
    tables = score_cuts(
        base, graded, layers, variant, settings.score, decompose, lambda step: on_progress(step, steps, {})
    )
    most = mean_loss(base, graded) if settings.score == "tail_taylor" else math.inf
    return tables, dict(_promising(tables, settings.top, settings.budget, most))


def _join(
    single: Mapping[Cut, float],
    before: float,
    loss_with: Callable[[tuple[Cut, ...]], float] | None,
    trials: _Trials,
) -> tuple[tuple[Cut, ...], float]:
    """The best cuts together and their loss: the best single cut, then with `loss_with` every next one that lowers the loss further.

    At most one cut per matrix is joined.
    """
    helpful = [cut for cut in sorted(single, key=single.__getitem__) if single[cut] < before]
    if not helpful:
        return (), before
    best: tuple[Cut, ...] = (helpful[0],)
    lowest = single[helpful[0]]
    if loss_with is None:
        return best, lowest
    for cut in helpful[1:]:
        if cut.path in {chosen.path for chosen in best}:
            continue
        loss = loss_with((*best, cut))
        trials.add((*best, cut), loss, kept=loss < lowest)
        if loss < lowest:
            best, lowest = (*best, cut), loss
    return best, lowest


def score_cuts(
    base: Base,
    batches: Sequence[Batch],
    layers: Mapping[str, nn.Linear],
    variant: Variant,
    score: CutScore,
    decompose: Decompose,
    on_scored: Callable[[int], None],
) -> dict[str, dict[Cut, float]]:
    """The predicted gain of every cut of every matrix. Each gradient is freed as soon as its matrix is scored."""
    slope = gradients(base, batches, layers)
    tables = {}
    for number, (path, layer) in enumerate(layers.items(), 1):
        scores = gains(
            layer.weight,
            slope.pop(path),
            score=score,
            shares=variant.shares,
            blocks=variant.blocks,
            grouping=variant.grouping,
            decompose=decompose,
        )
        tables[path] = {Cut(path, *cell, variant.grouping): value for cell, value in scores.items()}
        on_scored(number)
    return tables


def _promising(
    tables: Mapping[str, Mapping[Cut, float]], top: int, budget: int, most: float
) -> list[tuple[Cut, float]]:
    """`budget` cells of the `top` matrices with the best cell: the best one of each, then each one's second, and so on.

    Predictions hold for small cuts. A cut whose prediction exceeds `most`, the whole loss, is so large that the prediction says nothing;
    its matrix is ranked by the next one. Trials go to different matrices first, as a matrix's best cells succeed or fail together.
    """
    plausible = {
        path: sorted(((cut, gain) for cut, gain in table.items() if gain <= most), key=lambda item: -item[1])
        for path, table in tables.items()
    }
    chosen = sorted((path for path in plausible if plausible[path]), key=lambda path: -plausible[path][0][1])[:top]
    rounds = zip_longest(*(plausible[path] for path in chosen))
    return [item for items in rounds for item in items if item is not None][:budget]


def grid(layers: Mapping[str, nn.Linear], variant: Variant) -> list[Cut]:
    """LASER's cells: first and last matrix of every MLP, by every share. Raises NothingToReduce."""
    chosen = [path for path in layers if path.rpartition(".")[2] in MLP[0] + MLP[1]]
    if not chosen:
        raise NothingToReduce(
            "LASER's grid is over the matrices of MLPs, and none of this base has a name that is known; choose another variant."
        )
    return [Cut(path, share, blocks) for path in chosen for share in variant.shares for blocks in variant.blocks]


def _sample(examples: Sequence[Example], count: int | None, seed: int) -> list[Example]:
    """`count` examples drawn at random; all of them if there are no more, or if `count` is None."""
    if count is None or len(examples) <= count:
        return list(examples)
    return random.Random(seed).sample(list(examples), count)  # noqa: S311
