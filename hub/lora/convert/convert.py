"""From the names and layouts of other tools to what PEFT reads, where the mapping is exact; refused by name where it is not.

- PEFT's own names: kept, or made whole where PEFT would not read them. The merged layers of PEFT before 0.3 (`enable_lora`) are unfolded
  as loralib's are.
- loralib (github.com/microsoft/LoRA, `loralib/layers.py`): A (r, in) and B (out, r) without ".weight", no alpha. Its MergedLinear is a
  grouped 1x1 convolution: A (groups * r, in), B (groups * out / lanes, r), each group for one lane of a fused layer such as q-k-v.
- MLX (mlx-lm, `tuner/lora.py`, `tuner/dora.py`): lora_a (in, r), lora_b (r, out), `scale` in the place of alpha / r, `m` of DoRA.
- diffusers (`utils/state_dict_utils.py`): `processor.to_q_lora.down`, `to_q.lora.down`, `lora_linear_layer.down` or `lora_A`, behind the
  pipeline's component. A pair without an alpha is added unscaled, as diffusers does.
"""

import json
import math
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hub.formats.adapter_config import AdapterConfig, config_from, scaling_of
from hub.formats.errors import FormatError, printable
from hub.formats.tensor_names import PREFIX, Key, parse_key, style_of
from hub.lora.core.adapter import Adapter, Pair, peft_config
from hub.lora.core.errors import LoraError
from hub.vocabulary import Style


class UnreadablePickle(LoraError):
    """It is no file of tensors: damaged, or it asks for code to be run, which was not done."""

    code = "unreadable_pickle"


class FactMissing(LoraError):
    """The format does not say what PEFT has to know."""

    code = "fact_missing"


class NotConvertible(LoraError):
    """There is no PEFT adapter that computes the same."""

    code = "not_convertible"


@dataclass(frozen=True)
class Converted:
    """The files of a PEFT adapter: tensors by PEFT's names, and adapter_config.json."""

    style: Style  # of the source
    tensors: dict[str, Tensor]
    config: dict[str, Any]


# --- reading ----------------------------------------------------------------------------------------------------------

# What torch's restricted unpickler was seen to raise on damaged files.
_DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The named tensors of a file that torch.save wrote. Nothing in it is run: torch's unpickler builds tensors and containers alone."""
    size = path.stat().st_size
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > 2 * size:
                raise UnreadablePickle(f"{path.name} is packed, which torch.save never does; save its tensors again.")
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"asks for {asked[1]}, which is no tensor" if asked else "holds more than tensors"
        raise UnreadablePickle(
            f"{path.name} {what}; nothing of it was run. Load it where you trust it and save the tensors alone."
        ) from error
    except _DAMAGED as error:
        raise UnreadablePickle(
            f"{path.name} cannot be read as a file that torch.save wrote; fetch it again where it came from."
        ) from error
    for wrapper in ("model_state_dict", "state_dict"):  # as the examples of loralib and Lightning save them
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not found:
        raise UnreadablePickle(f"{path.name} holds no named tensors; save the state dict of the LoRA matrices.")
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.layout is not torch.strided:
            raise UnreadablePickle(
                f"{path.name}: its entry {printable(str(name))} is no plain tensor; save the state dict of the LoRA matrices alone."
            )
    if sum(tensor.numel() * tensor.element_size() for tensor in found.values()) > 4 * size:
        raise UnreadablePickle(
            f"{path.name} claims to hold far more numbers than it has bytes; save its tensors again."
        )
    return {name: tensor.detach().clone().contiguous() for name, tensor in found.items()}


# --- mapping ----------------------------------------------------------------------------------------------------------


