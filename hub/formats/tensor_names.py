"""Names of an adapter's tensors: which layer and which factor they mean, and which tool wrote them.

Source: PEFT 0.21 (`peft.utils.save_and_load`), which the tests compare with.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hub.vocabulary import Style

PREFIX = "base_model.model."  # PeftModel.base_model is the tuner, and its .model is the base

Part = Literal["A", "B", "B_bias", "embedding_A", "embedding_B", "magnitude", "variant", "saved"]
Ignored = Literal["prefix", "nested", "adapter", "suffix"]

_PARTS: dict[tuple[str, str], Part] = {
    ("lora_A", "weight"): "A",
    ("lora_B", "weight"): "B",
    ("lora_B", "bias"): "B_bias",
    ("lora_embedding_A", ""): "embedding_A",
    ("lora_embedding_B", ""): "embedding_B",
    ("lora_magnitude_vector", ""): "magnitude",
    ("lora_magnitude_vector", "weight"): "magnitude",
}


@dataclass(frozen=True, slots=True)
class Key:
    """A parsed tensor name. `ignored` says why stock PEFT would leave the tensor out without an error."""

    module: str  # path of the layer inside the base, "model.layers.0.self_attn.q_proj"
    part: Part  # "saved": kept whole (modules_to_save, biases, embeddings); "variant": any other lora_ tensor
    ignored: Ignored | None = None
    adapter: str | None = (
        None  # the name of an adapter inside the tensor's name; PEFT reads the tensor under that name alone
    )


def parse_key(name: str) -> Key:
    """Parse the name of a tensor in adapter_model.safetensors."""
    path = name.removeprefix(PREFIX)
    ignored: Ignored | None = None
    if path == name:
        ignored, path = "prefix", name.removeprefix("base_model.")
    while path.startswith(PREFIX):
        ignored, path = "nested", path.removeprefix(PREFIX)
    words = path.split(".")
    at = next((i for i in reversed(range(len(words))) if words[i].startswith("lora_")), None)
    if at is None:
        module, _, saved_as = path.rpartition(".modules_to_save.")
        if module:
            return Key(module, "saved", ignored or "adapter", saved_as.partition(".")[0])
        module = path.rpartition(".")[0]
        return Key(module.removesuffix(".base_layer"), "saved", ignored)
    module, rest = ".".join(words[:at]), words[at + 1 :]
    # Saving drops the adapter's name, which in memory stands behind the word: lora_A.default.weight, lora_embedding_A.default.
    leaf = rest.pop() if rest and rest[-1] in ("weight", "bias") else ""
    part = _PARTS.get((words[at], leaf))
    if part is None:
        lacks_weight = words[at] in ("lora_A", "lora_B")
        return Key(module, "variant", ignored or ("suffix" if lacks_weight else None))
    if rest:
        return Key(module, part, ignored or "adapter", ".".join(rest))
    return Key(module, part, ignored)


def group_keys(names: Iterable[str]) -> dict[str, dict[Part, str]]:
    """Module path -> part -> name of its tensor, for the LoRA parts; a name that PEFT reads wins over one it ignores."""
    groups: dict[str, dict[Part, str]] = {}
    for name in names:
        key = parse_key(name)
        if key.part not in ("saved", "variant"):
            parts = groups.setdefault(key.module, {})
            if key.ignored is None or key.part not in parts:
                parts[key.part] = name
    return groups


_STYLES: tuple[tuple[Style, str], ...] = (
    ("loralib", r"\.lora_[AB]$"),
    ("mlx", r"\.lora_[ab]$"),
    ("kohya", r"^lora_(unet|te\d*|transformer)_"),
    (
        "diffusers",
        r"[._]lora\.(down|up)\.weight$|\.lora_linear_layer\.(down|up)\.weight$"
        r"|^(unet|text_encoder(_[23])?)\..*lora|^transformer\.(single_)?transformer_blocks\..*lora",
    ),
    ("peft", r"\.lora_[AB](\.[^.]+)?\.weight$"),  # without the prefix, so that PEFT leaves them out
)


def style_of(names: Iterable[str]) -> tuple[Style, str] | None:
    """The tool that names LoRA tensors like this, and the first name that shows it; None if no name is that of a LoRA tensor."""
    names = list(names)
    if like := next((name for name in names if name.startswith(PREFIX)), None):
        return "peft", like
    for style, regex in _STYLES:
        if like := next((name for name in names if re.search(regex, name)), None):
            return style, like
    return None
