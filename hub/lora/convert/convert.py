"""Convert an adapter that another tool wrote to PEFT's files where the mapping is exact; refuse it by name where it is not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hub.formats.errors import printable
from hub.formats.tensor_names import style_of
from hub.lora.convert.diffusers import from_diffusers
from hub.lora.convert.errors import FactMissing, NotConvertible
from hub.lora.convert.loralib import from_loralib
from hub.lora.convert.mlx import from_mlx
from hub.lora.convert.peft import from_peft
from hub.vocabulary import Style


@dataclass(frozen=True)
class Converted:
    """The files of a PEFT adapter: tensors by PEFT's names, and adapter_config.json. `style` is that of the source."""

    style: Style
    tensors: dict[str, Tensor]
    config: dict[str, Any]


def convert(
    tensors: Mapping[str, Tensor],
    config: Mapping[str, object] | None = None,
    metadata: Mapping[str, str] | None = None,
    *,
    base: str | None = None,
    alpha: float | None = None,
    enable_lora: Sequence[bool] | None = None,
    component: str | None = None,
) -> Converted:
    """A PEFT adapter that computes what these tensors do in the tool whose names they have.

    `config` is the adapter_config.json beside them, `metadata` that of the safetensors file. The keywords are facts that files may lack:
    the base, loralib's alpha, which lanes of its merged layers are trained, and which component of a pipeline to convert.
    Raises FactMissing, NotConvertible.
    """
    style, example = style_of(tensors) or ("", "")
    config = dict(config or {})
    config["base_model_name_or_path"] = base or config.get("base_model_name_or_path") or config.get("model")
    _check_facts(style, config, alpha)
    if style == "peft":
        return Converted("peft", *from_peft(tensors, config))
    if style == "loralib":
        return Converted("loralib", *from_loralib(tensors, config, alpha or 0.0, enable_lora))
    if style == "mlx":
        return Converted("mlx", *from_mlx(tensors, config, alpha))
    if style == "diffusers":
        return Converted("diffusers", *from_diffusers(tensors, config, metadata or {}, alpha, component))
    if style == "kohya":
        raise NotConvertible(
            f"The names are kohya's ({printable(example)}): they have _ where the model has dots, and which were which they do not say. "
            "Load it with diffusers and save it with save_lora_weights; that can be converted."
        )
    raise NotConvertible(
        f"None of the {len(tensors)} tensors has the name of a LoRA matrix in PEFT, loralib, MLX or diffusers; "
        f"they begin with {printable(min(tensors, default='nothing'))}."
    )


def _check_facts(style: str, config: Mapping[str, object], alpha: float | None) -> None:
    missing = []
    if not config["base_model_name_or_path"]:
        missing.append("which base model the adapter is for (name it as `base`)")
    if style == "loralib" and alpha is None:
        missing.append("lora_alpha, by which the update is scaled (give the one it was trained with as `alpha`)")
    if missing:
        raise FactMissing(f"The files do not say {', nor '.join(missing)}.")
