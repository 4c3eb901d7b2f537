"""Headers of safetensors files are read as safetensors itself reads them."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.torch import save_file

from hub.formats.errors import FormatError
from hub.formats.safetensors_header import MAX_HEADER_BYTES, read_header


@dataclass
class Bytes:
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


def safetensors_file(header: Any, data: bytes = b"") -> Bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return Bytes(struct.pack("<Q", len(text)) + text + data)


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def deserialized(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    """What safetensors itself reads: each tensor's name, and its dtype, shape and data."""
    tensors: list[tuple[str, dict[str, Any]]] = deserialize(data)  # type: ignore[no-untyped-call]  # safetensors has no types
    return tensors


def test_header_agrees_with_safetensors(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 5),
        "b": torch.randn(2, 2).bfloat16(),
        "none": torch.zeros(0, 4),
        "scalar": torch.tensor(1.5),
        "long": torch.arange(7),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    data = (tmp_path / "x.safetensors").read_bytes()
    header = read_header(Bytes(data))
    assert header.metadata == {"format": "pt"}
    assert {name: list(info.shape) for name, info in header.tensors.items()} == {
        name: list(tensor.shape) for name, tensor in tensors.items()
    }
    assert {name: info.dtype for name, info in header.tensors.items()} == {
        name: tensor["dtype"] for name, tensor in deserialized(data)
    }
    a = header.tensors["a"]
    assert data[a.start : a.end] == tensors["a"].numpy().tobytes()


DEFECTS = {
    "an LFS pointer": (Bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n"), "lfs_pointer"),
    "empty": (Bytes(b""), "truncated"),
    "a torch zip": (Bytes(b"PK\x03\x04" + bytes(60)), "not_safetensors"),
    "an old pickle": (Bytes(b"\x80\x02}q\x00." + bytes(60)), "not_safetensors"),
    "text": (Bytes(b"hello, this is no model at all"), "not_safetensors"),
    "an absurd length": (Bytes(struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{}"), "header_too_large"),
    "millions of lists": (safetensors_file(b'{"a":[' + b"[]," * 1_500_001 + b"[]]}"), "header_too_large"),
    "cut in the header": (Bytes(safetensors_file({"a": entry([1], 0, 4)}, bytes(4)).data[:20]), "truncated"),
    "cut in the data": (safetensors_file({"a": entry([4], 0, 16)}, bytes(12)), "truncated"),
    "not JSON": (safetensors_file(b'{"a": }'), "bad_header"),
    "NaN": (safetensors_file(b'{"a": NaN}'), "bad_header"),
    "not UTF-8": (safetensors_file(b'{"\xff": 1}'), "bad_header"),
    "nested without end": (safetensors_file(b'{"a":' + b"[" * 100_000), "bad_header"),
    "a name twice": (safetensors_file(b'{"a": 1, "b": 2, "a": 3}'), "duplicate_key"),
    "metadata of numbers": (safetensors_file({"__metadata__": {"rank": 8}}), "bad_header"),
    "a NUL in a name": (safetensors_file({"a\0": entry([1], 0, 4)}, bytes(4)), "bad_header"),
    "a lone surrogate in a name": (safetensors_file({"a\ud800": entry([1], 0, 4)}, bytes(4)), "bad_header"),
    "no shape": (safetensors_file({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, bytes(4)), "bad_header"),
    "a negative size": (safetensors_file({"a": entry([-1], 0, 4)}, bytes(4)), "bad_header"),
    "a boolean size": (safetensors_file({"a": entry([True], 0, 4)}, bytes(4)), "bad_header"),
    "an unknown dtype": (safetensors_file({"a": entry([1], 0, 4, "Q4")}, bytes(4)), "bad_header"),
    "a shape too small": (safetensors_file({"a": entry([3], 0, 16)}, bytes(16)), "bad_offsets"),
    "offsets backwards": (safetensors_file({"a": entry([1], 4, 0)}, bytes(4)), "bad_offsets"),
    "an overlap": (safetensors_file({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)), "bad_offsets"),
    "a hole": (safetensors_file({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)), "bad_offsets"),
    "bytes left over": (safetensors_file({"a": entry([1], 0, 4)}, bytes(5)), "bad_offsets"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_broken_header_is_refused_by_its_cause(name: str) -> None:
    file, code = DEFECTS[name]
    with pytest.raises(FormatError) as caught:
        read_header(file)
    assert caught.value.code == code
    if name not in ("a name twice", "a NUL in a name"):  # safetensors itself lets these two pass
        with pytest.raises(SafetensorError):
            deserialized(file.data)


SOUND = safetensors_file(
    {"__metadata__": {"k": "v"}, "a": entry([2, 2], 0, 16), "b": entry([3], 16, 22, "F16")}, bytes(22)
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SOUND.data) - 1), st.integers(0, 255)), max_size=4), st.integers(-6, 6))
def test_what_we_accept_safetensors_accepts(flips: list[tuple[int, int]], length: int) -> None:
    data = bytearray(SOUND.data)
    for at, value in flips:
        data[at] = value
    data = data[:length] if length < 0 else data + bytes(length)
    try:
        header = read_header(Bytes(bytes(data)))
    except FormatError:
        return
    found = {name: (tuple(info["shape"]), info["dtype"]) for name, info in deserialized(bytes(data))}
    assert found == {name: (info.shape, info.dtype) for name, info in header.tensors.items()}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_header_or_a_format_error(data: bytes) -> None:
    for file in (Bytes(data), safetensors_file(b"{" + data)):
        try:
            read_header(file)
        except FormatError as error:
            assert str(error)  # noqa: PT017 (either outcome is right)
