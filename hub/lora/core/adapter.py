"""One LoRA adapter in memory: read from and written to PEFT's files, and applied to a loaded base by forward hooks.

LoRA (arXiv 2106.09685, section 4.1) adds `scaling * B @ A` to the weight of a linear layer; DoRA (arXiv 2402.09353, section 4.1) then
gives every row of the sum a trained length, its magnitude. Anything else that a PEFT file can hold (trained biases, an
initialisation that rewrote the base) is refused by name, because its results would be silently wrong. The meaning of a config
(patterns, rsLoRA) is defined in `hub.formats.adapter_config`, once for the whole project.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from hub.formats.adapter_config import CONFIG, WEIGHTS, AdapterConfig, parse_config, rank_of, scaling_of
from hub.formats.errors import FormatError
from hub.formats.tensor_names import PREFIX, parse_key
from hub.lora.core.errors import LoraError

_A, _B, _MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"

# Initialisations that leave the base's weights as they are. Under the others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) the stored pair is
# relative to a base that was rewritten before training, so it is not a delta of the original base. Unknown ones are not trusted.
_BASE_KEEPING_INITS = (True, False, "gaussian", "eva", "orthogonal")

_NDIM = {"A": 2, "B": 2, "magnitude": 1}  # of the tensors that a linear layer's pair may have

# Fields that a written config copies from the one that was read: where the adapter belongs and which modules it names. Everything
# that decides the arithmetic is derived from the pairs instead.
_COPIED = (
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "fan_in_fan_out",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "revision",
    "task_type",
)


class UnreadableAdapter(LoraError):
    code = "unreadable_adapter"


class UnsupportedAdapter(LoraError):
    """A valid adapter with features beyond low-rank pairs on linear layers, or beyond what this computation can use."""

    code = "unsupported_adapter"


class WrongBase(LoraError):
    """The adapter names a layer that the base does not have, or has in another shape."""

    code = "wrong_base"


@dataclass(frozen=True)
class Pair:
    """One adapted linear layer: delta = scaling * b @ a, with a (r, in) and b (out, r).

    With a DoRA `magnitude` (out,) the layer's weight W becomes magnitude * (W + delta) / |W + delta|, row by row.
    """

    a: Tensor
    b: Tensor
    scaling: float
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])


@dataclass(frozen=True)
class Adapter:
    """`pairs` is keyed by the layer's path inside the base ("model.layers.0.self_attn.q_proj"), `config` is adapter_config.json."""

    name: str
    config: dict[str, Any]
    pairs: dict[str, Pair]


def read(folder: Path, name: str | None = None) -> Adapter:
    """Read `adapter_config.json` and `adapter_model.safetensors`; tensors stay on the CPU in the dtype they were stored in.

    Raises UnreadableAdapter when the files are missing, broken or contradict each other, and UnsupportedAdapter, which names the
    feature, when the adapter does more than add low-rank pairs to linear layers.
    """
    name = name or folder.name
    path = folder / CONFIG
    if not path.is_file():
        raise UnreadableAdapter(f"{name}: there is no {path.name} in its folder, so this is not a PEFT adapter.")
    data = path.read_bytes()
    try:
        settings = parse_config(data)
    except FormatError as error:
        raise UnreadableAdapter(f"{name}: {error}") from error
    config = json.loads(data)
    _refuse_unsupported(settings, config, name)
    return Adapter(name, config, _paired(_read_tensors(folder, name), settings, name))


def _refuse_unsupported(settings: AdapterConfig, config: Mapping[str, Any], name: str) -> None:
    if settings.peft_type != "LORA":
        raise UnsupportedAdapter(f"{name}: its PEFT type is {settings.peft_type}; only LORA adapters can be used here.")
    present = {
        "trained biases (bias)": settings.bias != "none",
        "a bias on lora_B (lora_bias)": settings.lora_bias,
        "whole trained modules (modules_to_save)": settings.modules_to_save,
        "trained token embeddings (trainable_token_indices)": config.get("trainable_token_indices"),
        "LoRA on bare parameters (target_parameters)": settings.target_parameters,
        "replicated layers (layer_replication)": settings.layer_replication,
        **dict.fromkeys(settings.variants, True),
    }
    for feature, used in present.items():
        if used:
            raise UnsupportedAdapter(
                f"{name}: it uses {feature}, which is more than a low-rank pair per linear layer. Train it again without."
            )
    if settings.init_lora_weights not in _BASE_KEEPING_INITS:
        raise UnsupportedAdapter(
            f"{name}: its initialisation ({settings.init_lora_weights}) may have changed the base's own weights, so its pairs are no "
            "delta of the original base. Convert it with save_pretrained(path_initial_model_for_weight_conversion=...)."
        )


