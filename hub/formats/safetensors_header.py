"""The header of a safetensors file, and a fingerprint of the weights behind it. No weight is loaded, so the registry needs no torch.

Source: the safetensors format description. A file is 8 bytes of header length (little-endian), a JSON header, one contiguous byte buffer.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from hub.formats.errors import FormatError, printable, storable
from hub.formats.git import refuse_pointer
from hub.formats.ranged_file import RangedFile
from hub.formats.strict_json import load_json

MAX_HEADER_BYTES = 32 << 20  # some 200,000 tensors; the format itself allows 100 MB
MAX_HEADER_VALUES = 3_000_000  # a tensor has about nine; a header of empty lists alone would take a gigabyte to parse
MAX_NAME = 512
FINGERPRINT_SAMPLE = 4096  # bytes of each tensor

BITS = {
    **dict.fromkeys(["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"], 8),
    **dict.fromkeys(["U16", "I16", "F16", "BF16"], 16),
    **dict.fromkeys(["U32", "I32", "F32"], 32),
    **dict.fromkeys(["U64", "I64", "F64", "C64"], 64),
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
}


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


def read_header(file: RangedFile) -> Header:
    """Read and check the header of a safetensors file; the tensors' bytes are not read.

    Raises FormatError with code lfs_pointer, not_safetensors, truncated, header_too_large, bad_header, duplicate_key, or
    bad_offsets (ranges that overlap, leave holes, or contradict shape and dtype; bytes that belong to no tensor).
    """
    length = _header_length(file)
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


def _header_length(file: RangedFile) -> int:
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
    return length


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


def fingerprint(files: Iterable[RangedFile], pool: Executor | None = None) -> str:
    """SHA-256 over the name, dtype, shape and first 4 KiB of every tensor of these safetensors files, in the order of the names.

    It takes milliseconds for a base of any size and does not depend on how the weights are split into files. Training, merging and
    rounding change nearly every entry of a matrix, so its first entries tell. A change of single entries may go unnoticed.
    With a pool, tensors are read in parallel, as many as it has threads. Raises FormatError.
    """
    tensors = [(file, name, tensor) for file in files for name, tensor in read_header(file).tensors.items()]

    def sample(file: RangedFile, name: str, tensor: TensorInfo) -> bytes:
        description = f"{name} {tensor.dtype} {tensor.shape}\n".encode()
        return description + file.read(tensor.start, min(tensor.end - tensor.start, FINGERPRINT_SAMPLE))

    samples = pool.map(sample, *zip(*tensors, strict=True)) if pool and tensors else (sample(*item) for item in tensors)
    by_name = dict(zip((name for _, name, _ in tensors), samples, strict=True))
    return hashlib.sha256(b"".join(by_name[name] for name in sorted(by_name))).hexdigest()
