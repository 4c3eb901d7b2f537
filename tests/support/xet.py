"""Xorbs and shards made by hand, to send what hf_xet never would."""

import struct
from collections.abc import Sequence

import lz4.frame

from hub.formats.xet_format import chunk_hash, hash_text, xorb_hash

Segment = tuple[str, int, int, int]  # xorb, length, first chunk, end


def raw_hash(text: str) -> bytes:
    return struct.pack("<4Q", *(int(text[at : at + 16], 16) for at in range(0, 64, 16)))


def grouped(data: bytes) -> bytes:
    return b"".join(data[offset::4] for offset in range(4))


def chunk(
    data: bytes, scheme: int = 0, *, said: int | None = None, packed: bytes | None = None, version: int = 0
) -> bytes:
    """`said` is the unpacked length that its header claims, `packed` what stands in place of the packed data."""
    if packed is None:
        packed = data if scheme == 0 else lz4.frame.compress(grouped(data) if scheme == 2 else data)
    length = len(data) if said is None else said
    head = bytes([version]) + len(packed).to_bytes(3, "little") + bytes([scheme]) + length.to_bytes(3, "little")
    return head + packed


def name(contents: Sequence[bytes]) -> str:
    """The hash of the xorb with these chunks."""
    return hash_text(xorb_hash([(chunk_hash(data), len(data)) for data in contents]))


def shard(*files: tuple[str | None, Sequence[Segment]], version: int = 2, verified: bool = False) -> bytes:
    """A list of files: the SHA-256 and the segments of each."""
    mark = b"HFRepoMetaData" + bytes(18)
    records = [mark + struct.pack("<2Q", version, 0)]
    for sha256, segments in files:
        flags = (0 if sha256 is None else 1 << 30) | (1 << 31 if verified else 0)
        records.append(bytes(32) + struct.pack("<2IQ", flags, len(segments), 0))
        records += [raw_hash(xorb) + struct.pack("<4I", 0, *numbers) for xorb, *numbers in segments]
        records += [bytes(48)] * (len(segments) if verified else 0)
        records += [raw_hash(sha256) + bytes(16)] if sha256 is not None else []
    return b"".join(records) + b"\xff" * 32 + bytes(16)
