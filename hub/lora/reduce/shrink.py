"""Make an adapter smaller: drop the components of its updates that its task does not need, within a loss budget.

The update of each matrix is decomposed by its SVD, sum_i sigma_i u_i v_i^T. With a factor s_i = 1 on each component, dropping it sets
s_i to 0, and its cost is to second order -dL/ds_i + d2L/ds_i2 / 2, where dL/ds_i = sigma_i u_i^T G v_i, the slope of hub.lora.reduce.gains
times sigma_i. The curvature is estimated by the squares of the examples' own slopes, as Optimal Brain Damage (LeCun et al. 1989) and its
empirical Fisher variants do. A trained adapter is at an optimum, where the slope is noise, and the curvature decides.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hub.lora.core.adapter import Adapter, Pair, UnsupportedAdapter, applied, layers_of
from hub.lora.core.bases import Base
from hub.lora.core.examples import IGNORED, Batch, Example, OnProgress, target_losses
from hub.lora.core.losses import encode_batches, mean_loss
from hub.vocabulary import ComponentScore


@dataclass(frozen=True)
class Components:
    """The SVD of one update: u (out, r), sigma (r,) in descending order, vt (r, in)."""

    u: Tensor
    sigma: Tensor
    vt: Tensor


@dataclass(frozen=True)
class Trial:
    """`loss` in nats per target token of the adapter with this many `components`."""

    components: int
    loss: float


@dataclass(frozen=True)
class Smaller:
    """`loss` on the examples, up from `before`; `components` is how many remain of `given` in all."""

    adapter: Adapter
    components: int
    given: int
    before: float
    loss: float
    trials: list[Trial]


@dataclass(frozen=True)
class Shrink:
    """Everything that decides how an adapter is shrunk besides base, adapter and examples.

    `order` is the score by which components are dropped. `loss_budget` is the allowed rise of the loss in nats per target token.
    """

    template: str
    order: ComponentScore = "fisher"
    loss_budget: float = 0.01


def shrink(
    base: Base,
    adapter: Adapter,
    examples: Sequence[Example],
    settings: Shrink,
    *,
    on_progress: OnProgress,
) -> Smaller:
    """Drop as many components of the adapter as the loss budget allows, the cheapest first.

    Components of all matrices are ranked together, so ranks differ from matrix to matrix and a matrix may drop out altogether.
    The number to drop is found by bisection on the measured loss. That loss need not be monotonic: the result is within the budget and
    one more component would exceed it, but a smaller adapter may exist. Raises WrongBase, UnsupportedAdapter.
    """
    parts, batches = components(adapter), encode_batches(base, examples, settings.template)
    with applied(base.model, adapter):
        before = mean_loss(base, batches)
    cheapest = cheapest_first(costs(base, adapter, parts, batches, order=settings.order))
    trials: list[Trial] = []

    def loss_without(count: int) -> float:
        remaining = len(cheapest) - count
        with applied(base.model, without(adapter, parts, cheapest[:count])):
            trials.append(Trial(remaining, mean_loss(base, batches)))
        numbers = {"loss": trials[-1].loss, "components": float(remaining)}
        on_progress(len(trials), len(cheapest).bit_length(), numbers)
        return trials[-1].loss

    dropped, most, loss = 0, len(cheapest) - 1, before  # at least one component remains
    while dropped < most:
        middle = (dropped + most + 1) // 2
        middle_loss = loss_without(middle)
        if middle_loss <= before + settings.loss_budget:
            dropped, loss = middle, middle_loss
        else:
            most = middle - 1
    smaller = without(adapter, parts, cheapest[:dropped])
    return Smaller(smaller, len(cheapest) - dropped, len(cheapest), before, loss, trials)


def components(adapter: Adapter) -> dict[str, Components]:
    """The updates' SVDs, from QR decompositions of the factors, so that no full matrix is made. Raises UnsupportedAdapter."""
    parts = {}
    for path, pair in adapter.pairs.items():
        if pair.magnitude is not None:
            raise UnsupportedAdapter(
                f"{adapter.name}: DoRA's magnitudes change with every component; merge it instead."
            )
        q_b, r_b = torch.linalg.qr(pair.scaling * pair.b.float())
        q_a, r_a = torch.linalg.qr(pair.a.float().T)
        u, sigma, vt = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
        parts[path] = Components(q_b @ u, sigma, vt @ q_a.T)
    return parts


def costs(
    base: Base, adapter: Adapter, parts: Mapping[str, Components], batches: Sequence[Batch], *, order: ComponentScore
) -> dict[str, Tensor]:
    """The cost of dropping each component, (r,) by path, in nats per target token; for "energy" its sigma, which ignores the task.

    "tail_taylor" is the first-order cost -dL/ds alone, the score that `hub.lora.reduce.gains` cuts bases by; "fisher" the curvature alone.
    """
    if order == "energy":
        return {path: part.sigma for path, part in parts.items()}
    total = {path: torch.zeros(len(part.sigma)) for path, part in parts.items()}
    tokens = 0
    for batch in batches:
        tokens += batch.target_tokens
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
    """Within the block the base computes with the adapter, each component multiplied by the scale of its example."""
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
    """(path, component) by ascending cost."""
    ranked = sorted(
        (value, path, index) for path, values in cost.items() for index, value in enumerate(values.tolist())
    )
    return [(path, index) for _, path, index in ranked]


def without(adapter: Adapter, parts: Mapping[str, Components], dropped: Sequence[tuple[str, int]]) -> Adapter:
    """The adapter of the remaining components, sigma shared evenly by both factors."""
    gone = set(dropped)
    pairs = {}
    for path, part in parts.items():
        left = [index for index in range(len(part.sigma)) if (path, index) not in gone]
        if left:
            root = part.sigma[left].sqrt()
            pairs[path] = Pair(root[:, None] * part.vt[left], part.u[:, left] * root, 1.0)
    # Short names would make PEFT look for the dropped matrices as well.
    config = adapter.config if len(pairs) == len(parts) else {**adapter.config, "target_modules": sorted(pairs)}
    return Adapter(adapter.name, config, pairs)
