"""The result of a reduction: the reduced base as an adapter for the original base."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from hub.lora.core.adapter import Adapter, Pair, layers_of, target_names
from hub.lora.core.bases import Base
from hub.lora.core.decompose import Decompose, svd
from hub.lora.reduce.gains import Cut, NothingToReduce, kept_count, matrices
from hub.lora.reduce.rows import row_groups


def as_adapter(
    base: Base, cuts: Sequence[Cut], merged_in: Adapter | None = None, decompose: Decompose = svd
) -> Adapter:
    """The removed tails with the opposite sign, exactly: the base with this adapter is the reduced base.

    With `merged_in` the cuts are those of the base with that adapter merged, and the result contains both. A cut to few values
    leaves a tail of nearly full rank, so such an adapter is large, often larger than the matrix itself. Ranks differ from pair to
    pair. With groups of rows, B is zero outside the rows of each group.
    """
    layers = matrices(base)
    pairs = dict(merged_in.pairs) if merged_in else {}
    for cut in cuts:
        weight = layers[cut.path].weight.cpu()
        under = pairs.get(cut.path)
        if under is None:
            pairs[cut.path] = _tail(weight, cut, decompose)
        else:
            tail = _tail(weight.float() + _delta(under, weight), cut, decompose)
            up = torch.cat([under.scaling * under.b.float(), tail.b], dim=1)
            pairs[cut.path] = Pair(torch.cat([under.a.float(), tail.a]), up, 1.0)
    config = {
        "base_model_name_or_path": base.id,
        "fan_in_fan_out": False,
        "target_modules": target_names(base.model, pairs),
        "task_type": base.task_type,
    }
    return Adapter("reduction", config, pairs)


def _tail(weight: Tensor, cut: Cut, decompose: Decompose) -> Pair:
    a, b = [], []
    for rows in row_groups(weight, cut.blocks, cut.grouping, decompose):
        svd = decompose(weight[rows])
        count = kept_count(svd.sigma, cut.share)
        a.append(svd.vt[count:])
        up = torch.zeros(len(weight), len(svd.sigma) - count)
        up[rows] = -svd.u[:, count:] * svd.sigma[count:]
        b.append(up)
    return Pair(torch.cat(a), torch.cat(b, dim=1), 1.0)


@contextmanager
def merged_into_base(base: Base, adapter: Adapter | None) -> Iterator[None]:
    """Within the block the adapter is merged into the base's weights; afterwards every bit is restored. None is the base alone.

    Raises WrongBase, UnsupportedAdapter, and NothingToReduce where a layer is not a linear layer of the base's blocks.
    """
    pairs = adapter.pairs if adapter else {}
    if adapter and not layers_of(base.model, adapter).keys() <= matrices(base).keys():
        raise NothingToReduce(
            f"{adapter.name} adapts other layers than the linear ones of {base.id}'s blocks; leave it out."
        )
    layers = {path: base.model.get_submodule(path) for path in pairs}
    before = {path: layer.weight.detach().clone() for path, layer in layers.items()}
    try:
        with torch.no_grad():
            for path, pair in pairs.items():
                weight = layers[path].weight
                weight.copy_(weight.float() + _delta(pair, weight))
        yield
    finally:
        with torch.no_grad():
            for path, weight in before.items():
                layers[path].weight.copy_(weight)


def _delta(pair: Pair, like: Tensor) -> Tensor:
    return pair.scaling * (pair.b.to(like.device).float() @ pair.a.to(like.device).float())
