"""The facts of one sound adapter: what lists, searches, jobs and pages know about it without reading its files again."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from hub.formats.adapter_config import AdapterConfig, alpha_of
from hub.formats.ranged_file import RangedFile
from hub.formats.safetensors_header import BITS, TensorInfo
from hub.registry.inspection.model_card import Card
from hub.registry.inspection.parsed_adapter import Layer, ParsedAdapter

CHUNK = 1 << 20
MAX_TAGS, MAX_TAG = 100, 100

# Flags of adapters that are more, or something else, than a sum of scaling * B @ A over linear layers of the base as it is.
NOT_PLAIN = frozenset(
    [
        "alora",
        "arrow",
        "bdlora",
        "bias",
        "convolution",
        "corda",
        "dora",
        "embeddings",
        "kasa",
        "layer_replication",
        "loftq",
        "lora_bias",
        "lora_ga",
        "modules_to_save",
        "monteclora",
        "olora",
        "pissa",
        "qalora",
        "target_parameters",
        "trainable_tokens",
    ]
)


@dataclass(frozen=True)
class InspectedAdapter:
    """The facts of one sound PEFT folder. Text comes from the upload: safe to store, not to put into HTML unescaped."""

    folder: str  # "" for the top
    base_model: str | None  # as adapter_config.json names it
    base_id: str | None  # the registered base that the name means
    base_revision: str | None
    peft_type: str
    method: str  # what made it: loraloom.json's word, else "dora" or "lora"
    task_type: str | None
    rank: int  # the largest
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    scaling: str  # "alpha/r" or "alpha/sqrt(r)"
    target_modules: tuple[str, ...]  # last components of the adapted layers' names
    layers: int  # how many numbered layers of the base it touches
    dtype: str
    parameters: int
    size_bytes: int
    shapes: Mapping[str, tuple[int, int, int]]  # adapted layer -> in, out, rank
    flags: tuple[str, ...]
    template: str | None
    licence: str | None
    tags: tuple[str, ...]
    description: str
    card: Mapping[str, object] = field(default_factory=dict)  # the front matter

    def to_dict(self) -> dict[str, object]:
        """JSON values only, for the database and the API."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return values | {"shapes": {module: list(shape) for module, shape in self.shapes.items()}}


def describe_adapter(
    adapter: ParsedAdapter, base_id: str | None, card: Card, sidecar: Mapping[str, str], *, zero: bool
) -> InspectedAdapter:
    """The facts of a parsed adapter. `sidecar`: `method` and `template` of loraloom.json. `zero`: it changes nothing yet."""
    config, layers = adapter.config, adapter.layers
    ranks = sorted({layer.rank for layer in layers})
    flags = _flags(config, layers) | ({"zero_b"} if zero else set())
    return InspectedAdapter(
        folder=adapter.folder.path,
        base_model=config.base_model,
        base_id=base_id,
        base_revision=config.revision,
        peft_type=config.peft_type,
        method=sidecar.get("method") or ("dora" if config.use_dora else "lora"),
        task_type=config.task_type,
        rank=ranks[-1],
        ranks=tuple(ranks),
        alphas=tuple(sorted({alpha_of(config, layer.module) for layer in layers})),
        scaling="alpha/sqrt(r)" if config.use_rslora else "alpha/r",
        target_modules=tuple(sorted({layer.module.rpartition(".")[2] for layer in layers})),
        layers=_count_numbered(layers),
        dtype="+".join(sorted({tensor.dtype for layer in layers for tensor in (layer.a, layer.b)})),
        parameters=sum(tensor.count for tensor in adapter.tensors.values()),
        size_bytes=adapter.weights.size,
        shapes={layer.module: (layer.inputs, layer.outputs, layer.rank) for layer in layers},
        flags=tuple(sorted(flags)),
        template=sidecar.get("template") or next(iter(card.values("prompt_template")), None),
        licence=card.licence,
        tags=tuple(dict.fromkeys(tag[:MAX_TAG] for tag in card.values("tags")[:MAX_TAGS])),
        description=card.description,
        card=card.front,
    )


def is_untrained(adapter: ParsedAdapter) -> bool:
    """Whether every matrix that PEFT initialises to zero is still zero. Reads the weights up to the first other number."""
    return all(_is_zero(adapter.weights, layer.starts_at_zero) for layer in adapter.layers)


def _is_zero(file: RangedFile, tensor: TensorInfo) -> bool:
    """Whether every number is zero, read up to the first that is not. Minus zero, which differs in its top bit, is zero."""
    width = max(BITS[tensor.dtype] // 8, 1)
    for offset in range(tensor.start, tensor.end, CHUNK):
        chunk = file.read(offset, min(CHUNK, tensor.end - offset))
        top_bytes = chunk[width - 1 :: width]
        if top_bytes.strip(b"\0\x80") or any(chunk[byte::width].strip(b"\0") for byte in range(width - 1)):
            return False
    return True


def _count_numbered(layers: Sequence[Layer]) -> int:
    """How many different layers of the base are meant: "model.layers.3.self_attn.q_proj" belongs to layer 3."""
    numbers = (re.search(r"(?:^|\.)(\d+)(?:\.|$)", layer.module) for layer in layers)
    return len({match[1] for match in numbers if match})


def _flags(config: AdapterConfig, layers: Sequence[Layer]) -> set[str]:
    init = str(config.init_lora_weights).lower()
    flags = {
        "bias": config.bias != "none",
        "convolution": any(len(layer.a.shape) > 2 for layer in layers),
        "dora": config.use_dora,
        "embeddings": any(layer.embedding for layer in layers),
        "fan_in_fan_out": config.fan_in_fan_out,
        "layer_replication": config.layer_replication,
        "lora_bias": config.lora_bias,
        "modules_to_save": bool(config.modules_to_save),
        "alpha_pattern": bool(config.alpha_pattern),
        "rank_pattern": bool(config.rank_pattern),
        "rslora": config.use_rslora,
        "target_parameters": bool(config.target_parameters),
        "trainable_tokens": config.trainable_tokens,
        **{name: init.startswith(name) for name in ("pissa", "olora", "corda", "loftq", "lora_ga")},
    }
    variants = {name.removeprefix("use_").removesuffix("_config").partition("_")[0] for name in config.variants}
    return variants | {flag for flag, is_set in flags.items() if is_set}
