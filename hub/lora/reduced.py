"""What a reduction hands back: the reduced base as an adapter for the untouched one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hub.lora.adapter import Adapter, Pair
from hub.lora.bases import Base
from hub.lora.forms import target_names
from hub.lora.reduce import Cut, kept, matrices


def as_adapter(base: Base, cuts: Sequence[Cut]) -> Adapter:
    """The cut tails with the opposite sign, exactly: the base with this adapter is the reduced base.

    A cut to few values leaves a tail of nearly full rank, so such an adapter is large, often larger than the matrix itself; its ranks are
    those of the pairs. With row blocks B is block-diagonal.
    """
    layers = matrices(base)
    pairs = {cut.path: _tail(layers[cut.path].weight.float(), cut) for cut in cuts}
    config = {
        "base_model_name_or_path": base.id,
        "fan_in_fan_out": False,
        "target_modules": target_names(base.model, pairs),
        "task_type": base.task_type,
    }
    return Adapter("reduction", config, pairs)


def _tail(weight: Tensor, cut: Cut) -> Pair:
    a, b = [], []
    for rows in weight.tensor_split(cut.blocks):
        u, sigma, vt = torch.linalg.svd(rows, full_matrices=False)
        count = kept(sigma, cut.share)
        a.append(vt[count:])
        b.append(-u[:, count:] * sigma[count:])
    return Pair(torch.cat(a), torch.block_diag(*b), 1.0)  # type: ignore[no-untyped-call]
