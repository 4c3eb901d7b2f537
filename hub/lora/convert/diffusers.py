"""Files of diffusers (`utils/state_dict_utils.py`): `processor.to_q_lora.down`, `to_q.lora.down`, `lora_linear_layer.down` or `lora_A`.

Names start with the component of the pipeline. A pair without an alpha is added unscaled, as diffusers does.
"""

import json
import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from hub.formats.adapter_config import AdapterConfig, config_from, scaling_of
from hub.formats.errors import printable
from hub.lora.convert.assemble import PeftFiles, assemble, both_halves
from hub.lora.convert.errors import FactMissing, NotConvertible
from hub.lora.core.adapter import Pair

# Old names of attention layers: to_q_lora of a processor. A text encoder has other names for the layers of its processors.
_OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
_NAME = re.compile(
    r"(?:(?P<component>unet|text_encoder(?:_[23])?|transformer)\.)?(?P<path>.+?)"
    r"(?:(?:(?:\.processor)?\.(?P<old>\w+)_lora|\.lora(?:_linear_layer)?)\.(?P<way>down|up)\.weight"
    r"|\.lora_(?P<half>[AB])\.weight|\.lora_magnitude_vector(?:\.weight)?)"
)
_Parts = dict[str, Tensor]  # of one layer: "A", "B", "m", "alpha"


def from_diffusers(
    tensors: Mapping[str, Tensor],
    config: dict[str, object],
    metadata: Mapping[str, str],
    alpha: float | None,
    component: str | None,
) -> PeftFiles:
    components = _components(tensors)
    chosen = _choose(list(components), component)
    settings = _training_config(metadata, chosen)
    pairs = {}
    for layer, parts in components[chosen].items():
        a, b = both_halves(layer, parts, "A", "B")
        if a.ndim != b.ndim or a.ndim < 2 or len(a) != b.shape[1]:
            raise NotConvertible(
                f"{printable(layer)} has down {list(a.shape)} and up {list(b.shape)}, which cannot be multiplied; save it again."
            )
        if "alpha" in parts:
            scaling = float(parts["alpha"]) / len(a)
        elif settings:
            scaling = scaling_of(settings, layer)
        else:
            scaling = 1.0 if alpha is None else alpha / len(a)
        pairs[layer] = Pair(a, b, scaling, parts.get("m"))
    return assemble(pairs, {"base_model_name_or_path": config["base_model_name_or_path"]})


def _components(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, _Parts]]:
    """Component -> path of the layer in it, by today's names -> the layer's parts."""
    components: dict[str, dict[str, _Parts]] = {}
    owners: dict[str, _Parts] = {}  # what may stand before ".alpha"
    for name, tensor in tensors.items():
        if name.endswith(".alpha"):
            continue
        key = _NAME.fullmatch(name)
        if key is None:
            raise NotConvertible(f"{printable(name)} is not half of a LoRA pair of diffusers, so it cannot be kept.")
        path = _current_path(key["path"], key["old"])
        parts = components.setdefault(key["component"] or "", {}).setdefault(path, {})
        parts[key["half"] or {"down": "A", "up": "B"}.get(key["way"] or "", "m")] = tensor
        layer = f"{key['component']}.{path}" if key["component"] else path
        pair = re.sub(r"\.(?:(?:down|up)\.weight|lora_.*)$", "", name)
        owners |= dict.fromkeys((layer, pair, name, name.removesuffix(".weight")), parts)
    _add_alphas(tensors, owners)
    return components


def _current_path(path: str, old: str | None) -> str:
    """The layer's path by today's names, where a processor's matrix had the name `old`."""
    if not old:
        return path
    if path.endswith(".self_attn"):
        return f"{path}.{_OLD_TEXT.get(old, old)}"
    return f"{path}.to_out.0" if old == "to_out" else f"{path}.{old}"


def _add_alphas(tensors: Mapping[str, Tensor], owners: Mapping[str, _Parts]) -> None:
    for name, tensor in tensors.items():
        if not name.endswith(".alpha"):
            continue
        owner = name.removesuffix(".alpha")
        if owner not in owners or tensor.numel() != 1:
            raise NotConvertible(f"{printable(owner)}.alpha is the alpha of no pair in the file, so it cannot be kept.")
        owners[owner]["alpha"] = tensor


def _choose(components: Sequence[str], requested: str | None) -> str:
    if len(components) == 1 and requested in (None, components[0]):
        return components[0]
    if requested in components:
        return requested or ""
    present = ", ".join(sorted(name or "one without a name" for name in components))
    if requested is None:
        raise FactMissing(
            f"The file adapts several parts of a pipeline ({present}), and a PEFT adapter is of one; choose it as `component`."
        )
    raise NotConvertible(f"The file has no component {printable(requested)}; it has {present}.")


def _training_config(metadata: Mapping[str, str], component: str) -> AdapterConfig | None:
    """The config with which PEFT trained this component; diffusers 0.34 and later write it into the safetensors header."""
    if "lora_adapter_metadata" not in metadata:
        return None
    try:
        entries = json.loads(metadata["lora_adapter_metadata"])
        config = {
            key.removeprefix(f"{component}."): value
            for key, value in entries.items()
            if key.startswith(f"{component}.")
        }
        return config_from({"peft_type": "LORA", **config})
    except (AttributeError, ValueError) as error:
        raise NotConvertible(
            f"lora_adapter_metadata in the header cannot be read ({error}); save the weights again."
        ) from error
