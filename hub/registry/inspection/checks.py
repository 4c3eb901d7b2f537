"""What inspection asks of one PEFT folder: do the tensors pair, do they fit the config and the base, will PEFT read them all."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hub.formats.adapter_config import AdapterConfig, pattern_steps, rank_of
from hub.formats.errors import printable
from hub.formats.safetensors_header import TensorInfo
from hub.formats.tensor_names import PREFIX, Part, group_keys, parse_key, style_of
from hub.registry.inspection.findings import Finding, finding

MAX_PATTERN_STEPS = 10**8  # about two seconds of Python's matcher


@dataclass(frozen=True)
class KnownBase:
    """A registered base: its id, its other names, and its linear layers' (in, out)."""

    id: str
    aliases: tuple[str, ...]
    shapes: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Layer:
    """An adapted layer: A (rank, in, ...) and B (out, rank, ...); for an embedding A (rank, rows), B (width, rank)."""

    module: str
    a: TensorInfo
    b: TensorInfo
    embedding: bool

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def inputs(self) -> int:
        return self.a.shape[1]

    @property
    def outputs(self) -> int:
        return self.b.shape[0]

    @property
    def starts_at_zero(self) -> TensorInfo:
        """The matrix that PEFT starts at zero, so that an untrained adapter changes nothing: B, but A of an embedding."""
        return self.a if self.embedding else self.b


def _some(names: Sequence[str]) -> str:
    shown = [printable(name) for name in names[:2]]
    return " and ".join(shown) if len(names) < 3 else f"{shown[0]} and {len(names) - 1} more"


_TOOLS = {"loralib": "Microsoft's loralib", "mlx": "MLX", "kohya": "kohya", "diffusers": "diffusers"}


def foreign_style(path: str, names: Iterable[str]) -> Finding | None:
    """LoRA weights of another tool than PEFT, known by how their tensors are named."""
    style, like = style_of(names) or ("peft", "")
    if style == "peft":
        return None
    message = f"The tensors have the names that {_TOOLS[style]} gives ({printable(like)}), which PEFT cannot load."
    return finding(f"{style}_names", path, message)


def method_error(path: str, config: AdapterConfig) -> Finding | None:
    """An adapter that is no LoRA as PEFT has it today."""
    if config.peft_type != "LORA":
        message = f"The method is {printable(config.peft_type)}, and only LORA adapters can be kept as modules here."
        return finding("unsupported_peft_type", path, message)
    if "enable_lora" in config.variants:
        message = (
            "It was made by PEFT before 0.3 (enable_lora: one merged q-k-v layer), which PEFT of today cannot load."
        )
        return finding("merged_linear", path, message)
    return None


# --- pairs and ranks --------------------------------------------------------------------------------------------------


def read_layers(
    path: str, config: AdapterConfig, tensors: Mapping[str, TensorInfo]
) -> tuple[list[Layer], list[Finding]]:
    """The adapted layers, and the errors for which they cannot be kept: no pairs, or contradictions."""
    groups = group_keys(tensors)
    layers, errors = _paired(path, groups, tensors)
    if not groups:
        message = f"None of its {len(tensors)} tensors is a LoRA matrix, so these are the weights of something else."
        errors = [finding("no_lora_tensors", path, message)]
    return layers, errors or [*_rank_errors(path, config, layers), *_dora_errors(path, config, groups)]


def _paired(
    path: str, groups: Mapping[str, Mapping[Part, str]], tensors: Mapping[str, TensorInfo]
) -> tuple[list[Layer], list[Finding]]:
    layers: list[Layer] = []
    faults: dict[str, list[str]] = {"unpaired": [], "ungathered": [], "pair_mismatch": []}
    for module, parts in groups.items():
        embedding = "embedding_A" in parts or "embedding_B" in parts
        name_a, name_b = (
            parts.get("embedding_A" if embedding else "A"),
            parts.get("embedding_B" if embedding else "B"),
        )
        if name_a is None or name_b is None:
            faults["unpaired"].append(module)
            continue
        a, b = tensors[name_a], tensors[name_b]
        if min(len(a.shape), len(b.shape)) < 2 or 0 in (*a.shape, *b.shape):
            faults["ungathered"].append(module)
        elif len(a.shape) != len(b.shape) or a.shape[0] != b.shape[1]:
            faults["pair_mismatch"].append(f"{module} (A {list(a.shape)}, B {list(b.shape)})")
        else:
            layers.append(Layer(module, a, b, embedding))
    said = {
        "unpaired": "lora_A or lora_B is missing for",
        "ungathered": "A matrix is empty or one-dimensional in",
        "pair_mismatch": "lora_A and lora_B cannot be multiplied in",
    }
    return layers, [finding(code, path, f"{said[code]} {_some(where)}.") for code, where in faults.items() if where]


