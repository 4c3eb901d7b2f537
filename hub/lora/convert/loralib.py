"""Files of loralib (github.com/microsoft/LoRA, `loralib/layers.py`): A (r, in) and B (out, r) without ".weight", no alpha.

Its MergedLinear is a grouped 1x1 convolution: A (groups * r, in), B (groups * out / lanes, r). Each group belongs to one lane of a fused
layer, such as query, key and value.
"""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from hub.formats.errors import printable
from hub.lora.convert.assemble import PeftFiles, assemble, both_halves, check_matrices
from hub.lora.convert.errors import FactMissing, NotConvertible
from hub.lora.core.adapter import Pair


def from_loralib(
    tensors: Mapping[str, Tensor], config: dict[str, object], alpha: float, enable_lora: Sequence[bool] | None
) -> PeftFiles:
    layers, saved = _split(tensors)
    pairs = {}
    for layer, parts in layers.items():
        a, b = both_halves(layer, parts, "lora_A", "lora_B")
        if re.search(r"emb|wte|conv", layer):
            raise NotConvertible(
                f"{printable(layer)} looks like an embedding or a convolution, whose matrices loralib lays out like those of a linear "
                "layer and PEFT does not; train without it."
            )
        pairs[layer] = Pair(*unfold(layer, a, b, enable_lora), alpha / (b.shape[1] if b.ndim > 1 else 1))
    return assemble(pairs, config, saved, _whole_modules(pairs, saved))


def _split(tensors: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """(layer -> its matrices by loralib's names, all other tensors)."""
    wrapper = "module." if all(name.startswith("module.") for name in tensors) else ""  # of DistributedDataParallel
    layers: dict[str, dict[str, Tensor]] = {}
    saved = {}
    for name, tensor in tensors.items():
        layer, _, leaf = name.removeprefix(wrapper).rpartition(".")
        if leaf in ("lora_A", "lora_B"):
            layers.setdefault(layer, {})[leaf] = tensor
        else:
            saved[f"{layer}.{leaf}"] = tensor
    return layers, saved


def unfold(
    layer: str, a: Tensor, b: Tensor, enable_lora: Sequence[bool] | None, *, everywhere: bool = False
) -> tuple[Tensor, Tensor]:
    """A grouped pair, A (groups * r, in) and B (groups * width, r, ...), as one of the whole layer: B (lanes * width, groups * r).

    B is zero where a lane does not see a group's rows of A, so the product is the same. A pair of one group is a plain one,
    unless all layers are merged (`everywhere`) or one lane is trained. Raises FactMissing, NotConvertible.
    """
    b = b.flatten(1) if b.ndim > 1 else b
    check_matrices(layer, a, b, merged=True)
    rank = b.shape[1]
    groups = len(a) // rank
    if groups == 1 and not everywhere and (enable_lora is None or sum(enable_lora) != 1):
        return a, b
    if enable_lora is None:
        raise FactMissing(
            f"{printable(layer)} is a merged layer ({len(a)} rows in lora_A for {rank} columns of lora_B): say which of its lanes are "
            "trained as `enable_lora`, such as [true, false, true] for query and value of a merged query, key and value."
        )
    if groups != sum(enable_lora) or len(b) % groups:
        raise NotConvertible(
            f"{printable(layer)} has lora_A {list(a.shape)} and lora_B {list(b.shape)}, which is not {sum(enable_lora)} lanes of one "
            "rank, as enable_lora says; correct enable_lora, or save the adapter again."
        )
    width = len(b) // groups
    whole = b.new_zeros(len(enable_lora) * width, groups * rank)
    for group, lane in enumerate(lane for lane, trained in enumerate(enable_lora) if trained):
        rows = b[group * width : (group + 1) * width]
        whole[lane * width : (lane + 1) * width, group * rank : (group + 1) * rank] = rows
    return a, whole


def _whole_modules(pairs: Mapping[str, Pair], saved: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Paths of the modules that were trained whole, such as a classifier: each the topmost one without a LoRA layer below it."""
    above = {layer[:dot] for layer in pairs for dot in (0, *(match.start() for match in re.finditer(r"\.", layer)))}
    whole = []
    for name in saved:
        module, _, leaf = name.rpartition(".")
        if module in pairs or (leaf == "bias" and f"{module}.weight" not in saved):
            what = "a weight of the base" if leaf == "weight" else "a trained bias alone"
            raise NotConvertible(
                f"{printable(name)} is {what}, for which PEFT's LoRA has no place; save the LoRA matrices (lora_state_dict with bias none) "
                "and whole new layers only."
            )
        words = module.split(".")
        path = next((path for end in range(1, len(words) + 1) if (path := ".".join(words[:end])) not in above), None)
        if path is None:
            raise NotConvertible(f"{printable(name)} is a parameter of a module that holds LoRA layers; leave it out.")
        whole.append(path)
    return tuple(dict.fromkeys(whole))
