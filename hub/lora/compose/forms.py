"""Several modules at given weights as one adapter: the three forms of a composition.

For modules i with pairs A_i (r_i, in), B_i (out, r_i) and scaling s_i, and weights w, per layer:
- form "product", the paper's (arXiv 2307.13269, section 2.1): delta = (sum_i w_i s_i B_i)(sum_i w_i A_i). It keeps the rank, needs equal
  ranks, holds the cross terms w_i w_j B_i A_j, is even in w, and shrinks with w squared. Reference: sail-sg/lorahub,
  lorahub/algorithm.py, get_final_weights, which sums the raw matrices; with s_i folded into B_i unequal scalings come out right as well.
- form "sum": delta = sum_i w_i s_i B_i A_i, exactly, by concatenation: rows of A, columns of B. Ranks add up and may differ.
- form "svd": the same delta, truncated at the end to the nearest delta of a given rank (Eckart and Young 1936); until then it is a sum.

There is one weight per module, or one per module and layer.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hub.lora.core.adapter import Adapter, Pair, UnsupportedAdapter, target_names
from hub.lora.core.bases import Base
from hub.lora.core.errors import LoraError
from hub.vocabulary import Form


class IncompatibleModules(LoraError):
    code = "incompatible_modules"


@dataclass(frozen=True)
class _Stack:
    """One layer of all modules: a (R, in), b (out, R) with the scalings folded in, owner (R,) the module each rank belongs to."""

    a: Tensor
    b: Tensor
    owner: Tensor
    modules: int  # how many modules adapt this layer
    column: int  # of this layer in weights by module and layer


class Mixture:
    """All modules as one adapter with one weight per module: stacked once, so that new weights cost one scaling of the columns of B.

    `layers` names the columns of weights (modules, layers): the blocks ("model.layers.0"), in numeric order.
    """

    def __init__(self, modules: Sequence[Adapter], form: Form, device: torch.device) -> None:
        check_compatible(modules, form)
        self.form = form
        paths = sorted({path for module in modules for path in module.pairs})
        self.layers = sorted({_block(path) for path in paths}, key=_by_number)
        columns = {layer: column for column, layer in enumerate(self.layers)}
        self.stacks = {path: _stacked(modules, path, columns[_block(path)], device) for path in paths}

    def pairs(self, weights: Sequence[float] | Tensor) -> dict[str, Pair]:
        """The layers' pairs at weights (modules,) or (modules, layers), float32, scaling 1. Differentiable with respect to them."""
        tensor = torch.as_tensor(weights, dtype=torch.float32)
        return {path: self._pair(stack, _rank_weights(stack, tensor)) for path, stack in self.stacks.items()}

    def compact(self, weights: Sequence[float] | Tensor) -> dict[str, Pair]:
        """The same delta without modules of weight zero, which saves their rank in a sum; a layer without any module is left out."""
        tensor = torch.as_tensor(weights, dtype=torch.float32)
        pairs = {}
        for path, stack in self.stacks.items():
            rank_weights = _rank_weights(stack, tensor)
            if rank_weights.any():
                pair = self._pair(stack, rank_weights)
                used = rank_weights != 0
                pairs[path] = pair if self.form == "product" else Pair(pair.a[used], pair.b[:, used], 1.0)
        # An adapter needs at least one pair. If all weights are zero, every pair is zero.
        return pairs or {path: Pair(stack.a[:1], 0 * stack.b[:, :1], 1.0) for path, stack in self.stacks.items()}

    def _pair(self, stack: _Stack, rank_weights: Tensor) -> Pair:
        if self.form != "product":
            return Pair(stack.a, stack.b * rank_weights, 1.0)
        a = (stack.a * rank_weights[:, None]).reshape(stack.modules, -1, stack.a.shape[1]).sum(0)
        b = (stack.b * rank_weights).reshape(len(stack.b), stack.modules, -1).sum(1)
        return Pair(a, b, 1.0)


def _rank_weights(stack: _Stack, weights: Tensor) -> Tensor:
    """The weight of each rank of the stack, (R,)."""
    of_layer = weights if weights.ndim == 1 else weights[:, stack.column]
    return of_layer.to(stack.b.device)[stack.owner]


def _block(path: str) -> str:
    numbered = re.match(r".*?\.\d+(?=\.)", path)
    return numbered[0] if numbered else path


def _by_number(layer: str) -> tuple[str, int]:
    stem, _, number = layer.rpartition(".")
    return (stem, int(number)) if number.isdigit() else (layer, 0)


