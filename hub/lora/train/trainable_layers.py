"""Put PEFT's trainable layers into a loaded base, and restore the base afterwards."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hub.lora.core.adapter import Adapter, Pair, layers_of, peft_config
from hub.lora.core.bases import Base, task_type
from hub.lora.core.errors import LoraError
from hub.lora.train.loraplus import BASE_CHANGING
from hub.vocabulary import Init

_NAME = "default"  # what PEFT calls an adapter that has no name


class NothingToTrain(LoraError):
    code = "nothing_to_train"


@dataclass(frozen=True)
class Shape:
    """The trainable layers: their names as PEFT takes them ("all-linear" included), rank, scaling and initialisation."""

    rank: int
    alpha: float
    target_modules: Sequence[str] | str
    dropout: float
    init: Init
    rslora: bool
    dora: bool


@dataclass(frozen=True)
class TrainableLayers:
    """A base with PEFT's layers at the paths in `layers`. `initial` holds their initial pairs if PEFT subtracted those from the base.

    `wrapper` is PEFT's model around the base's own, for trainers that need one.
    """

    base: Base
    layers: Mapping[str, LoraLayer]
    initial: Mapping[str, Pair]
    config: LoraConfig
    wrapper: PeftModel

    def parameters(self) -> dict[str, nn.Parameter]:
        return {name: value for name, value in self.base.model.named_parameters() if value.requires_grad}

    def adapter(self) -> Adapter:
        """The current pairs as an adapter of the original base.

        What PiSSA subtracted from the base is added as pairs of the opposite sign: [B, -B0] [A; A0], of twice the rank.
        """
        pairs = {path: _pair(layer) for path, layer in self.layers.items()}
        for path, start in self.initial.items():
            pair = pairs[path]
            pairs[path] = Pair(torch.cat([pair.a, start.a]), torch.cat([pair.b, -start.b], dim=1), pair.scaling)
        names = self.config.target_modules  # PEFT has put names in place of "all-linear"
        config = {
            "base_model_name_or_path": self.base.id,
            "fan_in_fan_out": _has_conv1d(self.base.model),
            "lora_dropout": self.config.lora_dropout,
            "peft_type": "LORA",
            "target_modules": names if isinstance(names, str) else sorted(names),
            "task_type": self.base.task_type,
        }
        return Adapter("trained", config, pairs)


def _pair(layer: LoraLayer) -> Pair:
    a, b = layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight
    magnitude = layer.lora_magnitude_vector[_NAME].weight.detach().clone() if layer.use_dora[_NAME] else None
    return Pair(a.detach().clone(), b.detach().clone(), layer.scaling[_NAME], magnitude)


@contextmanager
def trainable_layers(base: Base, shape: Shape, start: Adapter | None, seed: int) -> Iterator[TrainableLayers]:
    """Within the block the base has trainable layers of `shape`, or those of `start`; afterwards the base is as it was.

    Pairs are float32 whatever the base's dtype is. The block has a random state of its own, from `seed`. Raises NothingToTrain.
    """
    model = base.model
    _check_shape(model, shape)
    config = _config(model, shape) if start is None else _config_of(start, model)
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []), _restored(model):
        torch.manual_seed(seed)
        wrapper = _inject(model, config)
        layers = _lora_layers(model.train())
        _check_linear(layers)
        if start is not None:
            _copy_pairs(start, layers)
        elif shape.init == "a_zero":
            _start_at_a_zero(layers)
        changes_base = start is None and shape.init in BASE_CHANGING
        initial = {path: _pair(layer) for path, layer in layers.items()} if changes_base else {}
        for layer in layers.values():
            _compute_in_the_dtype_of_the_base(layer)
        yield TrainableLayers(base, layers, initial, config, wrapper)


def _check_shape(model: PreTrainedModel, shape: Shape) -> None:
    if shape.dora and shape.init in BASE_CHANGING:
        raise NothingToTrain(
            "What PiSSA takes out of the base cannot be given back to a DoRA adapter. Choose one of them."
        )
    needs_weights = shape.dora or shape.init not in ("default", "gaussian", "a_zero")
    if needs_weights and getattr(model, "is_loaded_in_4bit", False):
        raise NothingToTrain(
            "DoRA, PiSSA and orthogonal starts need the base's weights, which are in four bits. Load the base whole."
        )


@contextmanager
def _restored(model: PreTrainedModel) -> Iterator[None]:
    """After the block the model has its own layers and weights again, in evaluation mode and without gradients."""
    # PiSSA replaces the base's weights.
    weights = {path: layer.weight.data for path, layer in model.named_modules() if _is_linear(layer)}
    try:
        yield
    finally:
        # PEFT's own unload() needs the wrapper, which does not exist when PEFT refused half-way.
        for path, layer in _lora_layers(model).items():
            model.set_submodule(path, layer.get_base_layer())
        for path, weight in weights.items():
            model.get_submodule(path).weight.data = weight
        if hasattr(model, "peft_config"):
            del model.peft_config
        model.eval().requires_grad_(False)


def _config(model: PreTrainedModel, shape: Shape) -> LoraConfig:
    names = shape.target_modules
    return LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        target_modules=names if isinstance(names, str) else list(names),
        lora_dropout=shape.dropout,
        init_lora_weights=True if shape.init in ("default", "a_zero") else shape.init,
        use_rslora=shape.rslora,
        use_dora=shape.dora,
        fan_in_fan_out=_has_conv1d(model),
        task_type=task_type(model),
    )


def _config_of(start: Adapter, model: PreTrainedModel) -> LoraConfig:
    layers_of(model, start)  # refuses an adapter of another base
    changes = {"base_model_name_or_path": None, "fan_in_fan_out": _has_conv1d(model), "inference_mode": False}
    return LoraConfig(**peft_config(start) | changes)


def _inject(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    with warnings.catch_warnings():
        # PEFT 0.21 asks a transformers 5.23 model for a property by its deprecated name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        # About tied embeddings: layers that are not linear are refused below, and a pair on the output layer alone is intended.
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`", category=UserWarning)
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            raise NothingToTrain(f"PEFT cannot put a LoRA on {config.target_modules}: {error}") from error


def _check_linear(layers: Mapping[str, LoraLayer]) -> None:
    for path, layer in layers.items():
        if _NAME not in layer.lora_A:
            kind = type(layer.get_base_layer()).__name__
            raise NothingToTrain(f"{path} is not a linear layer but a {kind}. Leave it out of the target modules.")


def _copy_pairs(start: Adapter, layers: Mapping[str, LoraLayer]) -> None:
    with torch.no_grad():
        for path, layer in layers.items():
            pair = start.pairs[path]
            layer.lora_A[_NAME].weight.copy_(pair.a)
            layer.lora_B[_NAME].weight.copy_(pair.b)
            if pair.magnitude is not None:
                layer.lora_magnitude_vector[_NAME].weight.copy_(pair.magnitude)


def _start_at_a_zero(layers: Mapping[str, LoraLayer]) -> None:
    """Give B the random values that PEFT gives A, and set A to zero: the Init[2] of LoRA+ (arXiv 2402.12354)."""
    for layer in layers.values():
        nn.init.kaiming_uniform_(layer.lora_B[_NAME].weight, a=5**0.5)
        nn.init.zeros_(layer.lora_A[_NAME].weight)


def _compute_in_the_dtype_of_the_base(layer: LoraLayer) -> None:
    """Make a plain pair compute in its input's dtype, as `applied` does with the trained adapter.

    PEFT computes the float32 pair in float32: on a bfloat16 base each layer then copies its input and its output there and back,
    which costs more than its matrix products. The parameters, their gradients and AdamW's state stay float32.
    """
    if isinstance(layer, LoraLinear) and _NAME not in layer.lora_variant:
        layer.forward = MethodType(_forward, layer)


def _forward(layer: LoraLayer, x: Tensor) -> Tensor:
    (name,) = layer.active_adapters  # not "default" while a trainer computes with its reference
    a, b = layer.lora_A[name].weight.to(x.dtype), layer.lora_B[name].weight.to(x.dtype)
    output = layer.base_layer(x)
    low = nn.functional.linear(layer.lora_dropout[name](x), a)
    flat = torch.addmm(output.flatten(0, -2), low.flatten(0, -2), b.T, alpha=layer.scaling[name])
    return flat.view_as(output)


def _lora_layers(model: PreTrainedModel) -> dict[str, LoraLayer]:
    return {path: layer for path, layer in model.named_modules() if isinstance(layer, LoraLayer)}


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear | Conv1D)


def _has_conv1d(model: PreTrainedModel) -> bool:
    return any(isinstance(layer, Conv1D) for layer in model.modules())