def convert(
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    *,
    base: str | None = None,
    alpha: float | None = None,
    enable_lora: Sequence[bool] | None = None,
    component: str | None = None,
) -> Converted:
    """A PEFT adapter that computes what these tensors do in the tool whose names they have.

    `config` is the adapter_config.json beside them, `metadata` that of the safetensors file. The rest is what files may fail to say: the
    base, loralib's alpha, which lanes of its merged layers are trained, which component of a pipeline is meant.
    Raises FactMissing, NotConvertible.
    """
    style, like = style_of(tensors) or ("", "")
    config = dict(config or {})
    config["base_model_name_or_path"] = base or config.get("base_model_name_or_path") or config.get("model")
    lacking = []
    if not config["base_model_name_or_path"]:
        lacking.append("which base model the adapter is for (name it as `base`)")
    if style == "loralib" and alpha is None:
        lacking.append("lora_alpha, by which the update is scaled (give the one it was trained with as `alpha`)")
    if lacking:
        raise FactMissing(f"The files do not say {', nor '.join(lacking)}.")
    if style == "peft":
        return Converted("peft", *_peft(tensors, config))
    if style == "loralib":
        return Converted("loralib", *_loralib(tensors, config, alpha or 0.0, enable_lora))
    if style == "mlx":
        return Converted("mlx", *_mlx(tensors, config, alpha))
    if style == "diffusers":
        return Converted("diffusers", *_diffusers(tensors, config, metadata or {}, alpha, component))
    if style == "kohya":
        raise NotConvertible(
            f"The names are kohya's ({printable(like)}): they have _ where the model has dots, and which were which they do not say. "
            "Load it with diffusers and save it with save_lora_weights; that can be converted."
        )
    raise NotConvertible(
        f"None of the {len(tensors)} tensors has the name of a LoRA matrix in PEFT, loralib, MLX or diffusers; "
        f"they begin with {printable(min(tensors, default='nothing'))}."
    )


Made = tuple[dict[str, Tensor], dict[str, Any]]


def _peft(tensors: Mapping[str, Tensor], config: dict[str, Any]) -> Made:
    try:
        settings = config_from(config)
    except FormatError as error:
        raise NotConvertible(
            f"The tensors have PEFT's names, but adapter_config.json is not PEFT's: {error}"
        ) from error
    if "enable_lora" in settings.variants:
        return _merged(tensors, config, settings)
    named = {_whole_name(name): tensor for name, tensor in tensors.items()}
    if len(named) != len(tensors):
        raise NotConvertible("Several tensors mean the same matrix, as more than one adapter is in the file; save one.")
    return named, config


_LEAVES = {
    "A": "lora_A.weight",
    "B": "lora_B.weight",
    "B_bias": "lora_B.bias",
    "embedding_A": "lora_embedding_A",
    "embedding_B": "lora_embedding_B",
    "magnitude": "lora_magnitude_vector",
}


def _whole_name(name: str) -> str:
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


def _merged(tensors: Mapping[str, Tensor], config: dict[str, Any], settings: AdapterConfig) -> Made:
    """The merged layers of PEFT before 0.3, each as one pair of the whole layer."""
    if settings.bias != "none":
        raise NotConvertible(f"It has trained biases (bias {settings.bias}) beside merged layers; train it again.")
    lanes = config["enable_lora"]
    if not isinstance(lanes, list) or not all(isinstance(lane, bool) for lane in lanes) or not any(lanes):
        raise NotConvertible("enable_lora in adapter_config.json is no list of true and false; correct it.")
    halves, saved = _halves({name: parse_key(name) for name in tensors}, tensors)
    pairs = {}
    for module, (a, b) in halves.items():
        scaling = scaling_of(settings, module)
        pairs[module] = Pair(*_unfolded(module, a, b, lanes, everywhere=True), scaling)
    return _assembled(pairs, config, saved, settings.modules_to_save)


