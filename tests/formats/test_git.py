"""Blob ids are those of `git hash-object`."""

import pytest

from hub.formats.errors import FormatError
from hub.formats.git import blob_hasher, blob_id, refuse_pointer


def test_blob_ids_are_gits() -> None:
    assert blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert blob_id(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_a_file_hashed_in_pieces_has_the_same_id() -> None:
    hasher = blob_hasher(6)
    hasher.update(b"hel")
    hasher.update(b"lo\n")
    assert hasher.hexdigest() == blob_id(b"hello\n")


def test_a_pointer_of_lfs_is_refused() -> None:
    refuse_pointer(b"{}", "config")
    with pytest.raises(FormatError, match="Git LFS pointer"):
        refuse_pointer(b"version https://git-lfs.github.com/spec/v1\noid", "config")
