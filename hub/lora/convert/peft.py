"""PEFT's own files, made complete where PEFT would not read them.

The merged layers of PEFT before 0.3 (`enable_lora`) are unfolded as loralib's are.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from hub.formats.adapter_config import AdapterConfig, config_from, scaling_of
from hub.formats.errors import FormatError, printable
from hub.formats.tensor_names import PREFIX, parse_key
from hub.lora.convert.assemble import PeftFiles, assemble, both_halves
from hub.lora.convert.errors import NotConvertible
from hub.lora.convert.loralib import unfold
from hub.lora.core.adapter import Pair

_LEAVES = {
    "A": "lora_A.weight",
    "B": "lora_B.weight",
    "B_bias": "lora_B.bias",
    "embedding_A": "lora_embedding_A",
    "embedding_B": "lora_embedding_B",
    "magnitude": "lora_magnitude_vector",
}


def from_peft(tensors: Mapping[str, Tensor], config: dict[str, object]) -> PeftFiles:
    try:
        settings = config_from(config)
    except FormatError as error:
        raise NotConvertible(
            f"The tensors have PEFT's names, but adapter_config.json is not PEFT's: {error}"
        ) from error
    if "enable_lora" in settings.variants:
        return _from_merged_layers(tensors, config, settings)
    renamed = {_complete_name(name): tensor for name, tensor in tensors.items()}
    if len(renamed) != len(tensors):
        raise NotConvertible("Several tensors mean the same matrix, as more than one adapter is in the file; save one.")
    return renamed, config


def _complete_name(name: str) -> str:
    """The name by which PEFT reads the tensor: with its prefix once, and without an adapter's name."""
    key = parse_key(name)
    if not key.ignored:
        return name
    if key.part in _LEAVES:
        return f"{PREFIX}{key.module}.{_LEAVES[key.part]}"
    if key.ignored == "suffix":
        return f"{name}.weight"
    if key.part == "saved" and key.ignored in ("prefix", "nested"):
        return PREFIX + re.sub(rf"^(?:{re.escape(PREFIX)})+", "", name)
    raise NotConvertible(f"PEFT does not read {printable(name)}, and what it stands for is not certain; save it again.")


def _from_merged_layers(tensors: Mapping[str, Tensor], config: dict[str, object], settings: AdapterConfig) -> PeftFiles:
    """Each merged layer as one pair of the whole layer."""
    if settings.bias != "none":
        raise NotConvertible(f"It has trained biases (bias {settings.bias}) beside merged layers; train it again.")
    lanes = config["enable_lora"]
    if not isinstance(lanes, list) or not all(isinstance(lane, bool) for lane in lanes) or not any(lanes):
        raise NotConvertible("enable_lora in adapter_config.json is not a list of true and false; correct it.")
    halves, saved = _halves(tensors)
    pairs = {}
    for layer, (a, b) in halves.items():
        pairs[layer] = Pair(*unfold(layer, a, b, lanes, everywhere=True), scaling_of(settings, layer))
    return assemble(pairs, config, saved, settings.modules_to_save)


def _halves(tensors: Mapping[str, Tensor]) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """(layer -> its two matrices, tensors of modules that were trained whole)."""
    layers: dict[str, dict[str, Tensor]] = {}
    saved = {}
    for name, tensor in tensors.items():
        key = parse_key(name)
        if key.part in ("A", "B") and not key.ignored:
            layers.setdefault(key.module, {})[key.part] = tensor
        elif key.part == "saved" and not key.ignored:
            saved[name.removeprefix(PREFIX)] = tensor
        else:
            raise NotConvertible(f"{printable(name)} has no place beside merged layers; train the adapter again.")
    return {layer: both_halves(layer, parts, "A", "B") for layer, parts in layers.items()}, saved
