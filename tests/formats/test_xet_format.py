"""Xet's formats: what is read back, and what is refused before it can cost anything."""

import contextlib
import io
import random
import struct
import tracemalloc

import lz4.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.formats import xet_format
from hub.formats.xet_format import Chunks, Malformed, XorbCheck, hash_text, read_shard, xorb_hash
from tests.support.xet import chunk, name, raw_hash, shard

HASHES = [f"{number:064x}" for number in (1, 2, 3)]


def unpacked(data: bytes, step: int) -> list[bytes]:
    chunks = Chunks()
    found = [one for at in range(0, len(data), step) for _, one in chunks.feed(data[at : at + step])]
    chunks.end()
    return found


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=70), st.integers(0, 2)), min_size=1, max_size=12),
    st.integers(1, 200),
    st.sampled_from([b"", b"XETBLOB" + bytes(40)]),
)
def test_chunks_come_back_however_they_are_packed_and_cut(
    given_chunks: list[tuple[bytes, int]], step: int, footer: bytes
) -> None:
    contents = [data for data, _ in given_chunks]
    packed = [chunk(data, scheme) for data, scheme in given_chunks]
    assert unpacked(b"".join(packed) + footer, step) == contents
    check = XorbCheck()
    for at in range(0, len(b"".join(packed)), step):
        check.feed(b"".join(packed)[at : at + step])
    assert check.end() == name(contents)
    assert list(check.packed_ends) == [len(b"".join(packed[: n + 1])) for n in range(len(packed))]
    assert list(check.unpacked_ends) == [len(b"".join(contents[: n + 1])) for n in range(len(contents))]


def test_hashes() -> None:
    """How a hash is written, and that of one chunk; the tree over many is tested by what real clients send."""
    assert hash_text(bytes(range(32))) == "07060504030201000f0e0d0c0b0a090817161514131211101f1e1d1c1b1a1918"
    assert hash_text(raw_hash(HASHES[1])) == HASHES[1]
    one = [(raw_hash(HASHES[0]), 5)]
    assert xorb_hash(one) == raw_hash(HASHES[0])


def test_groups_end_at_a_multiple_of_four_or_after_nine() -> None:
    even, odd = (raw_hash(f"{0:063x}4"), 1), (raw_hash(f"{0:063x}5"), 1)
    ends = [
        ([odd] * 20, 9),
        ([even] * 20, 3),
        ([odd, even, odd, odd, even, odd], 5),
        ([odd] * 4, 4),
        ([even, even], 2),
    ]
    for nodes, end in ends:
        assert xet_format._group_end(nodes, 0) == end


BOMB = lz4.frame.compress(bytes(200 << 20))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (chunk(b"abc", said=4), "has 3 bytes, and is said to have 4"),
        (chunk(b"abc", said=0), "1 to 131,072"),
        (chunk(b"abc", said=131_073), "1 to 131,072"),
        (chunk(b"abc", 3), "scheme 3"),
        (chunk(b"abc", 1, packed=b"not a frame"), "not an LZ4 frame"),
        (chunk(b"abc", 1, packed=lz4.frame.compress(b"abc")[:-3]), "does not end"),
        (chunk(b"abc", 1, packed=lz4.frame.compress(b"abc") + b"more"), "does not end"),
        (chunk(b"a" * 100, 1, packed=lz4.frame.compress(b"a" * 5_000)), "101 bytes"),
        (chunk(b"abc", packed=b""), "0 bytes packed"),
        (chunk(b"abc", packed=bytes(140_000)), "140,000 bytes packed"),
        (chunk(b"abc", version=1), "version 1"),
        (chunk(b"abc")[:-1], "cut off"),
        (chunk(b"abc") + b"\0\1", "cut off"),
        (chunk(b"abc") + b"XETBLAB" + bytes(9), "version 88"),
        (chunk(b"abc") + b"XETBLOB" + bytes(2 << 20), "footer"),
    ],
    ids=range(15),
)
def test_what_is_no_xorb_is_refused(data: bytes, sentence: str) -> None:
    for step in (7, len(data)):
        with pytest.raises(Malformed, match=sentence):
            unpacked(data, step)


def test_a_bomb_is_not_unpacked() -> None:
    """200 MB of zeros in less than a megabyte, cut to what a chunk may have packed."""
    bomb = chunk(bytes(100), 1, packed=BOMB[: xet_format.MAX_PACKED_BYTES], said=xet_format.MAX_CHUNK_BYTES)
    tracemalloc.start()
    with pytest.raises(Malformed, match="131,073 bytes"):
        unpacked(bomb, len(bomb))
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_a_xorb_has_its_limits() -> None:
    check = XorbCheck()
    zeros = chunk(bytes(xet_format.MAX_CHUNK_BYTES), 1)
    with pytest.raises(Malformed, match="more than 67,108,864 bytes"):
        check.feed(zeros * 513)
    check = XorbCheck()
    with pytest.raises(Malformed, match="8,192 chunks"):
        check.feed(chunk(b"a") * 8_193)
    with pytest.raises(Malformed, match="no chunk"):
        XorbCheck().end()


@pytest.mark.parametrize("verified", [False, True])
def test_a_shard_lists_its_files(verified: bool) -> None:
    files = [(HASHES[0], [(HASHES[1], 10, 0, 2), (HASHES[2], 7, 3, 4)]), (None, [(HASHES[1], 1, 0, 1)])]
    found = list(read_shard(io.BytesIO(shard(*files, verified=verified) + bytes(500))))
    assert [(file.sha256, [tuple(segment) for segment in file.segments]) for file in found] == files


def test_a_shard_that_lies_is_refused() -> None:
    good = shard((HASHES[0], [(HASHES[1], 10, 0, 2)]))
    many = bytearray(good)
    struct.pack_into("<I", many, 48 + 36, 2**32 - 1)
    for bad, sentence in [
        (b"", "header is cut off"),
        (good[:40], "header is cut off"),
        (bytes(len(good)), "not a list of files"),
        (shard(version=3), "not a list of files of version 2"),
        (bytes(many), "fewer than the 4,294,967,295 records"),
        (good[:-48], "list of files is cut off"),
    ]:
        with pytest.raises(Malformed, match=sentence):
            list(read_shard(io.BytesIO(bad)))
    source = random.Random(0)
    for _ in range(300):  # whatever is damaged is refused, or read as something else, and nothing worse
        damaged = bytearray(good)
        damaged[source.randrange(len(good))] ^= 1 << source.randrange(8)
        with contextlib.suppress(Malformed):
            list(read_shard(io.BytesIO(bytes(damaged))))