def _halves(
    keys: Mapping[str, Key], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}
    saved = {}
    for name, key in keys.items():
        if key.part in ("A", "B") and not key.ignored:
            found.setdefault(key.module, {})[key.part] = tensors[name]
        elif key.part == "saved" and not key.ignored:
            saved[name.removeprefix(PREFIX)] = tensors[name]
        else:
            raise NotConvertible(f"{printable(name)} has no place beside merged layers; train the adapter again.")
    return {module: _both(module, parts, "A", "B") for module, parts in found.items()}, saved


def _both(module: str, parts: Mapping[str, Tensor], first: str, second: str) -> tuple[Tensor, Tensor]:
    if first not in parts or second not in parts:
        there = first if first in parts else second
        raise NotConvertible(f"{printable(module)} has only the half {there} of its pair; save the adapter again.")
    return parts[first], parts[second]


def _unfolded(
    module: str, a: Tensor, b: Tensor, enable_lora: Sequence[bool] | None, *, everywhere: bool = False
) -> tuple[Tensor, Tensor]:
    """A grouped pair, A (groups * r, in) and B (groups * width, r, ...), as one of the whole layer: B (lanes * width, groups * r).

    B is zero where a lane does not see a group's rows of A, so the product is the same. A pair of one group is a plain one beside merged
    ones, unless layers are merged `everywhere`, or one lane is trained.
    """
    b = b.flatten(1) if b.ndim > 1 else b
    _check_matrices(module, a, b, merged=True)
    rank = b.shape[1]
    groups = len(a) // rank
    if groups == 1 and not everywhere and (enable_lora is None or sum(enable_lora) != 1):
        return a, b
    if enable_lora is None:
        raise FactMissing(
            f"{printable(module)} is a merged layer ({len(a)} rows in lora_A for {rank} columns of lora_B): say which of its lanes are "
            "trained as `enable_lora`, such as [true, false, true] for query and value of a merged query, key and value."
        )
    if groups != sum(enable_lora) or len(b) % groups:
        raise NotConvertible(
            f"{printable(module)} has lora_A {list(a.shape)} and lora_B {list(b.shape)}, which is not {sum(enable_lora)} lanes of one "
            "rank, as enable_lora says; correct enable_lora, or save the adapter again."
        )
    width = len(b) // groups
    whole = b.new_zeros(len(enable_lora) * width, groups * rank)
    for group, lane in enumerate(lane for lane, trained in enumerate(enable_lora) if trained):
        rows = b[group * width : (group + 1) * width]
        whole[lane * width : (lane + 1) * width, group * rank : (group + 1) * rank] = rows
    return a, whole


def _loralib(
    tensors: Mapping[str, Tensor], config: dict[str, Any], alpha: float, enable_lora: Sequence[bool] | None
) -> Made:
    wrapper = "module." if all(name.startswith("module.") for name in tensors) else ""  # of DistributedDataParallel
    found: dict[str, dict[str, Tensor]] = {}
    saved = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.removeprefix(wrapper).rpartition(".")
        if leaf in ("lora_A", "lora_B"):
            found.setdefault(module, {})[leaf] = tensor
        else:
            saved[f"{module}.{leaf}"] = tensor
    pairs = {}
    for module, parts in found.items():
        a, b = _both(module, parts, "lora_A", "lora_B")
        if re.search(r"emb|wte|conv", module):
            raise NotConvertible(
                f"{printable(module)} looks like an embedding or a convolution, whose matrices loralib lays out like those of a linear "
                "layer and PEFT does not; train without it."
            )
        pairs[module] = Pair(*_unfolded(module, a, b, enable_lora), alpha / (b.shape[1] if b.ndim > 1 else 1))
    return _assembled(pairs, config, saved, _whole_modules(pairs, saved))