def _rank_errors(path: str, config: AdapterConfig, layers: Sequence[Layer]) -> list[Finding]:
    if pattern_steps(config, [layer.module for layer in layers]) > MAX_PATTERN_STEPS:
        message = "Matching rank_pattern and alpha_pattern with so many layers takes too long."
        return [finding("bad_pattern", path, message)]
    wrong = []
    for layer in layers:
        expected = rank_of(config, layer.module)
        # A layer of experts has the rank for each of them, and the config does not say how many there are.
        if layer.rank != expected and not (config.target_parameters and layer.rank % expected == 0):
            wrong.append(f"{layer.module} (rank {layer.rank}, and {expected} by the config)")
    return (
        [finding("rank_mismatch", path, f"The ranks contradict adapter_config.json: {_some(wrong)}.")] if wrong else []
    )


def _dora_errors(path: str, config: AdapterConfig, groups: Mapping[str, Mapping[Part, str]]) -> list[Finding]:
    odd = [module for module, parts in groups.items() if ("magnitude" in parts) != config.use_dora]
    if not odd:
        return []
    said = "the magnitudes are missing for" if config.use_dora else "there is a lora_magnitude_vector in"
    return [
        finding(
            "dora_mismatch", path, f"The config says use_dora {str(config.use_dora).lower()}, but {said} {_some(odd)}."
        )
    ]


# --- the base ---------------------------------------------------------------------------------------------------------


def base_findings(
    path: str,
    config: AdapterConfig,
    layers: Sequence[Layer],
    tensors: Mapping[str, TensorInfo],
    base: KnownBase | None,
    bases: Sequence[KnownBase],
) -> list[Finding]:
    """Does it fit the base it names, or which base could it be for. `base` is the registered one, if it names one."""
    if base is None:
        return [_unnamed_base(path, config, layers, bases)]
    compared = _comparable(config, layers)
    absent = [layer.module for layer in compared if layer.module not in base.shapes]
    if compared and len(absent) == len(compared):
        message = f"{base.id} has none of its layers, such as {printable(absent[0])}."
        return [finding("wrong_base", path, message)]
    wrong = [
        f"{layer.module} ({layer.inputs} to {layer.outputs}, and in the base {there[0]} to {there[1]})"
        for layer in compared
        if (there := base.shapes.get(layer.module)) and tuple(there) != (layer.inputs, layer.outputs)
    ]
    if wrong:
        return [finding("wrong_shape", path, f"It does not fit {base.id}: {_some(wrong)}.")]
    notes = []
    if absent:
        message = f"{base.id} has no layer {_some(absent)}; PEFT leaves their tensors out without a word."
        notes.append(finding("not_in_base", path, message))
    resized = [
        name
        for name, tensor in tensors.items()
        if (key := parse_key(name)).part == "saved"
        and name.endswith(".weight")
        and (there := base.shapes.get(key.module))
        and sorted(tensor.shape) != sorted(there)
    ]
    if resized:
        message = f"It replaces {_some(resized)} by a matrix of another shape than that of {base.id}."
        notes.append(finding("saved_shape", path, message))
    return notes


def _comparable(config: AdapterConfig, layers: Sequence[Layer]) -> list[Layer]:
    """The layers whose matrices have the shapes of the base's linear layers."""
    if config.layer_replication or config.target_parameters or {"use_qalora", "use_bdlora"} & set(config.variants):
        return []
    return [layer for layer in layers if not layer.embedding and len(layer.a.shape) == 2]


def _unnamed_base(path: str, config: AdapterConfig, layers: Sequence[Layer], bases: Sequence[KnownBase]) -> Finding:
    compared = _comparable(config, layers)
    fits = [
        base.id
        for base in bases
        if compared and all(base.shapes.get(layer.module) == (layer.inputs, layer.outputs) for layer in compared)
    ]
    also = f" By shape it fits {_some(fits)}, but it helps only the base that it was trained on." if fits else ""
    if config.base_model is None:
        return finding("no_base", path, f"The config names no base model.{also}")
    shown = printable(config.base_model)
    if is_local_path(config.base_model):
        return finding("local_base", path, f"The base model is named by a path of somebody's machine, {shown}.{also}")
    return finding("unknown_base", path, f"The base model {shown} is not registered here.{also}")


