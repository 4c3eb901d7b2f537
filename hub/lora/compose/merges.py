"""Merges that are not linear in the modules: TIES, DARE and magnitude pruning at given weights, by PEFT's own functions.

TIES (arXiv 2306.01708, section 3) keeps the largest entries of each module, elects a sign per entry and averages those that agree; DARE
(arXiv 2311.03099, section 3) drops entries at random and rescales the rest. With a name that ends in "_svd" they work on the dense
deltas, and the result is truncated to a rank. Otherwise, as in PEFT's `add_weighted_adapter`, they work on A and B separately, weighted by
sqrt(|w_i s_i|) with the sign on A, which needs equal ranks and holds cross terms.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft.utils import merge_utils
from torch import Tensor

from hub.lora.compose.composition import Composition, check_base, check_weight_count
from hub.lora.compose.forms import check_compatible, truncate
from hub.lora.core.adapter import Adapter, Pair, largest_rank, target_names
from hub.lora.core.bases import Base
from hub.lora.core.errors import LoraError
from hub.vocabulary import Merge


class UnusableDensity(LoraError):
    code = "unusable_density"


def merge_modules(
    base: Base,
    modules: Sequence[Adapter],
    weights: Sequence[float],
    merge: Merge,
    *,
    density: float = 0.5,
    rank: int | None = None,
    seed: int = 0,
) -> Composition:
    """Merge the modules at weights, one per module. `density` is the share of entries that remain, between 0 and 1; "linear" keeps all.

    `rank` is for names that end in "_svd"; its default is the modules' largest. DARE draws from `seed`, layer by layer in the base's order.
    Raises IncompatibleModules, WrongBase or UnusableDensity.
    """
    started = time.perf_counter()
    on_factors = not merge.endswith("_svd")
    check_compatible(modules, "product" if on_factors else "svd")
    check_weight_count(modules, weights)
    if not 0 < density < 1:
        raise UnusableDensity(f"The density {density} keeps everything or nothing; choose one between 0 and 1.")
    check_base(base, modules)
    pairs = _merged_pairs(base, modules, weights, merge, density, seed)
    config: dict[str, Any] = {"target_modules": target_names(base.model, pairs)}
    for field in ("base_model_name_or_path", "fan_in_fan_out", "revision", "task_type"):
        config[field] = modules[0].config.get(field)
    adapter, error = Adapter("composition", config, pairs), None
    settings = {"search": "none", "form": merge, "density": density, "seed": seed}
    if not on_factors:
        rank = rank or largest_rank(modules)
        truncated = truncate(adapter, rank)
        adapter, error, settings = truncated.adapter, truncated.error, settings | {"rank": rank}
    return Composition(
        adapter=adapter,
        weights={module.name: float(weight) for module, weight in zip(modules, weights, strict=True)},
        objective=None,
        loss=None,
        trace=[],
        evaluations=0,
        seconds=time.perf_counter() - started,
        settings=settings,
        truncation_error=error,
    )


def _merged_pairs(
    base: Base, modules: Sequence[Adapter], weights: Sequence[float], merge: Merge, density: float, seed: int
) -> dict[str, Pair]:
    combine = _combination(merge.removesuffix("_svd"), density)
    merge_layer = _of_deltas if merge.endswith("_svd") else _of_factors
    adapted = {path for module in modules for path in module.pairs}
    pairs = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for path in (path for path, _ in base.model.named_modules() if path in adapted):
            weighted = zip(modules, weights, strict=True)
            members = [(module.pairs[path], weight) for module, weight in weighted if path in module.pairs]
            pairs[path] = merge_layer(members, combine)
    return pairs


Combine = Callable[[list[Tensor], Tensor], Tensor]


def _combination(name: str, density: float) -> Combine:
    if name == "linear":
        return lambda tensors, weights: merge_utils.task_arithmetic(tensors, weights)
    function = getattr(merge_utils, name)
    return lambda tensors, weights: function(tensors, weights, density)


def _of_factors(members: Sequence[tuple[Pair, float]], combine: Combine) -> Pair:
    amounts = [weight * pair.scaling for pair, weight in members]
    of_b = torch.tensor([math.sqrt(abs(amount)) for amount in amounts])
    of_a = torch.tensor([math.copysign(math.sqrt(abs(amount)), amount) for amount in amounts])
    a = combine([pair.a.float() for pair, _ in members], of_a)
    b = combine([pair.b.float() for pair, _ in members], of_b)
    return Pair(a, b, 1.0)


def _of_deltas(members: Sequence[tuple[Pair, float]], combine: Combine) -> Pair:
    """The dense merged delta as the pair (delta, identity) of full rank, to be truncated."""
    deltas = [pair.scaling * pair.b.float() @ pair.a.float() for pair, _ in members]
    dense = combine(deltas, torch.tensor([weight for _, weight in members]))
    return Pair(torch.eye(dense.shape[1]), dense, 1.0)
