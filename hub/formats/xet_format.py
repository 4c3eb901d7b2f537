"""The parts of Xet's formats that an upload needs: xorbs (chunks of many files), shards (the chunks of each file), and their hashes.

From the specification of xet-core (huggingface/xet-core: spec/hashing.md, spec/xorb.md, spec/shard.md). A hash is 32 bytes; its text is
that of four little-endian 64-bit words. The bytes come from strangers: every length is checked before it is used.
"""

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import lz4.frame
from blake3 import blake3

MAX_CHUNK_BYTES = 128 << 10  # of one chunk, unpacked
MAX_XORB_BYTES = 64 << 20  # of all chunks of a xorb, unpacked
MAX_XORB_CHUNKS = 8 << 10
MAX_PACKED_BYTES = MAX_CHUNK_BYTES + (4 << 10)  # LZ4 makes incompressible data a little longer
MAX_FOOTER_BYTES = 1 << 20
MAX_SHARD_BYTES = 64 << 20

CHUNK_KEY = bytes.fromhex("6697f5775b9550de3135cbaca597181c9de421109beb2b58b4d0b04b93adf229")
NODE_KEY = bytes.fromhex("017ec5c7a5472996fd946666b48a02e65ddd536f37c76dd2f86352e64a53713f")
BRANCHES = 4  # children of a node of the tree of hashes, on average

CHUNK_HEADER = 8
FOOTER_MARK = b"XETBLOB"

SHARD_MARK = b"HFRepoMetaData"
SHARD_VERSION = 2
RECORD = 48  # bytes of everything in a shard
END_OF_FILES = b"\xff" * 32
HAS_VERIFICATION, HAS_SHA256 = 1 << 31, 1 << 30


class Malformed(Exception):
    """The bytes violate the format. The message tells the sender what is wrong and where."""


def hash_text(raw: bytes) -> str:
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))


def chunk_hash(data: bytes) -> bytes:
    return blake3(data, key=CHUNK_KEY).digest()


def xorb_hash(chunks: list[tuple[bytes, int]]) -> bytes:
    """The root over (hash, length) of each chunk: groups of neighbours become nodes until one is left."""
    nodes = chunks
    while len(nodes) > 1:
        above, start = [], 0
        while start < len(nodes):
            end = _group_end(nodes, start)
            above.append(_node(nodes[start:end]))
            start = end
        nodes = above
    return nodes[0][0]


def _group_end(nodes: list[tuple[bytes, int]], start: int) -> int:
    """A group ends after the first node, from the third on, whose hash is a multiple of BRANCHES; it has at most 2 * BRANCHES + 1 nodes."""
    last = min(start + 2 * BRANCHES + 1, len(nodes))
    for at in range(start + 2, last):
        if int.from_bytes(nodes[at][0][24:], "little") % BRANCHES == 0:
            return at + 1
    return last


def _node(children: list[tuple[bytes, int]]) -> tuple[bytes, int]:
    text = "".join(f"{hash_text(hash)} : {length}\n" for hash, length in children)
    return blake3(text.encode(), key=NODE_KEY).digest(), sum(length for _, length in children)


