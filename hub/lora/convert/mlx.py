"""Files of MLX (mlx-lm, `tuner/lora.py`, `tuner/dora.py`): lora_a (in, r), lora_b (r, out), `scale` for alpha / r, `m` for DoRA."""

import math
import re
from collections.abc import Mapping

from torch import Tensor

from hub.formats.errors import printable
from hub.lora.convert.assemble import PeftFiles, assemble, both_halves, check_matrices
from hub.lora.convert.errors import FactMissing, NotConvertible
from hub.lora.core.adapter import Pair


def from_mlx(tensors: Mapping[str, Tensor], config: dict[str, object], alpha: float | None) -> PeftFiles:
    parameters = config.get("lora_parameters")
    parameters = parameters if isinstance(parameters, dict) else {}
    pairs = {}
    for layer, parts in _layers(tensors).items():
        a, b = both_halves(layer, parts, "lora_a", "lora_b")
        if re.search(r"emb|wte", layer.rpartition(".")[2]):
            raise NotConvertible(
                f"{printable(layer)} looks like an embedding, which PEFT adapts in another way; train without it."
            )
        if a.ndim == b.ndim == 2:
            a, b = a.T, b.T
        check_matrices(layer, a, b)
        scaling = _scale(config, parameters) if alpha is None else alpha / len(a)
        pairs[layer] = Pair(a, b, scaling, parts.get("m"))
    if len({pair.magnitude is None for pair in pairs.values()}) > 1:
        raise NotConvertible(
            "Some layers have DoRA's magnitude m and others do not, which one PEFT adapter cannot say."
        )
    return assemble(
        pairs,
        {
            "base_model_name_or_path": config["base_model_name_or_path"],
            "task_type": "CAUSAL_LM",
            "lora_dropout": parameters.get("dropout"),
        },
    )


def _layers(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, _, leaf = name.rpartition(".")
        if leaf not in ("lora_a", "lora_b", "m"):
            raise NotConvertible(
                f"{printable(name)} is not a LoRA matrix, and PEFT's adapter has no place for it; train with fine_tune_type lora or dora."
            )
        layers.setdefault(layer, {})[leaf] = tensor
    return layers


def _scale(config: Mapping[str, object], parameters: Mapping[str, object]) -> float:
    scale = parameters.get("scale")
    if not isinstance(scale, int | float) or not math.isfinite(scale):
        raise FactMissing(
            "There is no adapter_config.json with lora_parameters.scale beside MLX's weights, so nothing says how strongly the update is "
            "scaled; upload that file too, or give `alpha`, which is scale times rank."
        )
    # The first releases multiplied the scale by alpha / rank. Releases that write fine_tune_type ignore an alpha that is left there.
    if parameters.get("alpha") not in (None, parameters.get("rank")) and "fine_tune_type" not in config:
        raise FactMissing(
            f"lora_parameters has both scale {scale} and alpha {parameters['alpha']}, which releases of MLX took differently: give "
            "`alpha`, which is the scale that it was trained with times rank."
        )
    return float(scale)
