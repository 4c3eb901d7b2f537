"""Checks of one parsed adapter: whether it fits its base, whether its config agrees with itself, and what PEFT would leave out."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hub.formats.errors import printable
from hub.formats.safetensors_header import TensorInfo
from hub.formats.tensor_names import PREFIX, parse_key
from hub.registry.inspection.findings import Finding, finding
from hub.registry.inspection.parsed_adapter import Layer, ParsedAdapter, name_some


@dataclass(frozen=True)
class KnownBase:
    """A registered base: its id, its other names, and its linear layers' (in, out)."""

    id: str
    aliases: tuple[str, ...]
    shapes: Mapping[str, tuple[int, int]]


def find_base(name: str | None, bases: Sequence[KnownBase]) -> KnownBase | None:
    return next((base for base in bases if name in (base.id, *base.aliases)), None)


def check(adapter: ParsedAdapter, base: KnownBase | None, bases: Sequence[KnownBase]) -> list[Finding]:
    """Every finding about the config, the weights and the base. `base`: the registered one that the config names, if any."""
    return [*_base_findings(adapter, base, bases), *_config_findings(adapter), *_weights_findings(adapter)]


# --- the base ---------------------------------------------------------------------------------------------------------


def _base_findings(adapter: ParsedAdapter, base: KnownBase | None, bases: Sequence[KnownBase]) -> list[Finding]:
    if base is None:
        return [_unknown_base(adapter, bases)]
    layers = _comparable(adapter)
    absent = [layer.module for layer in layers if layer.module not in base.shapes]
    if absent and len(absent) == len(layers):
        message = f"{base.id} has none of its layers, such as {printable(absent[0])}."
        return [finding("wrong_base", adapter.config_path, message)]
    if wrong := _wrong_shapes(layers, base):
        message = f"It does not fit {base.id}: {name_some(wrong)}."
        return [finding("wrong_shape", adapter.config_path, message)]
    findings = []
    if absent:
        message = f"{base.id} has no layer {name_some(absent)}; PEFT leaves their tensors out without a word."
        findings.append(finding("not_in_base", adapter.config_path, message))
    if resized := _resized_modules(adapter.tensors, base):
        message = f"It replaces {name_some(resized)} by a matrix of another shape than that of {base.id}."
        findings.append(finding("saved_shape", adapter.config_path, message))
    return findings


def _comparable(adapter: ParsedAdapter) -> list[Layer]:
    """The layers whose matrices have the shapes of the base's linear layers."""
    config = adapter.config
    if config.layer_replication or config.target_parameters or {"use_qalora", "use_bdlora"} & set(config.variants):
        return []
    return [layer for layer in adapter.layers if not layer.embedding and len(layer.a.shape) == 2]


def _wrong_shapes(layers: Sequence[Layer], base: KnownBase) -> list[str]:
    return [
        f"{layer.module} ({layer.inputs} to {layer.outputs}, and in the base {shape[0]} to {shape[1]})"
        for layer in layers
        if (shape := base.shapes.get(layer.module)) and tuple(shape) != (layer.inputs, layer.outputs)
    ]


def _resized_modules(tensors: Mapping[str, TensorInfo], base: KnownBase) -> list[str]:
    """Weights saved whole (modules_to_save) whose shape differs from the base's."""
    return [
        name
        for name, tensor in tensors.items()
        if name.endswith(".weight")
        and (key := parse_key(name)).part == "saved"
        and (shape := base.shapes.get(key.module))
        and sorted(tensor.shape) != sorted(shape)
    ]


def _unknown_base(adapter: ParsedAdapter, bases: Sequence[KnownBase]) -> Finding:
    path, name = adapter.config_path, adapter.config.base_model
    layers = _comparable(adapter)
    fits = [
        base.id
        for base in bases
        if layers and all(base.shapes.get(layer.module) == (layer.inputs, layer.outputs) for layer in layers)
    ]
    also = f" By shape it fits {name_some(fits)}, but it helps only the base that it was trained on." if fits else ""
    if name is None:
        return finding("no_base", path, f"The config names no base model.{also}")
    if is_local_path(name):
        message = f"The base model is named by a path of somebody's machine, {printable(name)}.{also}"
        return finding("local_base", path, message)
    return finding("unknown_base", path, f"The base model {printable(name)} is not registered here.{also}")


