"""What a PEFT adapter's files say: the safetensors header, adapter_config.json, and the names of the tensors.

Nothing here loads a weight, so the registry can look at an upload without torch, and the methods read it by the same rules.
Sources: the safetensors format description (8 bytes little-endian header length, JSON header, one contiguous byte buffer), and
PEFT 0.21 (`peft.utils.other.get_pattern_key`, `LoraLayer.update_layer`, `peft.utils.save_and_load`), which the tests compare with.
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol

from hub.vocabulary import Style

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."  # PeftModel.base_model is the tuner, and its .model is the base

MAX_HEADER_BYTES = 32 << 20  # some 200,000 tensors; the format itself allows 100 MB
MAX_HEADER_VALUES = 3_000_000  # a tensor has about nine; a header of empty lists alone would take a gigabyte to parse
MAX_CONFIG_BYTES = 1 << 20
MAX_NAME = 512

BITS = {
    **dict.fromkeys(["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"], 8),
    **dict.fromkeys(["U16", "I16", "F16", "BF16"], 16),
    **dict.fromkeys(["U32", "I32", "F32"], 32),
    **dict.fromkeys(["U64", "I64", "F64", "C64"], 64),
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
}


class FormatError(ValueError):
    """A file is not what its name says: what is wrong with it, and what to do. `code` tells the causes apart."""

    def __init__(self, code: str, fault: str, remedy: str = "save the file again") -> None:
        super().__init__(f"{fault}; {remedy}.")
        self.code, self.fault, self.remedy = code, fault, remedy


class RangedFile(Protocol):
    """Bytes that can be read in pieces: a file on disk, or an object in a store."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class TensorInfo:
    dtype: str
    shape: tuple[int, ...]
    start: int  # first byte, counted from the start of the file
    end: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def printable(text: str) -> str:
    """Text from a file, short and safe to show in a message: control characters and lone surrogates are escaped."""
    short = text if len(text) <= 120 else f"{text[:117]}..."
    return short if short.isprintable() else ascii(short)


def storable(text: str) -> bool:
    """Whether a database and a page can hold the text: PostgreSQL takes no NUL, UTF-8 no lone surrogate."""
    return not any(ord(char) < 32 or 0xD800 <= ord(char) <= 0xDFFF for char in text)


