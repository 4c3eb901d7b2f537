"""A reduced base stored as factors: the two factors of every cut block of rows instead of their product, and a loader for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hub.lora.core.bases import Base
from hub.lora.core.decompose import Decompose, svd
from hub.lora.core.errors import LoraError
from hub.lora.reduce.gains import Cut, cut_weight, kept_count, matrices
from hub.lora.reduce.rows import row_groups

FILE = "factors.safetensors"


class FactorsUnfit(LoraError):
    """The factors belong to another base."""

    code = "factors_unfit"


@dataclass(frozen=True)
class Size:
    """Parameters of the cut matrices before and after, which is also the number of their multiply-adds per token."""

    before: int
    after: int


class Factored(nn.Module):
    """A linear layer whose rows come in groups: y_b = up_b (down_b x), with down_b (k_b, in) and up_b (rows of b, k_b).

    `order` (out,) has the place of each output among those of all groups one after the other.
    """

    def __init__(self, downs: Sequence[Tensor], ups: Sequence[Tensor], order: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.order: Tensor
        self.register_buffer("order", order, persistent=False)
        self.down = nn.Parameter(torch.cat(list(downs)), requires_grad=False)
        self.ups = nn.ParameterList([nn.Parameter(up, requires_grad=False) for up in ups])
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        inner = torch.split(inputs @ self.down.T, [up.shape[1] for up in self.ups], dim=-1)
        output = torch.cat([part @ up.T for part, up in zip(inner, self.ups, strict=True)], dim=-1)[..., self.order]
        return output if self.bias is None else output + self.bias


def write(base: Base, cuts: Sequence[Cut], folder: Path, decompose: Decompose = svd) -> Size:
    """Write the factors of each cut matrix, from the base's current weights, in its dtype.

    A matrix whose factors would be larger than itself is written whole.
    """
    layers = matrices(base)
    tensors: dict[str, Tensor] = {}
    orders: dict[str, Tensor] = {}
    before = after = 0
    for cut in cuts:
        weight = layers[cut.path].weight
        groups = row_groups(weight, cut.blocks, cut.grouping, decompose)
        parts = [decompose(weight[rows]) for rows in groups]
        counts = [kept_count(part.sigma, cut.share) for part in parts]
        small = sum(count * (len(part.u) + part.vt.shape[1]) for part, count in zip(parts, counts, strict=True))
        before += weight.numel()
        after += min(small, weight.numel())
        if small < weight.numel():
            orders[f"{cut.path}.order"] = torch.cat(groups).argsort().to("cpu", torch.int32)
            for index, (part, count) in enumerate(zip(parts, counts, strict=True)):
                tensors[f"{cut.path}.down.{index}"] = part.vt[:count]
                tensors[f"{cut.path}.up.{index}"] = part.u[:, :count] * part.sigma[:count]
        else:
            tensors[f"{cut.path}.weight"] = cut_weight(weight, cut, decompose)
    folder.mkdir(parents=True, exist_ok=True)
    rounded = {name: tensor.detach().to("cpu", base.dtype).contiguous() for name, tensor in tensors.items()}
    save_file(rounded | orders, folder / FILE)
    return Size(before, after)


def load(model: nn.Module, folder: Path) -> None:
    """Turn the original base's model into the reduced one, in place: its cut layers compute from their factors.

    Raises FactorsUnfit before anything is changed.
    """
    tensors = load_file(folder / FILE)
    paths = sorted({_path(name) for name in tensors})
    layers = {path: _layer(model, path) for path in paths}
    for path, layer in layers.items():
        whole = tensors.get(f"{path}.weight")
        downs, ups = _blocks(tensors, path, "down"), _blocks(tensors, path, "up")
        shape = whole.shape if whole is not None else (sum(len(up) for up in ups), downs[0].shape[1])
        if tuple(shape) != tuple(layer.weight.shape):
            raise FactorsUnfit(
                f"{path} is {tuple(shape)} in the factors and {tuple(layer.weight.shape)} in the model; load the base that was reduced."
            )
    for path, layer in layers.items():
        like = layer.weight
        whole = tensors.get(f"{path}.weight")
        if whole is not None:
            with torch.no_grad():
                like.copy_(whole)
            continue
        downs, ups = ([part.to(like) for part in _blocks(tensors, path, kind)] for kind in ("down", "up"))
        parent, _, name = path.rpartition(".")
        order = tensors[f"{path}.order"].to(like.device, torch.int64)
        setattr(model.get_submodule(parent), name, Factored(downs, ups, order, layer.bias))


def _path(name: str) -> str:
    single = name.endswith((".weight", ".order"))
    return name.rpartition(".")[0] if single else name.rsplit(".", 2)[0]


def _blocks(tensors: dict[str, Tensor], path: str, kind: str) -> list[Tensor]:
    names = [name for name in tensors if name.startswith(f"{path}.{kind}.")]
    return [tensors[f"{path}.{kind}.{index}"] for index in range(len(names))]


def _layer(model: nn.Module, path: str) -> nn.Linear:
    try:
        layer = model.get_submodule(path)
    except AttributeError as error:
        raise FactorsUnfit(f"The model has no layer {path}; load the base that was reduced.") from error
    if not isinstance(layer, nn.Linear):
        raise FactorsUnfit(
            f"{path} is a {type(layer).__name__} and not a linear layer; load the base that was reduced."
        )
    return layer