def is_local_path(name: str) -> bool:
    """Whether a base's name is a folder on some machine: a Hub id is at most namespace/name."""
    return bool(re.match(r"[/~.]|[A-Za-z]:", name)) or "\\" in name or name.count("/") > 1


# --- what loading would do --------------------------------------------------------------------------------------------


def _config_findings(adapter: ParsedAdapter) -> list[Finding]:
    """Settings that contradict each other or the tensors, for which PEFT leaves something out or fails."""
    path, config = adapter.config_path, adapter.config
    findings = _target_findings(adapter)
    if config.changes_base:
        message = (
            f"Training began with init_lora_weights {config.init_lora_weights}, which rewrites the base's own weights."
        )
        findings.append(finding("changed_base", path, message))
    saved = [key.module for key in map(parse_key, adapter.tensors) if key.part == "saved"]
    # A module of several layers, such as a classifier, is in the file under the names of those layers.
    in_file = any(f".{name}." in f".{module}." for name in config.modules_to_save for module in saved)
    if config.modules_to_save and not in_file:
        names = name_some(config.modules_to_save)
        message = f"modules_to_save names {names}, but none is in the file; PEFT fails to load it."
        findings.append(finding("missing_saved_modules", path, message))
    return findings


def _weights_findings(adapter: ParsedAdapter) -> list[Finding]:
    """Tensors that PEFT would leave out without an error, and needlessly high ranks."""
    findings = _ignored_tensors(adapter.weights_path, adapter.tensors)
    above = [layer.module for layer in adapter.layers if layer.rank > min(layer.inputs, layer.outputs)]
    if above and not adapter.config.target_parameters:
        message = f"The rank is above that of the matrix itself in {name_some(above)}."
        findings.append(finding("rank_above_matrix", adapter.weights_path, message))
    return findings


_REASONS = {
    "prefix": f"do not begin with {PREFIX}, so PEFT leaves them out without an error",
    "nested": f"begin with {PREFIX} more than once, so PEFT leaves them out without an error",
    "suffix": "lack .weight at the end, so PEFT leaves them out without an error",
}


def _ignored_tensors(path: str, tensors: Mapping[str, TensorInfo]) -> list[Finding]:
    keys = {name: parse_key(name) for name in tensors}
    findings = []
    for reason, count in Counter(key.ignored for key in keys.values() if key.ignored).items():
        name, key = next((name, key) for name, key in keys.items() if key.ignored == reason)
        fault = _REASONS.get(reason) or (
            f"have the adapter name {printable(key.adapter or '')} inside; PEFT reads them under that name alone, and "
            "serving engines not at all"
        )
        message = f"{count} of {len(tensors)} tensors ({printable(name)}, ...) {fault}."
        findings.append(finding("ignored_keys", path, message))
    return findings


def _endings(module: str) -> Iterator[str]:
    """The names by which a list in the config can mean this module: its whole path, or its last components."""
    while module:
        yield module
        module = module.partition(".")[2]


def _target_findings(adapter: ParsedAdapter) -> list[Finding]:
    path, config = adapter.config_path, adapter.config
    listed = not isinstance(config.target_modules, str)
    targets = set(config.target_modules) if listed else {str(config.target_modules)}
    findings = []
    both = {ending for target in targets for ending in _endings(target)} & set(config.modules_to_save)
    if both:
        names = name_some(sorted(both))
        message = f"{names} is in target_modules and in modules_to_save, and PEFT does not adapt what it saves."
        findings.append(finding("target_also_saved", path, message))
    if not listed or not targets or config.target_parameters or "all-linear" in targets:
        return findings
    modules = [layer.module for layer in adapter.layers]
    if outside := [module for module in modules if targets.isdisjoint(_endings(module))]:
        message = f"target_modules does not name {name_some(outside)}; PEFT leaves their tensors out without a word."
        findings.append(finding("untargeted", path, message))
    if unused := targets.difference(*map(_endings, modules)):
        message = f"target_modules names {name_some(sorted(unused))}, but no tensor belongs to it."
        findings.append(finding("unused_targets", path, message))
    return findings
