"""What a tree of files is, as an adapter: facts about each PEFT folder in it, and findings about what is wrong and what to do.

Judges by headers and configs only, and of the weights by just enough of lora_B to see whether all of it is zero; the weights of a sound
adapter are read once for its sketch. What PEFT does with each defect (fails, warns, or silently leaves tensors out) was tried with
PEFT 0.21, and the tests try it again.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hub.formats.adapter_config import CONFIG, MAX_CONFIG_BYTES, WEIGHTS, AdapterConfig, alpha_of, parse_config
from hub.formats.errors import FormatError, storable
from hub.formats.ranged_file import RangedFile
from hub.formats.safetensors_header import BITS, Header, TensorInfo, read_header
from hub.formats.strict_json import load_json
from hub.registry.inspection.checks import (
    KnownBase,
    Layer,
    base_findings,
    config_findings,
    foreign_style,
    method_error,
    read_layers,
    weights_findings,
)
from hub.registry.inspection.findings import Finding, finding, format_finding
from hub.registry.inspection.model_card import MAX_CARD_BYTES, Card, CardError, parse_card
from hub.registry.inspection.sketches import sketch_of
from hub.registry.platform.errors import InvalidInput

__all__ = ["NOT_PLAIN", "BadAdapter", "InspectedAdapter", "Inspection", "KnownBase", "inspect", "require_adapter"]

PICKLE = "adapter_model.bin"
CARD = "README.md"
SIDECAR = "loraloom.json"
MAX_SIDECAR_BYTES = 4 << 20
CHUNK = 1 << 20

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

# Pickles that a loader reads where the file that it would prefer is missing; every other pickle is inert.
LOADED_PICKLES = {
    PICKLE: WEIGHTS,
    "pytorch_model.bin": "model.safetensors",
    "diffusion_pytorch_model.bin": "diffusion_pytorch_model.safetensors",
    "pytorch_lora_weights.bin": "pytorch_lora_weights.safetensors",
}
PICKLE_ENDINGS = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


@dataclass(frozen=True)
class InspectedAdapter:
    """What one sound PEFT folder is. Text comes from the upload: safe to store, not to put into HTML unescaped."""

    folder: str  # "" for the top
    base_model: str | None  # as adapter_config.json says it
    base_id: str | None  # the registered base that it means
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
    card: Mapping[str, Any] = field(default_factory=dict)  # the front matter

    def to_dict(self) -> dict[str, Any]:
        """JSON values only, for the database and the API."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return values | {"shapes": {module: list(shape) for module, shape in self.shapes.items()}}


@dataclass(frozen=True)
class Inspection:
    adapters: tuple[InspectedAdapter, ...]  # the sound ones, by folder
    findings: tuple[Finding, ...]  # errors first
    sketches: Mapping[str, bytes]  # of each adapter, by folder

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(item for item in self.findings if item.severity == "error")


class BadAdapter(InvalidInput):
    """An upload that is not exactly one whole, sound adapter; `details` carries every finding."""

    code = "bad_adapter"