class Chunks:
    """Unpacks the chunks of a xorb as its bytes arrive. Of the footer, if there is one, only the size is checked."""

    def __init__(self) -> None:
        self._rest = b""
        self._footer: int | None = None  # bytes of it so far

    def feed(self, piece: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (length in the xorb with its header, unpacked bytes) of each chunk that is now complete. Raises Malformed."""
        data = memoryview(self._rest + piece)
        at = 0
        while self._footer is None and len(data) - at >= CHUNK_HEADER:
            if data[at] != 0:
                self._begin_footer(data[at : at + len(FOOTER_MARK)])
                break
            packed, scheme, length = _chunk_header(data[at : at + CHUNK_HEADER])
            if len(data) - at < CHUNK_HEADER + packed:
                break
            body = data[at + CHUNK_HEADER : at + CHUNK_HEADER + packed]
            at += CHUNK_HEADER + packed
            yield CHUNK_HEADER + packed, _unpack(body, scheme, length)
        if self._footer is None:
            self._rest = bytes(data[at:])
            return
        self._rest = b""
        self._footer += len(data) - at
        if self._footer > MAX_FOOTER_BYTES:
            raise Malformed(f"the footer has more than {MAX_FOOTER_BYTES:,} bytes")

    def end(self) -> None:
        """Raise Malformed if the last chunk is incomplete."""
        if self._rest:
            raise Malformed(f"the last chunk is cut off: {len(self._rest):,} bytes of it are there")

    def _begin_footer(self, mark: memoryview) -> None:
        if bytes(mark) != FOOTER_MARK:
            raise Malformed(f"a chunk of version {mark[0]} is there, and only version 0 is known")
        self._footer = 0


def _chunk_header(header: memoryview) -> tuple[int, int, int]:
    """Packed length, scheme and unpacked length."""
    packed, scheme = int.from_bytes(header[1:4], "little"), header[4]
    length = int.from_bytes(header[5:8], "little")
    if not 0 < length <= MAX_CHUNK_BYTES:
        raise Malformed(f"a chunk is said to have {length:,} bytes, and 1 to {MAX_CHUNK_BYTES:,} are allowed")
    if not 0 < packed <= MAX_PACKED_BYTES:
        raise Malformed(f"a chunk is said to have {packed:,} bytes packed, and 1 to {MAX_PACKED_BYTES:,} are allowed")
    return packed, scheme, length


def _unpack(packed: memoryview, scheme: int, length: int) -> bytes:
    match scheme:
        case 0:
            data = bytes(packed)
        case 1:
            data = _lz4(packed, length)
        case 2:
            data = _ungroup(_lz4(packed, length))
        case _:
            raise Malformed(f"a chunk is packed by scheme {scheme}, and only 0, 1 and 2 are known")
    if len(data) != length:
        raise Malformed(f"a chunk has {len(data):,} bytes, and is said to have {length:,}")
    return data


def _lz4(packed: memoryview, length: int) -> bytes:
    """Unpack at most one byte more than announced, however large the frame is."""
    unpacker = lz4.frame.LZ4FrameDecompressor()
    try:
        data = bytes(unpacker.decompress(packed, max_length=length + 1))
    except RuntimeError as error:
        raise Malformed(f"a chunk is not an LZ4 frame ({error})") from None
    if len(data) <= length and (not unpacker.eof or unpacker.unused_data):
        raise Malformed("a chunk's LZ4 frame does not end where the chunk does")
    return data


def _ungroup(grouped: bytes) -> bytes:
    """Undo scheme 2, which stores bytes 0, 4, 8, ..., then bytes 1, 5, 9, ..., and so on."""
    data = bytearray(len(grouped))
    start = 0
    for offset in range(4):
        end = start + len(range(offset, len(data), 4))
        data[offset::4] = grouped[start:end]
        start = end
    return bytes(data)


class XorbCheck:
    """Checks a xorb as it streams: where its chunks end, packed and unpacked, and the hash of the whole."""

    def __init__(self) -> None:
        self.packed_ends, self.unpacked_ends = array("I"), array("I")
        self._chunks = Chunks()
        self._hashes: list[tuple[bytes, int]] = []

    def feed(self, piece: bytes) -> None:
        """Raises Malformed."""
        for packed, data in self._chunks.feed(piece):
            self.packed_ends.append((self.packed_ends[-1] if self._hashes else 0) + packed)
            self.unpacked_ends.append((self.unpacked_ends[-1] if self._hashes else 0) + len(data))
            self._hashes.append((chunk_hash(data), len(data)))
            if self.unpacked_ends[-1] > MAX_XORB_BYTES or len(self._hashes) > MAX_XORB_CHUNKS:
                raise Malformed(f"it has more than {MAX_XORB_BYTES:,} bytes unpacked, or {MAX_XORB_CHUNKS:,} chunks")

    def end(self) -> str:
        """The xorb's hash. Raises Malformed."""
        self._chunks.end()
        if not self._hashes:
            raise Malformed("it has no chunk")
        return hash_text(xorb_hash(self._hashes))


class Segment(NamedTuple):
    """Chunks `start` to `end` (exclusive) of a xorb, with their length unpacked."""

    xorb: str
    length: int
    start: int
    end: int


@dataclass(frozen=True)
class ShardFile:
    """A file that a shard describes. `sha256` is the sender's claim, None without one."""

    sha256: str | None
    records: bytes

    @property
    def segments(self) -> Iterator[Segment]:
        for xorb, _flags, length, start, end in struct.iter_unpack("<32s4I", self.records):
            yield Segment(hash_text(xorb), length, start, end)


def read_shard(file: BinaryIO) -> Iterator[ShardFile]:
    """Yield the files of a shard. The list of chunks after them is not read. Raises Malformed."""
    size = file.seek(0, 2)
    file.seek(0)

    def take(count: int, what: str) -> bytes:
        if count * RECORD > size - file.tell():
            raise Malformed(f"{what} is cut off, or there are fewer than the {count:,} records announced")
        return file.read(count * RECORD)

    mark, version, _ = struct.unpack("<32s2Q", take(1, "the header"))
    if not mark.startswith(SHARD_MARK) or version != SHARD_VERSION:
        raise Malformed(f"this is not a list of files of version {SHARD_VERSION}")
    while True:
        file_hash, flags, count, _ = struct.unpack("<32s2IQ", take(1, "the list of files"))
        if file_hash == END_OF_FILES:
            return
        segments = take(count, "a file")
        if flags & HAS_VERIFICATION:
            take(count, "a file's verification")
        sha256 = hash_text(take(1, "a file's SHA-256")[:32]) if flags & HAS_SHA256 else None
        yield ShardFile(sha256, segments)