def _stacked(modules: Sequence[Adapter], path: str, column: int, device: torch.device) -> _Stack:
    members = [(index, module.pairs[path]) for index, module in enumerate(modules) if path in module.pairs]
    return _Stack(
        a=torch.cat([pair.a.to(device, torch.float32) for _, pair in members]),
        b=torch.cat([pair.b.to(device, torch.float32) * pair.scaling for _, pair in members], dim=1),
        owner=torch.tensor([index for index, pair in members for _ in range(pair.rank)], device=device),
        modules=len(members),
        column=column,
    )


def check_compatible(modules: Sequence[Adapter], form: Form) -> None:
    """Raise IncompatibleModules or UnsupportedAdapter unless these modules can be composed in this form."""
    if not modules:
        raise IncompatibleModules("There is no adapter to compose. Choose at least one.")
    names = [module.name for module in modules]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise IncompatibleModules(f"{twice} is chosen twice; every adapter may take part once.")
    first: dict[str, tuple[str, Pair]] = {}
    for module in modules:
        for path, pair in module.pairs.items():
            if pair.magnitude is not None:
                raise UnsupportedAdapter(
                    f"{module.name}: it uses DoRA, whose magnitudes no weighted sum of low-rank pairs can express. Leave it out."
                )
            other, reference = first.setdefault(path, (module.name, pair))
            _check_pairs(path, (other, reference), (module.name, pair), form)


def _check_pairs(path: str, first: tuple[str, Pair], second: tuple[str, Pair], form: Form) -> None:
    (name, pair), (other, other_pair) = first, second
    if (other_pair.a.shape[1], other_pair.b.shape[0]) != (pair.a.shape[1], pair.b.shape[0]):
        raise IncompatibleModules(
            f"{name} and {other} adapt {path} in different shapes, {pair.b.shape[0]} x {pair.a.shape[1]} and "
            f"{other_pair.b.shape[0]} x {other_pair.a.shape[1]}: they belong to different bases."
        )
    if form == "product" and other_pair.rank != pair.rank:
        raise IncompatibleModules(
            f"{name} has rank {pair.rank} at {path} and {other} has rank {other_pair.rank}: the form 'product' adds the "
            "matrices themselves and needs equal ranks. Use the form 'sum'."
        )


def mix(base: Base, modules: Sequence[Adapter], weights: Sequence[float] | Tensor, form: Form, name: str) -> Adapter:
    """The modules at fixed weights as one adapter, ready to write: float32, alpha = rank, scalings folded in.

    The form "svd" is a sum here; `truncate` reduces its rank.
    """
    pairs = Mixture(modules, form, torch.device("cpu")).compact(weights)
    config: dict[str, object] = {"target_modules": target_names(base.model, pairs)}
    for field in ("auto_mapping", "base_model_name_or_path", "fan_in_fan_out", "revision", "task_type"):
        config[field] = modules[0].config.get(field)
    return Adapter(name, config, pairs)


@dataclass(frozen=True)
class Truncated:
    """`error` is |delta - truncated| / |delta| in the Frobenius norm over all layers together, `worst` that of the worst layer."""

    adapter: Adapter
    error: float
    worst: float


def truncate(adapter: Adapter, rank: int) -> Truncated:
    """The nearest adapter of at most this rank per layer. Both factors get the root of the singular values, so it can be trained on."""
    check_compatible([adapter], "svd")
    pairs, lost, whole = {}, [], []
    for path, pair in adapter.pairs.items():
        u, values, v = _singular(pair)
        root = values[:rank].sqrt()
        pairs[path] = Pair(root[:, None] * v[:rank], u[:, :rank] * root, 1.0)
        lost.append(float(values[rank:].square().sum()))
        whole.append(float(values.square().sum()))
    errors = [math.sqrt(part / of) for part, of in zip(lost, whole, strict=True) if of]
    error = math.sqrt(sum(lost) / sum(whole)) if errors else 0.0
    return Truncated(Adapter(adapter.name, adapter.config, pairs), error, max(errors, default=0.0))


def _singular(pair: Pair) -> tuple[Tensor, Tensor, Tensor]:
    """The thin SVD of the pair's delta: (out, k), (k,), (k, in)."""
    a, b = pair.a.float(), pair.b.float() * pair.scaling
    if pair.rank >= min(len(b), a.shape[1]):
        u, values, v = torch.linalg.svd(b @ a, full_matrices=False)
        return u, values, v
    # b a = Q_b (R_b R_a^T) Q_a^T: only the core of the pair's rank needs an SVD, and the dense delta is never made.
    q_b, r_b = torch.linalg.qr(b)
    q_a, r_a = torch.linalg.qr(a.T)
    u, values, v = torch.linalg.svd(r_b @ r_a.T)
    return q_b @ u, values, v @ q_a.T