def _read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = folder / "adapter_model.bin"
        reason = (
            f"its weights are a pickle ({pickled.name}), which can run code when read"
            if pickled.is_file()
            else "it has no weights"
        )
        raise UnreadableAdapter(f"{name}: {reason}. Save it as {path.name}.")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open is not a mapping)
    except SafetensorError as error:
        raise UnreadableAdapter(f"{name}: {path.name} cannot be read ({error}). Fetch the file again.") from error


def _paired(tensors: Mapping[str, Tensor], settings: AdapterConfig, name: str) -> dict[str, Pair]:
    halves: dict[str, dict[str, Tensor]] = {}
    for tensor_name, tensor in tensors.items():
        key = parse_key(tensor_name)
        if key.ignored or _NDIM.get(key.part) != tensor.ndim:
            raise UnsupportedAdapter(
                f"{name}: the tensor {tensor_name} of shape {tuple(tensor.shape)} is not one half of a low-rank pair on a linear layer "
                f"(a matrix named {PREFIX}<layer>{_A} or {_B}), nor its magnitude."
            )
        halves.setdefault(key.module, {})[key.part] = tensor
    if not halves:
        raise UnreadableAdapter(f"{name}: {WEIGHTS} holds no tensors.")
    return {path: _pair(path, halves[path], settings, name) for path in sorted(halves)}


def _pair(path: str, half: Mapping[str, Tensor], settings: AdapterConfig, name: str) -> Pair:
    magnitude = half.get("magnitude")
    present = sorted(half.keys() - {"magnitude"})
    if len(present) != 2:
        raise UnreadableAdapter(
            f"{name}: layer {path} has only lora_{(present or ['magnitude_vector'])[0]}; its other half is missing."
        )
    a, b = half["A"], half["B"]
    if settings.use_dora != (magnitude is not None) or (magnitude is not None and len(magnitude) != len(b)):
        what = "no magnitude" if magnitude is None else f"a magnitude of shape {tuple(magnitude.shape)}"
        raise UnreadableAdapter(
            f"{name}: layer {path} has {what}, with use_dora {str(settings.use_dora).lower()} and {len(b)} rows. Weights and config "
            "do not belong together."
        )
    rank = rank_of(settings, path)
    if not a.shape[0] == b.shape[1] == rank:
        raise UnreadableAdapter(
            f"{name}: layer {path} has lora_A {tuple(a.shape)} and lora_B {tuple(b.shape)}, but its config says rank {rank}. "
            "Weights and config do not belong together."
        )
    return Pair(a, b, scaling_of(settings, path), magnitude)


def write(adapter: Adapter, folder: Path, *, dtype: torch.dtype) -> None:
    """Write the two files that stock PEFT loads, tensors in `dtype`; the same adapter gives the same bytes.

    The config is derived from the pairs: alpha = scaling * rank, plain scaling alpha/r, patterns only where layers differ. So rsLoRA
    and initialisation flags of a parent are never inherited (PEFT's own add_weighted_adapter inherits them, and is sqrt(r) off).
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for path, pair in adapter.pairs.items():
        # Cloned, because safetensors refuses tensors that share storage, as those of a composition may.
        tensors[f"{PREFIX}{path}{_A}"] = pair.a.detach().to("cpu", dtype, copy=True).contiguous()
        tensors[f"{PREFIX}{path}{_B}"] = pair.b.detach().to("cpu", dtype, copy=True).contiguous()
        if pair.magnitude is not None:
            tensors[f"{PREFIX}{path}{_MAGNITUDE}"] = pair.magnitude.detach().to("cpu", dtype, copy=True)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    text = json.dumps(peft_config(adapter), indent=2, sort_keys=True)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def peft_config(adapter: Adapter) -> dict[str, Any]:
    """The adapter_config.json with which stock PEFT computes the same as these pairs."""
    ranks = {path: pair.rank for path, pair in adapter.pairs.items()}
    alphas = {path: _integral(pair.scaling * pair.rank) for path, pair in adapter.pairs.items()}
    # The largest is the default, because serving engines size their buffers by `r` and ignore patterns.
    rank = max(ranks.values())
    alpha = next(alphas[path] for path in ranks if ranks[path] == rank)
    config = {field: adapter.config.get(field) for field in _COPIED}
    config |= {
        "bias": "none",
        "fan_in_fan_out": bool(adapter.config.get("fan_in_fan_out")),
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": adapter.config.get("lora_dropout") or 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "use_dora": any(pair.magnitude is not None for pair in adapter.pairs.values()),
        "use_rslora": False,
    }
    config |= {
        "alpha_pattern": _exceptions(alphas, alpha),
        "rank_pattern": _exceptions(ranks, rank),
    }
    config["target_modules"] = _target_modules(adapter, config)
    return config


def _exceptions(values: Mapping[str, float], default: float) -> dict[str, float]:
    # PEFT reads the keys as regular expressions that may match the end of a path, so each is escaped and anchored.
    return {f"^{re.escape(path)}": value for path, value in values.items() if value != default}


def _integral(value: float) -> float:
    # PEFT documents lora_alpha as an integer. Rounding errors of scaling * rank must not make it a float.
    return round(value) if abs(value - round(value)) < 1e-9 * max(1.0, abs(value)) else value


def _target_modules(adapter: Adapter, config: Mapping[str, Any]) -> list[str] | str:
    """The config's own names if PEFT finds every layer by them, else the full path of every layer.

    PEFT drops a layer it does not find with a warning only, so an inherited list must be checked and not trusted.
    """
    named = adapter.config.get("target_modules")
    if named:
        lora = LoraConfig(
            target_modules=named,
            exclude_modules=config["exclude_modules"],
            layers_to_transform=config["layers_to_transform"],
            layers_pattern=config["layers_pattern"],
        )
        if all(check_target_module_exists(lora, path) for path in adapter.pairs):
            return named if isinstance(named, str) else sorted(named)
    return sorted(adapter.pairs)


def largest_rank(adapters: Sequence[Adapter]) -> int:
    return max(pair.rank for adapter in adapters for pair in adapter.pairs.values())


def target_names(model: nn.Module, paths: Collection[str]) -> list[str]:
    """Short names ("q_proj") where they match exactly these layers, as serving engines prefer them; else the full paths."""
    leaves = {path.rpartition(".")[2] for path in paths}
    matched = {path for path, _ in model.named_modules() if path.rpartition(".")[2] in leaves}
    return sorted(leaves) if matched == set(paths) else sorted(paths)


@contextmanager
def applied(model: nn.Module, adapter: Adapter | None) -> Iterator[None]:
    """Within the block `model` computes with the adapter; None is the base alone. The base's weights are never changed.

    Each adapted layer gets a forward hook that adds `scaling * B(A x)` in the layer's own dtype, on its device; with a magnitude it also
    rescales the sum. The hooks are removed after the block however it ends. Raises WrongBase before the first hook is set.
    """
    handles = []
    if adapter is not None:
        layers = layers_of(model, adapter)
        handles = [
            layers[path].register_forward_hook(_adding(layers[path], pair)) for path, pair in adapter.pairs.items()
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def layers_of(model: nn.Module, adapter: Adapter) -> dict[str, nn.Linear | Conv1D]:
    """The base's layers that the adapter changes. Raises WrongBase or UnsupportedAdapter where one cannot be."""
    return {path: _layer(model, path, pair, adapter.name) for path, pair in adapter.pairs.items()}