def is_local_path(name: str) -> bool:
    """Whether a base's name is a folder on some machine: a Hub id is at most namespace/name."""
    return bool(re.match(r"[/~.]|[A-Za-z]:", name)) or "\\" in name or name.count("/") > 1


# --- what loading would do --------------------------------------------------------------------------------------------


def config_findings(
    path: str, config: AdapterConfig, layers: Sequence[Layer], tensors: Mapping[str, TensorInfo]
) -> list[Finding]:
    """Settings at odds with each other or with the tensors, by which PEFT leaves something out or fails."""
    notes = _target_findings(path, config, [layer.module for layer in layers])
    if config.changes_base:
        message = (
            f"Training began with init_lora_weights {config.init_lora_weights}, which rewrites the base's own weights."
        )
        notes.append(finding("changed_base", path, message))
    wanted = set(config.modules_to_save)
    saved = [key.module for key in map(parse_key, tensors) if key.part == "saved"]
    # A module of several layers, such as a classifier, is in the file by those.
    if wanted and not any(f".{name}." in f".{module}." for name in wanted for module in saved):
        message = (
            f"modules_to_save names {_some(config.modules_to_save)}, but none is in the file; PEFT fails to load it."
        )
        notes.append(finding("missing_saved_modules", path, message))
    return notes


def weights_findings(
    path: str, config: AdapterConfig, layers: Sequence[Layer], tensors: Mapping[str, TensorInfo]
) -> list[Finding]:
    """Tensors that PEFT would leave out without an error, and needless ranks."""
    notes = _ignored(path, tensors)
    above = [layer.module for layer in layers if layer.rank > min(layer.inputs, layer.outputs)]
    if above and not config.target_parameters:
        message = f"The rank is above that of the matrix itself in {_some(above)}."
        notes.append(finding("rank_above_matrix", path, message))
    return notes


_REASONS = {
    "prefix": f"do not begin with {PREFIX}, so PEFT leaves them out without an error",
    "nested": f"begin with {PREFIX} more than once, so PEFT leaves them out without an error",
    "suffix": "lack .weight at the end, so PEFT leaves them out without an error",
}


def _ignored(path: str, tensors: Mapping[str, TensorInfo]) -> list[Finding]:
    keys = {name: parse_key(name) for name in tensors}
    notes = []
    for reason, count in Counter(key.ignored for key in keys.values() if key.ignored).items():
        name, key = next((name, key) for name, key in keys.items() if key.ignored == reason)
        said = _REASONS.get(reason) or (
            f"have the adapter name {printable(key.adapter or '')} inside; PEFT reads them under that name alone, and "
            "serving engines not at all"
        )
        notes.append(
            finding("ignored_keys", path, f"{count} of {len(tensors)} tensors ({printable(name)}, ...) {said}.")
        )
    return notes


def _endings(module: str) -> Iterator[str]:
    """The names by which a list in the config can mean this module: its whole path, or its last components."""
    while module:
        yield module
        module = module.partition(".")[2]


def _target_findings(path: str, config: AdapterConfig, modules: Sequence[str]) -> list[Finding]:
    listed = not isinstance(config.target_modules, str)
    targets = set(config.target_modules) if listed else {str(config.target_modules)}
    notes = []
    both = {ending for target in targets for ending in _endings(target)} & set(config.modules_to_save)
    if both:
        message = (
            f"{_some(sorted(both))} is in target_modules and in modules_to_save, and PEFT does not adapt what it saves."
        )
        notes.append(finding("target_also_saved", path, message))
    if not listed or not targets or config.target_parameters or "all-linear" in targets:
        return notes
    if outside := [module for module in modules if targets.isdisjoint(_endings(module))]:
        message = f"target_modules does not name {_some(outside)}; PEFT leaves their tensors out without a word."
        notes.append(finding("untargeted", path, message))
    unused = targets.difference(*map(_endings, modules))
    if unused:
        message = f"target_modules names {_some(sorted(unused))}, but no tensor belongs to it."
        notes.append(finding("unused_targets", path, message))
    return notes