def _whole_modules(pairs: Mapping[str, Pair], saved: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The modules that were trained whole, such as a classifier: each as far up as there is no LoRA layer below."""
    above = {module[:dot] for module in pairs for dot in (0, *(at.start() for at in re.finditer(r"\.", module)))}
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


def _mlx(tensors: Mapping[str, Tensor], config: dict[str, Any], alpha: float | None) -> Made:
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        if leaf not in ("lora_a", "lora_b", "m"):
            raise NotConvertible(
                f"{printable(name)} is no LoRA matrix, and PEFT's adapter has no place for it; train with fine_tune_type lora or dora."
            )
        found.setdefault(module, {})[leaf] = tensor
    parameters = config.get("lora_parameters")
    parameters = parameters if isinstance(parameters, dict) else {}
    pairs = {}
    for module, parts in found.items():
        a, b = _both(module, parts, "lora_a", "lora_b")
        if re.search(r"emb|wte", module.rpartition(".")[2]):
            raise NotConvertible(
                f"{printable(module)} looks like an embedding, which PEFT adapts in another way; train without it."
            )
        if a.ndim == b.ndim == 2:
            a, b = a.T, b.T
        _check_matrices(module, a, b)
        scaling = _mlx_scale(config, parameters) if alpha is None else alpha / len(a)
        pairs[module] = Pair(a, b, scaling, parts.get("m"))
    if len({pair.magnitude is None for pair in pairs.values()}) > 1:
        raise NotConvertible(
            "Some layers have DoRA's magnitude m and others do not, which one PEFT adapter cannot say."
        )
    said = {"task_type": "CAUSAL_LM", "lora_dropout": parameters.get("dropout")}
    return _assembled(pairs, {"base_model_name_or_path": config["base_model_name_or_path"], **said})


def _mlx_scale(config: Mapping[str, Any], parameters: Mapping[str, Any]) -> float:
    scale = parameters.get("scale")
    if not isinstance(scale, int | float) or not math.isfinite(scale):
        raise FactMissing(
            "There is no adapter_config.json with lora_parameters.scale beside MLX's weights, so nothing says how strongly the update is "
            "scaled; upload that file too, or give `alpha`, which is scale times rank."
        )
    # The first releases multiplied the scale by alpha / rank; those that write fine_tune_type ignore an alpha that is left there.
    if parameters.get("alpha") not in (None, parameters.get("rank")) and "fine_tune_type" not in config:
        raise FactMissing(
            f"lora_parameters has both scale {scale} and alpha {parameters['alpha']}, which releases of MLX took differently: give "
            "`alpha`, which is the scale that it was trained with times rank."
        )
    return float(scale)


# Old layers of attention: to_q_lora of a processor; in a text encoder, names of the processor for those of the layer.
_OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
_DIFFUSERS = re.compile(
    r"(?:(?P<component>unet|text_encoder(?:_[23])?|transformer)\.)?(?P<path>.+?)"
    r"(?:(?:(?:\.processor)?\.(?P<old>\w+)_lora|\.lora(?:_linear_layer)?)\.(?P<way>down|up)\.weight"
    r"|\.lora_(?P<half>[AB])\.weight|\.lora_magnitude_vector(?:\.weight)?)"
)
_Parts = dict[str, Tensor]  # of one layer: "A", "B", "m", "alpha"


def _diffusers(
    tensors: Mapping[str, Tensor],
    config: dict[str, Any],
    metadata: Mapping[str, str],
    alpha: float | None,
    component: str | None,
) -> Made:
    found = _layers(tensors)
    chosen = _component(list(found), component)
    said = _said(metadata, chosen)
    pairs = {}
    for module, parts in found[chosen].items():
        a, b = _both(module, parts, "A", "B")
        if a.ndim != b.ndim or a.ndim < 2 or len(a) != b.shape[1]:
            raise NotConvertible(
                f"{printable(module)} has down {list(a.shape)} and up {list(b.shape)}, which cannot be multiplied; save it again."
            )
        if "alpha" in parts:
            scaling = float(parts["alpha"]) / len(a)
        elif said:
            scaling = scaling_of(said, module)
        else:
            scaling = 1.0 if alpha is None else alpha / len(a)
        pairs[module] = Pair(a, b, scaling, parts.get("m"))
    return _assembled(pairs, {"base_model_name_or_path": config["base_model_name_or_path"]})


def _layers(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, _Parts]]:
    """Component -> path of the layer in it, by today's names -> its parts."""
    found: dict[str, dict[str, _Parts]] = {}
    owners: dict[str, _Parts] = {}  # what may stand before ".alpha"
    alphas = {name.removesuffix(".alpha"): tensor for name, tensor in tensors.items() if name.endswith(".alpha")}
    for name, tensor in tensors.items():
        if name.endswith(".alpha"):
            continue
        key = _DIFFUSERS.fullmatch(name)
        if key is None:
            raise NotConvertible(f"{printable(name)} is no half of a LoRA pair of diffusers, so it cannot be kept.")
        path = key["path"]
        if old := key["old"]:
            text = path.endswith(".self_attn")
            path += "." + (_OLD_TEXT.get(old, old) if text else "to_out.0" if old == "to_out" else old)
        parts = found.setdefault(key["component"] or "", {}).setdefault(path, {})
        parts[key["half"] or {"down": "A", "up": "B"}.get(key["way"] or "", "m")] = tensor
        layer = f"{key['component']}.{path}" if key["component"] else path
        pair = re.sub(r"\.(?:(?:down|up)\.weight|lora_.*)$", "", name)
        owners |= dict.fromkeys((layer, pair, name, name.removesuffix(".weight")), parts)
    for name, alpha in alphas.items():
        if name not in owners or alpha.numel() != 1:
            raise NotConvertible(f"{printable(name)}.alpha is the alpha of no pair in the file, so it cannot be kept.")
        owners[name]["alpha"] = alpha
    return found


def _component(found: Sequence[str], wanted: str | None) -> str:
    if len(found) == 1 and wanted in (None, found[0]):
        return found[0]
    if wanted in found:
        return wanted or ""
    there = ", ".join(sorted(name or "one without a name" for name in found))
    if wanted is None:
        raise FactMissing(
            f"The file adapts several parts of a pipeline ({there}), and a PEFT adapter is of one; choose it as `component`."
        )
    raise NotConvertible(f"The file has no component {printable(wanted)}; it has {there}.")


def _said(metadata: Mapping[str, str], component: str) -> AdapterConfig | None:
    """What diffusers 0.34 and later write into the safetensors header: the config with which PEFT trained each component."""
    if "lora_adapter_metadata" not in metadata:
        return None
    try:
        every = json.loads(metadata["lora_adapter_metadata"])
        said = {
            key.removeprefix(f"{component}."): value for key, value in every.items() if key.startswith(f"{component}.")
        }
        return config_from({"peft_type": "LORA", **said})
    except (AttributeError, ValueError) as error:
        raise NotConvertible(
            f"lora_adapter_metadata in the header cannot be read ({error}); save the weights again."
        ) from error


# --- assembling -------------------------------------------------------------------------------------------------------


def _check_matrices(module: str, a: Tensor, b: Tensor, *, merged: bool = False) -> None:
    """a (r, in) and b (out, r); a has a multiple of those rows where layers are merged."""
    sound = a.ndim == b.ndim == 2 and 0 not in (*a.shape, *b.shape)
    if not sound or (len(a) % b.shape[1] if merged else len(a) != b.shape[1]):
        raise NotConvertible(
            f"{printable(module)} has a first matrix of shape {list(a.shape)} and a second of {list(b.shape)}, which is no pair on a "
            "linear layer; PEFT has no place for it."
        )


def _assembled(
    pairs: Mapping[str, Pair],
    config: Mapping[str, Any],
    saved: Mapping[str, Tensor] | None = None,
    modules_to_save: Sequence[str] = (),
) -> Made:
    """PEFT's names for pairs, in the dtype they have, with a config that gives each its rank and scaling."""
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