def _layer(model: nn.Module, path: str, pair: Pair, name: str) -> nn.Linear | Conv1D:
    try:
        layer = model.get_submodule(path)
    except AttributeError as error:
        raise WrongBase(
            f"{name}: it adapts {path}, which the base does not have. It was trained on another base."
        ) from error
    if isinstance(layer, nn.Linear):
        shape = (layer.out_features, layer.in_features)
    elif isinstance(layer, Conv1D):
        shape = (layer.nf, layer.nx)
    else:
        raise UnsupportedAdapter(
            f"{name}: it adapts {path}, a {type(layer).__name__}; only linear layers are supported."
        )
    if shape != (pair.b.shape[0], pair.a.shape[1]):
        raise WrongBase(
            f"{name}: its delta for {path} is {pair.b.shape[0]} x {pair.a.shape[1]}, the base's layer is {shape[0]} x {shape[1]}. "
            "It was trained on another base."
        )
    return layer


def _adding(layer: nn.Linear | Conv1D, pair: Pair) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    # Four-bit weights are stored as bytes.
    dtype: torch.dtype = layer.weight.dtype if layer.weight.is_floating_point() else layer.compute_dtype  # type: ignore[assignment]
    a = pair.a.to(layer.weight.device, dtype)
    b = (pair.b.float() * pair.scaling).to(layer.weight.device, dtype)

    def add(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + functional.linear(functional.linear(inputs[0], a), b)

    if pair.magnitude is None:
        return add
    if not layer.weight.is_floating_point():
        raise UnsupportedAdapter(
            "DoRA's magnitudes need the base's weights, which are in four bits; load the base whole."
        )
    stretch = _stretch(layer, pair, pair.magnitude)

    def add_and_stretch(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if layer.bias is None:
            return add(_layer, inputs, output) * stretch
        return (add(_layer, inputs, output) - layer.bias) * stretch + layer.bias

    return add_and_stretch


def _stretch(layer: nn.Linear | Conv1D, pair: Pair, magnitude: Tensor) -> Tensor:
    """DoRA's factor of each row, magnitude / |W + delta|, (out,) in the layer's dtype; computed in float32."""
    weight = (layer.weight.T if isinstance(layer, Conv1D) else layer.weight).float()
    a, b = pair.a.to(weight), pair.b.to(weight)
    length = torch.linalg.vector_norm(weight + pair.scaling * b @ a, dim=1)
    stretch: Tensor = (magnitude.to(weight) / length).to(layer.weight)
    return stretch
