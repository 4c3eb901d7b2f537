"""A PEFT folder, read once: its weights' header, its config and its layers, or the errors for which it is not a sound adapter.

Everything that looks at an adapter afterwards (checks, facts, sketch) receives the `ParsedAdapter` and reads neither file again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hub.formats.adapter_config import (
    CONFIG,
    MAX_CONFIG_BYTES,
    WEIGHTS,
    AdapterConfig,
    parse_config,
    pattern_steps,
    rank_of,
)
from hub.formats.errors import FormatError, printable
from hub.formats.ranged_file import RangedFile
from hub.formats.safetensors_header import Header, TensorInfo
from hub.formats.tensor_names import Part, group_keys, style_of
from hub.registry.inspection.findings import Finding, finding, format_finding
from hub.registry.inspection.folder import PICKLE, Folder, read_headers, split_folders

MAX_PATTERN_STEPS = 10**8  # about two seconds of Python's matcher

_TOOLS = {"loralib": "Microsoft's loralib", "mlx": "MLX", "kohya": "kohya", "diffusers": "diffusers"}


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
        """The matrix that PEFT initialises to zero, so that an untrained adapter changes nothing: B, or A of an embedding."""
        return self.a if self.embedding else self.b


@dataclass(frozen=True)
class ParsedAdapter:
    folder: Folder
    header: Header
    config: AdapterConfig
    layers: Sequence[Layer]

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self.header.tensors

    @property
    def weights(self) -> RangedFile:
        return self.folder.files[WEIGHTS]

    @property
    def config_path(self) -> str:
        return self.folder.at(CONFIG)

    @property
    def weights_path(self) -> str:
        return self.folder.at(WEIGHTS)


def parse_adapter(folder: Folder, headers: Mapping[str, Header]) -> tuple[ParsedAdapter | None, list[Finding]]:
    """The adapter in a folder, or None and the errors. `headers`: of the folder's safetensors files, by name.

    There may be no error at all where `read_headers` has reported one already.
    """
    candidates = {name: header for name, header in headers.items() if name == WEIGHTS or WEIGHTS not in folder.files}
    if foreign := foreign_findings(folder, candidates):
        return None, foreign
    config, errors = _read_config(folder)
    if not folder.files.keys() & {WEIGHTS, PICKLE}:
        errors.append(finding("missing_weights", folder.at(WEIGHTS), f"There is {CONFIG}, but no {WEIGHTS} beside it."))
    if errors or config is None or WEIGHTS not in headers:
        return None, errors
    layers, errors = _read_layers(folder.at(WEIGHTS), config, headers[WEIGHTS].tensors)
    return (None if errors else ParsedAdapter(folder, headers[WEIGHTS], config, layers)), errors


def parse_folder(files: Mapping[str, RangedFile], path: str) -> ParsedAdapter | None:
    """The adapter in one folder of a tree, read alone; None if there is none, or an unsound one."""
    folder = split_folders(files).get(path)
    return parse_adapter(folder, read_headers(folder)[0])[0] if folder else None


def foreign_findings(folder: Folder, headers: Mapping[str, Header]) -> list[Finding]:
    """One finding if the folder holds LoRA weights that another tool wrote, known by how it names tensors; else none."""
    findings = (_foreign_style(folder.at(name), header.tensors) for name, header in headers.items())
    first = next((item for item in findings if item), None)
    return [first] if first else []


def name_some(names: Sequence[str]) -> str:
    """Text for a message: all of one or two names, else the first and the number of the others."""
    first = [printable(name) for name in names[:2]]
    return " and ".join(first) if len(names) < 3 else f"{first[0]} and {len(names) - 1} more"


def _foreign_style(path: str, names: Iterable[str]) -> Finding | None:
    style, example = style_of(names) or ("peft", "")
    if style == "peft":
        return None
    message = f"The tensors have the names that {_TOOLS[style]} gives ({printable(example)}), which PEFT cannot load."
    return finding(f"{style}_names", path, message)


def _read_config(folder: Folder) -> tuple[AdapterConfig | None, list[Finding]]:
    path = folder.at(CONFIG)
    if CONFIG not in folder.files:
        return None, [finding("missing_config", path, f"There are weights, but no {CONFIG} beside them.")]
    try:
        config = parse_config(folder.files[CONFIG].read(0, MAX_CONFIG_BYTES + 1))
    except FormatError as error:
        return None, [format_finding(error, path)]
    return config, _method_errors(path, config)


def _method_errors(path: str, config: AdapterConfig) -> list[Finding]:
    """An error if the adapter is not a LoRA in the form that PEFT reads today."""
    if config.peft_type != "LORA":
        message = f"The method is {printable(config.peft_type)}, and only LORA adapters can be kept here."
        return [finding("unsupported_peft_type", path, message)]
    if "enable_lora" in config.variants:
        message = "PEFT before 0.3 made it (enable_lora: one merged q-k-v layer), and today's PEFT cannot load it."
        return [finding("merged_linear", path, message)]
    return []


# --- pairs and ranks --------------------------------------------------------------------------------------------------


def _read_layers(
    path: str, config: AdapterConfig, tensors: Mapping[str, TensorInfo]
) -> tuple[list[Layer], list[Finding]]:
    """The adapted layers, and the errors for which they cannot be kept: missing pairs, or contradictions."""
    groups = group_keys(tensors)
    if not groups:
        message = f"None of its {len(tensors)} tensors is a LoRA matrix, so these are the weights of something else."
        return [], [finding("no_lora_tensors", path, message)]
    layers, errors = _pair_layers(path, groups, tensors)
    return layers, errors or [*_rank_errors(path, config, layers), *_dora_errors(path, config, groups)]


_PAIR_FAULTS = {
    "unpaired": "lora_A or lora_B is missing for",
    "ungathered": "A matrix is empty or one-dimensional in",
    "pair_mismatch": "lora_A and lora_B cannot be multiplied in",
}


def _pair_layers(
    path: str, groups: Mapping[str, Mapping[Part, str]], tensors: Mapping[str, TensorInfo]
) -> tuple[list[Layer], list[Finding]]:
    layers: list[Layer] = []
    faults: dict[str, list[str]] = {code: [] for code in _PAIR_FAULTS}
    for module, parts in groups.items():
        embedding = "embedding_A" in parts or "embedding_B" in parts
        name_a = parts.get("embedding_A" if embedding else "A")
        name_b = parts.get("embedding_B" if embedding else "B")
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
    errors = [
        finding(code, path, f"{_PAIR_FAULTS[code]} {name_some(modules)}.")
        for code, modules in faults.items()
        if modules
    ]
    return layers, errors


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
    if not wrong:
        return []
    return [finding("rank_mismatch", path, f"The ranks contradict adapter_config.json: {name_some(wrong)}.")]


def _dora_errors(path: str, config: AdapterConfig, groups: Mapping[str, Mapping[Part, str]]) -> list[Finding]:
    odd = [module for module, parts in groups.items() if ("magnitude" in parts) != config.use_dora]
    if not odd:
        return []
    fault = "the magnitudes are missing for" if config.use_dora else "there is a lora_magnitude_vector in"
    message = f"The config says use_dora {str(config.use_dora).lower()}, but {fault} {name_some(odd)}."
    return [finding("dora_mismatch", path, message)]
