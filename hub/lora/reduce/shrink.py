"""Make an adapter smaller: drop the components of its updates that its task does not need, within a loss budget.

The update of each matrix is taken apart by its SVD, sum_i sigma_i u_i v_i^T. With a factor s_i = 1 on each component, dropping it sets
s_i to 0, and its cost is to second order -dL/ds_i + d2L/ds_i2 / 2, where dL/ds_i = sigma_i u_i^T G v_i, the slope of hub.lora.reduce.gains
times sigma_i. The curvature is estimated by the squares of the examples' own slopes, as Optimal Brain Damage (LeCun et al. 1989) and its
empirical Fisher variants do. At the optimum that a trained adapter sits in, the slope is nothing but noise, and the curvature decides.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hub.lora.core.adapter import Adapter, Pair, UnsupportedAdapter, applied, layers_of
from hub.lora.core.bases import Base
from hub.lora.core.examples import IGNORED, Batch, Example, OnProgress, target_losses
from hub.lora.core.losses import encoded, mean_loss
from hub.vocabulary import ComponentScore


@dataclass(frozen=True)
class Components:
    """The SVD of one update: u (out, r), sigma (r,) in falling order, vt (r, in)."""

    u: Tensor
    sigma: Tensor
    vt: Tensor


@dataclass(frozen=True)
class Trial:
    """`loss` in nats per target token of the adapter with so many `components`."""

    components: int
    loss: float


@dataclass(frozen=True)
class Smaller:
    """`loss` on the examples, up from `before`; `components` are those that stayed, of `given` in all."""

    adapter: Adapter
    components: int
    given: int
    before: float
    loss: float
    trials: list[Trial]


def smaller(
    base: Base,
    adapter: Adapter,
    examples: Sequence[Example],
    *,
    template: str,
    order: ComponentScore = "fisher",
    loss_budget: float = 0.01,
    on_progress: OnProgress,
) -> Smaller:
    """The adapter without as many components as may go for at most `loss_budget` nats per target token on the examples.

    The cheapest go first, whichever matrix they are of, so that ranks differ from matrix to matrix and a matrix may drop out altogether.
    How many go is found by bisection on the measured loss, which need not rise with each one: what is found keeps to the budget and
    leaves no cheaper step of one component, but need not be the least there is. Raises WrongBase, UnsupportedAdapter.
    """
    parts, batches = components(adapter), encoded(base, examples, template)
    with applied(base.model, adapter):
        before = mean_loss(base, batches)
    falling = cheapest_first(costs(base, adapter, parts, batches, order=order))
    trials: list[Trial] = []

    def loss_without(count: int) -> float:
        with applied(base.model, without(adapter, parts, falling[:count])):
            trials.append(Trial(len(falling) - count, mean_loss(base, batches)))
        on_progress(
            len(trials), len(falling).bit_length(), {"loss": trials[-1].loss, "components": float(len(falling) - count)}
        )
        return trials[-1].loss

    gone, most, loss = 0, len(falling) - 1, before  # an adapter keeps one component at least
    while gone < most:
        middle = (gone + most + 1) // 2
        found = loss_without(middle)
        if found <= before + loss_budget:
            gone, loss = middle, found
        else:
            most = middle - 1
    made = without(adapter, parts, falling[:gone])
    return Smaller(made, len(falling) - gone, len(falling), before, loss, trials)


def components(adapter: Adapter) -> dict[str, Components]:
    """The updates' SVDs, from QR decompositions of the factors, so that no full matrix is made. Raises UnsupportedAdapter."""
    found = {}
    for path, pair in adapter.pairs.items():
        if pair.magnitude is not None:
            raise UnsupportedAdapter(
                f"{adapter.name}: DoRA's magnitudes change with every component; merge it instead."
            )
        q_b, r_b = torch.linalg.qr(pair.scaling * pair.b.float())
        q_a, r_a = torch.linalg.qr(pair.a.float().T)
        u, sigma, vt = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
        found[path] = Components(q_b @ u, sigma, vt @ q_a.T)
    return found


def costs(
    base: Base, adapter: Adapter, parts: Mapping[str, Components], batches: Sequence[Batch], *, order: ComponentScore
) -> dict[str, Tensor]:
    """What dropping each component costs, (r,) by path, in nats per target token; for "energy" its sigma, which knows no task.

    "tail_taylor" is the first-order cost -dL/ds alone, the score that `hub.lora.reduce.gains` cuts bases by; "fisher" the curvature alone.
    """
    if order == "energy":
        return {path: part.sigma for path, part in parts.items()}
    total = {path: torch.zeros(len(part.sigma)) for path, part in parts.items()}
    tokens = 0
    for batch in batches:
        tokens += int((batch.labels != IGNORED).sum())
        for path, slopes in example_slopes(base, adapter, parts, batch).items():
            total[path] += (slopes**2).sum(0).cpu() / 2 if order == "fisher" else -slopes.sum(0).cpu()
    return {path: value / tokens for path, value in total.items()}


def example_slopes(base: Base, adapter: Adapter, parts: Mapping[str, Components], batch: Batch) -> dict[str, Tensor]:
    """dL_e/ds_i by path, (examples, r), L_e the summed loss of example e in nats, at s = 1, from one backward pass for all examples."""
    layers = layers_of(base.model, adapter)
    rows = len(batch.labels)
    scales = {
        path: torch.ones(rows, 1, len(part.sigma), device=base.device, requires_grad=True)
        for path, part in parts.items()
    }
    with _scaled(layers, parts, scales), torch.enable_grad():
        counts = (batch.labels != IGNORED).sum(1).to(base.device)
        slopes = torch.autograd.grad((target_losses(base.model, batch) * counts).sum(), list(scales.values()))
    return {path: slope[:, 0].float() for path, slope in zip(scales, slopes, strict=True)}


@contextmanager
def _scaled(
    layers: Mapping[str, nn.Module], parts: Mapping[str, Components], scales: Mapping[str, Tensor]
) -> Iterator[None]:
    """Within the block the base computes with the adapter, each component times the scale of its example."""
    handles = [layers[path].register_forward_hook(_adding(part, scales[path])) for path, part in parts.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _adding(part: Components, scale: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def add(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        down, up = (part.sigma[:, None] * part.vt).to(inputs[0]), part.u.to(inputs[0])
        return output + (inputs[0] @ down.T * scale.to(inputs[0])) @ up.T

    return add


def cheapest_first(cost: Mapping[str, Tensor]) -> list[tuple[str, int]]:
    """(path, component) by rising cost."""
    falling = sorted(
        (value, path, index) for path, values in cost.items() for index, value in enumerate(values.tolist())
    )
    return [(path, index) for _, path, index in falling]


def without(adapter: Adapter, parts: Mapping[str, Components], gone: Sequence[tuple[str, int]]) -> Adapter:
    """The adapter of the components that are left, sigma shared evenly by both factors."""
    dropped = set(gone)
    pairs = {}
    for path, part in parts.items():
        left = [index for index in range(len(part.sigma)) if (path, index) not in dropped]
        if left:
            root = part.sigma[left].sqrt()
            pairs[path] = Pair(root[:, None] * part.vt[left], part.u[:, left] * root, 1.0)
    # Names would make PEFT look for the matrices that dropped out as well.
    config = adapter.config if len(pairs) == len(parts) else {**adapter.config, "target_modules": sorted(pairs)}
    return Adapter(adapter.name, config, pairs)