@dataclass(frozen=True)
class _Folder:
    path: str
    files: Mapping[str, RangedFile]

    def at(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name

    @property
    def holds_adapter(self) -> bool:
        return bool(self.files.keys() & {CONFIG, WEIGHTS, PICKLE})


def inspect(files: Mapping[str, RangedFile], bases: Sequence[KnownBase]) -> Inspection:
    """Look at every folder of a tree (path -> file). Nothing is raised but what the files' own `read` raises."""
    folders = _folders(files)
    any_adapter = any(folder.holds_adapter for folder in folders.values())
    found: list[Finding] = []
    adapters: list[InspectedAdapter] = []
    for folder in folders.values():
        headers, broken = _read_headers(folder)
        found += broken
        if folder.holds_adapter:
            facts, notes = _inspect_adapter(folder, headers, folders.get("", folder), bases)
            adapters += [facts] if facts else []
            found += notes
        elif not any_adapter:
            found += _foreign(folder, headers)
        found += _pickles(folder)
    order = {"error": 0, "warning": 1, "info": 2}
    sketches = {facts.folder: sketch_of(files, facts.folder) for facts in adapters}
    return Inspection(tuple(adapters), tuple(sorted(found, key=lambda item: order[item.severity])), sketches)


def require_adapter(inspection: Inspection) -> InspectedAdapter:
    """The facts of an upload's one adapter. Raises BadAdapter unless there is exactly one, and nothing is wrong with it."""
    errors = list(inspection.errors)
    if not errors and not inspection.adapters:
        message = f"No folder of the upload holds {CONFIG} and {WEIGHTS}, so there is no PEFT adapter in it."
        pickled = next((item for item in inspection.findings if item.code == "inert_pickle"), None)
        remedy = None
        if pickled:
            remedy = (
                f"If {pickled.path} holds one, bring it in with hf upload and let a job of the kind convert write it."
            )
        errors = [finding("no_adapter", "", message, remedy)]
    elif not errors and len(inspection.adapters) > 1:
        folders = ", ".join(facts.folder or "the top folder" for facts in inspection.adapters[:5])
        message = f"The upload holds {len(inspection.adapters)} adapters ({folders}), and one is kept at a time."
        errors = [finding("no_adapter", "", message, "Upload each of these folders by itself.")]
    if not errors:
        return inspection.adapters[0]
    first = errors[0]
    more = f" (One of {len(errors)} errors; see the findings.)" if len(errors) > 1 else ""
    raise BadAdapter(
        f"{first.path}: {first.message} {first.remedy}{more}".removeprefix(": "),
        reason=first.code,
        findings=[item.to_dict() for item in (*errors, *(i for i in inspection.findings if i.severity != "error"))],
    )


def _folders(files: Mapping[str, RangedFile]) -> dict[str, _Folder]:
    grouped: dict[str, dict[str, RangedFile]] = {}
    for path in sorted(files):
        folder, _, name = path.rpartition("/")
        grouped.setdefault(folder, {})[name] = files[path]
    return {path: _Folder(path, here) for path, here in sorted(grouped.items())}


def _read_headers(folder: _Folder) -> tuple[dict[str, Header], list[Finding]]:
    headers: dict[str, Header] = {}
    broken: list[Finding] = []
    for name, file in folder.files.items():
        if name.endswith(".safetensors"):
            try:
                headers[name] = read_header(file)
            except FormatError as error:
                broken.append(format_finding(error, folder.at(name)))
    return headers, broken


def _pickles(folder: _Folder) -> Iterator[Finding]:
    inert = []
    for name in folder.files:
        if name in LOADED_PICKLES and LOADED_PICKLES[name] not in folder.files:
            message = "The weights are a pickle, and to read a pickle may run whatever its author put into it."
            yield finding("pickle_weights", folder.at(name), message)
        elif name.endswith(PICKLE_ENDINGS):
            inert.append(name)
    if inert:
        named = inert[0] if len(inert) == 1 else f"{inert[0]} and {len(inert) - 1} more"
        message = f"No loader of adapters reads {named}; pickles are kept, and never opened here."
        yield finding("inert_pickle", folder.at(inert[0]), message)


def _foreign(folder: _Folder, headers: Mapping[str, Header]) -> list[Finding]:
    """LoRA weights that another tool wrote, if there are any; one finding a folder says it."""
    notes = (foreign_style(folder.at(name), header.tensors) for name, header in headers.items())
    first = next((note for note in notes if note), None)
    return [first] if first else []


def _inspect_adapter(
    folder: _Folder, headers: Mapping[str, Header], top: _Folder, bases: Sequence[KnownBase]
) -> tuple[InspectedAdapter | None, list[Finding]]:
    candidates = {name: header for name, header in headers.items() if name == WEIGHTS or WEIGHTS not in folder.files}
    if foreign := _foreign(folder, candidates):
        return None, foreign
    config = _read_config(folder)
    error = config if isinstance(config, Finding) else method_error(folder.at(CONFIG), config)
    notes = [error] if error else []
    if not folder.files.keys() & {WEIGHTS, PICKLE}:
        notes.append(finding("missing_weights", folder.at(WEIGHTS), f"There is {CONFIG}, but no {WEIGHTS} beside it."))
    if notes or isinstance(config, Finding) or WEIGHTS not in headers:
        return None, notes
    tensors = headers[WEIGHTS].tensors
    layers, errors = read_layers(folder.at(WEIGHTS), config, tensors)
    if errors:
        return None, errors
    base = next((base for base in bases if config.base_model in (base.id, *base.aliases)), None)
    notes = base_findings(folder.at(CONFIG), config, layers, tensors, base, bases)
    notes += config_findings(folder.at(CONFIG), config, layers, tensors)
    notes += weights_findings(folder.at(WEIGHTS), config, layers, tensors)
    flags = _flags(config, layers)
    if all(_is_zero(folder.files[WEIGHTS], layer.starts_at_zero) for layer in layers):
        notes.append(finding("zero_b", folder.at(WEIGHTS), "Every lora_B is zero, so the adapter changes nothing."))
        flags.add("zero_b")
    card, more = _read_card(folder if CARD in folder.files else top)
    sidecar, odd = _read_sidecar(folder)
    notes += [*more, *odd]
    if any(note.severity == "error" for note in notes):
        return None, notes
    ranks = sorted({layer.rank for layer in layers})
    numbered = (re.search(r"(?:^|\.)(\d+)(?:\.|$)", layer.module) for layer in layers)
    dtypes = sorted({tensor.dtype for layer in layers for tensor in (layer.a, layer.b)})
    facts = InspectedAdapter(
        folder=folder.path,
        base_model=config.base_model,
        base_id=base.id if base else None,
        base_revision=config.revision,
        peft_type=config.peft_type,
        method=sidecar.get("method") or ("dora" if config.use_dora else "lora"),
        task_type=config.task_type,
        rank=ranks[-1],
        ranks=tuple(ranks),
        alphas=tuple(sorted({alpha_of(config, layer.module) for layer in layers})),
        scaling="alpha/sqrt(r)" if config.use_rslora else "alpha/r",
        target_modules=tuple(sorted({layer.module.rpartition(".")[2] for layer in layers})),
        layers=len({found[1] for found in numbered if found}),
        dtype="+".join(dtypes),
        parameters=sum(tensor.count for tensor in tensors.values()),
        size_bytes=folder.files[WEIGHTS].size,
        shapes={layer.module: (layer.inputs, layer.outputs, layer.rank) for layer in layers},
        flags=tuple(sorted(flags)),
        template=sidecar.get("template") or next(iter(card.words("prompt_template")), None),
        licence=card.licence,
        tags=tuple(dict.fromkeys(tag[:100] for tag in card.words("tags")[:100])),
        description=card.description,
        card=card.front,
    )
    return facts, notes


def _read_config(folder: _Folder) -> AdapterConfig | Finding:
    if CONFIG not in folder.files:
        return finding("missing_config", folder.at(CONFIG), f"There are weights, but no {CONFIG} beside them.")
    try:
        return parse_config(folder.files[CONFIG].read(0, MAX_CONFIG_BYTES + 1))
    except FormatError as error:
        return format_finding(error, folder.at(CONFIG))


def _read_card(folder: _Folder) -> tuple[Card, list[Finding]]:
    path = folder.at(CARD)
    if CARD not in folder.files:
        return Card(), [finding("no_card", path, "There is no model card, so nobody can tell what this is for.")]
    try:
        card = parse_card(folder.files[CARD].read(0, MAX_CARD_BYTES))
    except CardError as error:
        return Card(), [finding("bad_card", path, f"The model card could not be read: {error}.")]
    if not card.words("license"):
        return card, [finding("no_licence", path, "The model card names no licence.")]
    return card, []


def _read_sidecar(folder: _Folder) -> tuple[dict[str, str], list[Finding]]:
    """The two words of loraloom.json that facts repeat: what made the adapter, and the prompt template it was trained with."""
    if SIDECAR not in folder.files:
        return {}, []
    try:
        found = load_json(folder.files[SIDECAR].read(0, MAX_SIDECAR_BYTES), SIDECAR, "bad_sidecar")
    except FormatError as error:
        return {}, [finding("bad_sidecar", folder.at(SIDECAR), f"{error.fault}.")]
    words = {name: found.get(name) for name in ("method", "template")}
    return {
        name: word for name, word in words.items() if isinstance(word, str) and storable(word) and len(word) <= 40
    }, []


def _is_zero(file: RangedFile, tensor: TensorInfo) -> bool:
    """Whether every number is zero, read up to the first that is not. Minus zero, which differs in its top bit, is zero."""
    width = max(BITS[tensor.dtype] // 8, 1)
    for offset in range(tensor.start, tensor.end, CHUNK):
        chunk = file.read(offset, min(CHUNK, tensor.end - offset))
        tops = chunk[width - 1 :: width]
        if tops.strip(b"\0\x80") or any(chunk[byte::width].strip(b"\0") for byte in range(width - 1)):
            return False
    return True


def _flags(config: AdapterConfig, layers: Sequence[Layer]) -> set[str]:
    init = str(config.init_lora_weights).lower()
    held = {
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
    return variants | {flag for flag, on in held.items() if on}
