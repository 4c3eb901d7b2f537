"""Pairs of matrices as the files of a PEFT adapter."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from hub.formats.errors import printable
from hub.formats.tensor_names import PREFIX
from hub.lora.convert.errors import NotConvertible
from hub.lora.core.adapter import Adapter, Pair, peft_config

PeftFiles = tuple[dict[str, Tensor], dict[str, object]]  # tensors by PEFT's names, and adapter_config.json


def both_halves(layer: str, parts: Mapping[str, Tensor], first: str, second: str) -> tuple[Tensor, Tensor]:
    """The two matrices of a layer's pair. Raises NotConvertible if one is missing."""
    if first not in parts or second not in parts:
        present = first if first in parts else second
        raise NotConvertible(f"{printable(layer)} has only the half {present} of its pair; save the adapter again.")
    return parts[first], parts[second]


def check_matrices(layer: str, a: Tensor, b: Tensor, *, merged: bool = False) -> None:
    """Raise NotConvertible unless a is (r, in) and b is (out, r); in a merged layer, a may have a multiple of r rows."""
    is_pair = a.ndim == b.ndim == 2 and 0 not in (*a.shape, *b.shape)
    if not is_pair or (len(a) % b.shape[1] if merged else len(a) != b.shape[1]):
        raise NotConvertible(
            f"{printable(layer)} has a first matrix of shape {list(a.shape)} and a second of {list(b.shape)}, which is not a pair on a "
            "linear layer; PEFT has no place for it."
        )


def assemble(
    pairs: Mapping[str, Pair],
    config: Mapping[str, object],
    saved: Mapping[str, Tensor] | None = None,
    modules_to_save: Sequence[str] = (),
) -> PeftFiles:
    """The pairs under PEFT's names, in the dtype they have, with a config that gives each layer its rank and scaling.

    `saved` are tensors of modules that were trained whole, `modules_to_save` the paths of those modules.
    """
    tensors = {}
    for path, pair in sorted(pairs.items()):
        tensors[f"{PREFIX}{path}.lora_A.weight"] = pair.a.clone().contiguous()
        tensors[f"{PREFIX}{path}.lora_B.weight"] = pair.b.clone().contiguous()
        if pair.magnitude is not None:
            tensors[f"{PREFIX}{path}.lora_magnitude_vector"] = pair.magnitude.clone().contiguous()
    tensors |= {f"{PREFIX}{name}": tensor for name, tensor in (saved or {}).items()}
    return tensors, peft_config(Adapter("", dict(config), dict(pairs))) | {
        "modules_to_save": list(modules_to_save) or None
    }