def load_json(data: bytes, what: str, code: str) -> dict[str, Any]:
    """A JSON object, read strictly: no NaN, no name twice. Raises FormatError with this code, or duplicate_key."""
    try:
        found = json.loads(data.decode(), object_pairs_hook=_unique_pairs, parse_constant=_no_constant)
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise FormatError(code, f"{what} is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise FormatError(code, f"{what} holds no JSON object")
    return found


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise FormatError("duplicate_key", f"The name {printable(name)} occurs twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


# --- the header of a safetensors file ---------------------------------------------------------------------------------


def read_header(file: RangedFile) -> Header:
    """Read and check the header of a safetensors file; the tensors' bytes are not read.

    Raises FormatError with code lfs_pointer, not_safetensors, truncated, header_too_large, bad_header, duplicate_key, or
    bad_offsets (ranges that overlap, leave holes, or contradict shape and dtype; bytes that belong to no tensor).
    """
    start = file.read(0, min(file.size, 64))
    refuse_pointer(start, "weights")
    if len(start) < 9:
        raise FormatError("truncated", f"The file has only {file.size} bytes", "upload it again")
    length = int.from_bytes(start[:8], "little")
    if start[8:9] != b"{":
        kind = "a pickle saved by torch" if start.startswith((b"PK\x03\x04", b"\x80")) else "something else"
        raise FormatError("not_safetensors", f"This is not a safetensors file but {kind}", "save it with PEFT again")
    if length > MAX_HEADER_BYTES:
        fault = f"The header claims {length} bytes, and no more than {MAX_HEADER_BYTES} are read"
        raise FormatError("header_too_large", fault)
    if 8 + length > file.size:
        fault = f"The file ends inside its header ({file.size} of at least {8 + length} bytes)"
        raise FormatError("truncated", fault, "upload it again")
    text = file.read(8, length)
    if sum(text.count(mark) for mark in (b",", b"[", b"{")) > MAX_HEADER_VALUES:
        raise FormatError("header_too_large", "The header holds more values than any set of tensors needs")
    header = load_json(text, "The header", "bad_header")
    metadata = header.pop("__metadata__", None) or {}  # MLX writes null
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError("bad_header", "The header's __metadata__ does not map names to text")
    tensors = {name: _tensor_info(name, entry, 8 + length) for name, entry in header.items()}
    _check_layout(tensors, 8 + length, file.size)
    return Header(tensors, metadata)


def refuse_pointer(start: bytes, what: str) -> None:
    """Raise FormatError (lfs_pointer) if a file begins like the note that Git LFS keeps in place of a large file."""
    if start.startswith(b"version https://git-lfs.github.com/spec/v1"):
        fault = f"This is a Git LFS pointer, not the {what}"
        raise FormatError("lfs_pointer", fault, "run `git lfs pull` and upload the file that it fetches")


def _tensor_info(name: str, entry: Any, data_start: int) -> TensorInfo:
    if len(name) > MAX_NAME or not storable(name):
        raise FormatError("bad_header", f"The tensor name {printable(name)} is too long or holds control characters")
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [start, end]} if len(shape) <= 16 and all(
            type(number) is int and 0 <= number < 1 << 62 for number in [*shape, start, end]
        ):
            pass
        case _:
            raise FormatError("bad_header", f"The header's entry for {name} lacks a sound dtype, shape or data_offsets")
    if dtype not in BITS:
        fault = f"The tensor {name} has the unknown dtype {printable(dtype)}"
        raise FormatError("bad_header", fault, "save it as float32 or bfloat16")
    if start > end or (end - start) * 8 != math.prod(shape) * BITS[dtype]:
        fault = f"The tensor {name} of shape {shape} and dtype {dtype} cannot fill bytes {start} to {end}"
        raise FormatError("bad_offsets", fault)
    return TensorInfo(dtype, tuple(shape), data_start + start, data_start + end)


def _check_layout(tensors: Mapping[str, TensorInfo], data_start: int, file_size: int) -> None:
    position = data_start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.end > file_size:
            fault = f"The file ends at byte {file_size}, but the tensor {name} reaches to {tensor.end}"
            raise FormatError("truncated", fault, "upload it again")
        if tensor.start != position:
            fault = "overlaps the one before it" if tensor.start < position else "leaves a hole before it"
            raise FormatError("bad_offsets", f"The tensor {name} {fault}")
        position = tensor.end
    if position != file_size:
        raise FormatError("bad_offsets", f"{file_size - position} bytes after the last tensor belong to none")


# --- adapter_config.json ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AdapterConfig:
    """The part of adapter_config.json that says how the tensors act. Missing fields have PEFT's own defaults."""

    peft_type: str  # for any but "LORA", only the next three are read
    base_model: str | None
    revision: str | None
    task_type: str | None
    r: int
    lora_alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    use_rslora: bool
    use_dora: bool
    bias: str
    lora_bias: bool
    fan_in_fan_out: bool
    init_lora_weights: bool | str
    target_modules: tuple[str, ...] | str  # a string is a regular expression, and is never run here
    target_parameters: tuple[str, ...]
    modules_to_save: tuple[str, ...]
    trainable_tokens: bool
    layer_replication: bool
    variants: tuple[str, ...]  # PEFT's names of settings under which a layer computes more than W x + scaling * B A x

    @property
    def changes_base(self) -> bool:
        """Whether training began by rewriting the base's weights, so that B @ A is no delta of the original base."""
        init = str(self.init_lora_weights).lower()
        return init.startswith(("pissa", "corda", "olora", "loftq", "lora_ga")) or "kasa_config" in self.variants


# Each is off when null or false. `enable_lora` is the MergedLinear of PEFT before 0.3, whose lora_B is a convolution.
_VARIANTS = (
    "alora_invocation_tokens",
    "arrow_config",
    "enable_lora",
    "kasa_config",
    "monteclora_config",
    "use_bdlora",
    "use_qalora",
)


def parse_config(data: bytes) -> AdapterConfig:
    """Read adapter_config.json; unknown keys are left alone.

    Raises FormatError with code lfs_pointer, config_not_json, duplicate_key, no_peft_type, bad_config (a
    field has the wrong type or value) or bad_pattern (see `check_pattern`).
    """
    refuse_pointer(data, "config")
    if len(data) > MAX_CONFIG_BYTES:
        raise FormatError("bad_config", f"{CONFIG} has {len(data)} bytes, and no more than {MAX_CONFIG_BYTES} are read")
    return config_from(load_json(data, CONFIG, "config_not_json"))


def config_from(settings: Mapping[str, Any]) -> AdapterConfig:
    """The same from parsed JSON. Raises what `parse_config` raises from no_peft_type on."""

    def field(name: str, default: Any, sound: Callable[[Any], bool], wanted: str) -> Any:
        value = settings.get(name)
        if value is None:  # older files spell out what they leave at its default
            return default
        if not sound(value):
            fault = f"{name} in {CONFIG} is {printable(json.dumps(value))}"
            raise FormatError("bad_config", fault, f"make it {wanted}")
        return value

    def flag(name: str) -> bool:
        return bool(field(name, False, lambda value: isinstance(value, bool), "true or false"))

    def text(name: str) -> str | None:
        return field(name, None, _is_text, "text without control characters") or None

    def names(name: str) -> tuple[str, ...]:
        return tuple(field(name, (), _is_names, "a list of names"))

    peft_type = text("peft_type")
    if peft_type is None:
        fault = f'{CONFIG} has no "peft_type", so PEFT cannot tell what this is'
        raise FormatError("no_peft_type", fault, "save the adapter with PEFT's save_pretrained")
    if peft_type != "LORA":  # the fields of other methods have their own meanings: AdaLoRA's rank_pattern holds masks
        settings = {name: settings.get(name) for name in ("base_model_name_or_path", "revision", "task_type")}
    ranks = field("rank_pattern", {}, lambda value: _is_map(value, _is_rank), "an object of whole numbers above 0")
    alphas = field("alpha_pattern", {}, lambda value: _is_map(value, _is_number), "an object of numbers")
    for pattern in (*ranks, *alphas):
        check_pattern(pattern)
    targets = settings.get("target_modules")
    return AdapterConfig(
        peft_type=peft_type,
        base_model=text("base_model_name_or_path"),
        revision=text("revision"),
        task_type=text("task_type"),
        r=field("r", 8, _is_rank, "a whole number above 0"),
        lora_alpha=field("lora_alpha", 8, _is_number, "a number"),
        rank_pattern=ranks,
        alpha_pattern=alphas,
        use_rslora=flag("use_rslora"),
        use_dora=flag("use_dora"),
        bias=text("bias") or "none",
        lora_bias=flag("lora_bias"),
        fan_in_fan_out=flag("fan_in_fan_out"),
        init_lora_weights=field(
            "init_lora_weights", True, lambda v: isinstance(v, bool) or _is_text(v), "true, false or a name"
        ),
        target_modules=text("target_modules") or () if isinstance(targets, str) else names("target_modules"),
        target_parameters=names("target_parameters"),
        modules_to_save=names("modules_to_save"),
        trainable_tokens=bool(settings.get("trainable_token_indices")),
        layer_replication=bool(settings.get("layer_replication")),
        variants=tuple(name for name in _VARIANTS if settings.get(name)),
    )


def _is_rank(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 31


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and storable(value)


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(_is_text(item) for item in value)


def _is_map(value: Any, sound: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(_is_text(key) and sound(item) for key, item in value.items())


# --- rank_pattern and alpha_pattern -----------------------------------------------------------------------------------

_PIECE = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?:|\{\d*(?:,\d*)?\}|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Pattern:
    regex: re.Pattern[str]
    repeats: int  # how many parts of it may match a varying number of characters
    branches: int  # in how many ways its alternatives can be chosen

    def steps(self, length: int) -> int:
        """About the most ways in which Python's matcher can try this, behind PEFT's `(.*\\.)?`, on a name so long."""
        return self.branches * math.comb(length + self.repeats + 1, self.repeats + 1)


@lru_cache(maxsize=4096)
def check_pattern(pattern: str) -> Pattern:
    """Compile a key of rank_pattern or alpha_pattern as PEFT's `get_pattern_key` does.

    The text comes from an upload, and Python's matcher needs exponential time on some expressions, so those whose work cannot
    be bounded are refused: a repeated group, a back-reference, a look-around. Raises FormatError with code bad_pattern.
    """
    repeats, branches, previous = 0, 1, ""
    alternatives = [1]  # one number for each open group
    for piece in _PIECE.findall(pattern):
        if piece in ("(", "(?:"):
            alternatives.append(1)
        elif piece == ")" and len(alternatives) > 1:
            branches *= alternatives.pop()
        elif piece == "|":
            alternatives[-1] += 1
        elif piece == "?":
            if previous == "(":
                raise _bad_pattern(pattern, "uses a look-around, a flag or a named group")
            branches *= 2
        elif piece in ("*", "+") or re.fullmatch(r"\{.+\}", piece):
            if previous == ")":
                raise _bad_pattern(pattern, "repeats a group")
            repeats += 1
        elif re.fullmatch(r"\\[1-9]", piece):
            raise _bad_pattern(pattern, "uses a back-reference")
        previous = piece
    try:
        regex = re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, OverflowError, RecursionError) as error:
        fault = error.msg if isinstance(error, re.error) else error  # without a position, which counts PEFT's prefix
        raise _bad_pattern(pattern, f"is no regular expression ({fault})") from error
    return Pattern(regex, repeats, branches * alternatives[0])


def _bad_pattern(pattern: str, fault: str) -> FormatError:
    what = f"The key {printable(pattern)} of rank_pattern or alpha_pattern {fault}"
    return FormatError("bad_pattern", what, "name the modules plainly instead")


def pattern_steps(config: AdapterConfig, modules: Iterable[str]) -> int:
    """A bound on the matcher's work for asking rank and alpha of all these modules: ask it before them, of an upload."""
    patterns = [check_pattern(key) for key in (*config.rank_pattern, *config.alpha_pattern)]
    lengths = Counter(len(module) for module in modules) if patterns else Counter[int]()
    return sum(pattern.steps(length) * count for length, count in lengths.items() for pattern in patterns)


def _first_match(patterns: Mapping[str, Any], module: str) -> str:
    return next((key for key in patterns if check_pattern(key).regex.match(module)), module)


def rank_of(config: AdapterConfig, module: str) -> int:
    """The rank that PEFT gives this module (its path inside the base): the first matching rank_pattern, or r."""
    return config.rank_pattern.get(_first_match(config.rank_pattern, module), config.r)


def alpha_of(config: AdapterConfig, module: str) -> float:
    """The alpha that PEFT gives this module: the first matching alpha_pattern, or lora_alpha."""
    return config.alpha_pattern.get(_first_match(config.alpha_pattern, module), config.lora_alpha)


def scaling_of(config: AdapterConfig, module: str) -> float:
    """What PEFT multiplies B @ A by: alpha / r, or alpha / sqrt(r) with rsLoRA (arXiv 2312.03732)."""
    rank = rank_of(config, module)
    return alpha_of(config, module) / (math.sqrt(rank) if config.use_rslora else rank)


# --- names of tensors -------------------------------------------------------------------------------------------------

Part = Literal["A", "B", "B_bias", "embedding_A", "embedding_B", "magnitude", "variant", "saved"]
Ignored = Literal["prefix", "nested", "adapter", "suffix"]

_PARTS: dict[tuple[str, str], Part] = {
    ("lora_A", "weight"): "A",
    ("lora_B", "weight"): "B",
    ("lora_B", "bias"): "B_bias",
    ("lora_embedding_A", ""): "embedding_A",
    ("lora_embedding_B", ""): "embedding_B",
    ("lora_magnitude_vector", ""): "magnitude",
    ("lora_magnitude_vector", "weight"): "magnitude",
}


@dataclass(frozen=True, slots=True)
class Key:
    """A tensor's name, taken apart. `ignored` says why stock PEFT would leave the tensor out without an error."""

    module: str  # path of the layer inside the base, "model.layers.0.self_attn.q_proj"
    part: Part  # "saved": kept whole (modules_to_save, biases, embeddings); "variant": any other lora_ tensor
    ignored: Ignored | None = None
    adapter: str | None = None  # an adapter's name that was left inside; PEFT reads the tensor under that name alone


def parse_key(name: str) -> Key:
    """Take apart the name of a tensor in adapter_model.safetensors."""
    path = name.removeprefix(PREFIX)
    ignored: Ignored | None = None
    if path == name:
        ignored, path = "prefix", name.removeprefix("base_model.")
    while path.startswith(PREFIX):
        ignored, path = "nested", path.removeprefix(PREFIX)
    words = path.split(".")
    at = next((i for i in reversed(range(len(words))) if words[i].startswith("lora_")), None)
    if at is None:
        module, _, saved_as = path.rpartition(".modules_to_save.")
        if module:
            return Key(module, "saved", ignored or "adapter", saved_as.partition(".")[0])
        module = path.rpartition(".")[0]
        return Key(module.removesuffix(".base_layer"), "saved", ignored)
    module, rest = ".".join(words[:at]), words[at + 1 :]
    # Saving drops the adapter's name, which in memory stands behind the word: lora_A.default.weight, lora_embedding_A.default.
    leaf = rest.pop() if rest and rest[-1] in ("weight", "bias") else ""
    part = _PARTS.get((words[at], leaf))
    if part is None:
        lacks_weight = words[at] in ("lora_A", "lora_B")
        return Key(module, "variant", ignored or ("suffix" if lacks_weight else None))
    if rest:
        return Key(module, part, ignored or "adapter", ".".join(rest))
    return Key(module, part, ignored)


def group_keys(names: Iterable[str]) -> dict[str, dict[Part, str]]:
    """Module path -> part -> name of its tensor, for the LoRA parts; a name that PEFT reads wins over one it ignores."""
    groups: dict[str, dict[Part, str]] = {}
    for name in names:
        key = parse_key(name)
        if key.part not in ("saved", "variant"):
            parts = groups.setdefault(key.module, {})
            if key.ignored is None or key.part not in parts:
                parts[key.part] = name
    return groups


_STYLES: tuple[tuple[Style, str], ...] = (
    ("loralib", r"\.lora_[AB]$"),
    ("mlx", r"\.lora_[ab]$"),
    ("kohya", r"^lora_(unet|te\d*|transformer)_"),
    (
        "diffusers",
        r"[._]lora\.(down|up)\.weight$|\.lora_linear_layer\.(down|up)\.weight$"
        r"|^(unet|text_encoder(_[23])?)\..*lora|^transformer\.(single_)?transformer_blocks\..*lora",
    ),
    ("peft", r"\.lora_[AB](\.[^.]+)?\.weight$"),  # without the prefix, so that PEFT leaves them out
)


def style_of(names: Iterable[str]) -> tuple[Style, str] | None:
    """Which tool names LoRA tensors like this, and the first name that shows it; None if no name is one of a LoRA."""
    names = list(names)
    if like := next((name for name in names if name.startswith(PREFIX)), None):
        return "peft", like
    for style, regex in _STYLES:
        if like := next((name for name in names if re.search(regex, name)), None):
            return style, like
    return None


@dataclass(frozen=True)
class LocalFile:
    """A file on disk, read in pieces."""

    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def read(self, offset: int, length: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)


FINGERPRINT_SAMPLE = 4096  # bytes of each tensor


def fingerprint(files: Iterable[RangedFile], pool: Executor | None = None) -> str:
    """SHA-256 over the name, dtype, shape and first 4 KiB of every tensor of these safetensors files, in the order of the names.

    It takes milliseconds for a base of any size and does not depend on how the weights are split into files. Training, merging and
    rounding change nearly every entry of a matrix, so its first entries tell; a change of single entries may go unseen.
    With a pool, tensors are read at the same time, as many as it has threads. Raises FormatError.
    """
    tensors = [(file, name, tensor) for file in files for name, tensor in read_header(file).tensors.items()]

    def sample(file: RangedFile, name: str, tensor: TensorInfo) -> bytes:
        described = f"{name} {tensor.dtype} {tensor.shape}\n".encode()
        return described + file.read(tensor.start, min(tensor.end - tensor.start, FINGERPRINT_SAMPLE))

    taken = pool.map(sample, *zip(*tensors, strict=True)) if pool and tensors else (sample(*each) for each in tensors)
    samples = dict(zip((name for _, name, _ in tensors), taken, strict=True))
    return hashlib.sha256(b"".join(samples[name] for name in sorted(samples))).hexdigest()
