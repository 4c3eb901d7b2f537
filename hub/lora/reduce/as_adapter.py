"""What a reduction hands back: the reduced base as an adapter for the untouched one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from hub.lora.core.adapter import Adapter, Pair, layers_of
from hub.lora.core.bases import Base
from hub.lora.core.decompose import Decompose, svd
from hub.lora.core.layer_names import target_names
from hub.lora.reduce.gains import Cut, NothingToReduce, kept, matrices
from hub.lora.reduce.rows import row_groups


def as_adapter(
    base: Base, cuts: Sequence[Cut], merged_in: Adapter | None = None, decompose: Decompose = svd
) -> Adapter:
    """The cut tails with the opposite sign, exactly: the base with this adapter is the reduced base.

    With `merged_in` the cuts are those of the base with that adapter merged, and both together are handed back. A cut to few values
    leaves a tail of nearly full rank, so such an adapter is large, often larger than the matrix itself; its ranks are those of the
    pairs. With groups of rows, B is zero outside of each one's rows.
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
        found = decompose(weight[rows])
        count = kept(found.sigma, cut.share)
        a.append(found.vt[count:])
        up = torch.zeros(len(weight), len(found.sigma) - count)
        up[rows] = -found.u[:, count:] * found.sigma[count:]
        b.append(up)
    return Pair(torch.cat(a), torch.cat(b, dim=1), 1.0)


@contextmanager
def merged(base: Base, adapter: Adapter | None) -> Iterator[None]:
    """Within the block the adapter is part of the base's weights; afterwards every bit is as it was. None is the base alone.

    Raises WrongBase, UnsupportedAdapter, and NothingToReduce where a layer is no linear layer of the base's blocks.
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
