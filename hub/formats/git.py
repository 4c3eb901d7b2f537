"""What Git makes of a file: its blob id, and the pointer that Git LFS leaves in place of a large file."""

import hashlib
from typing import TYPE_CHECKING

from hub.formats.errors import FormatError

if TYPE_CHECKING:
    from hashlib import _Hash

LFS_POINTER_START = b"version https://git-lfs.github.com/spec/v1"


def blob_hasher(size: int) -> "_Hash":
    """A hasher whose digest is the Git blob id, once it has been fed the `size` bytes of the file."""
    return hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)


def blob_id(content: bytes) -> str:
    """The Git blob id of these bytes, as hex."""
    hasher = blob_hasher(len(content))
    hasher.update(content)
    return hasher.hexdigest()


def refuse_pointer(start: bytes, what: str) -> None:
    """Raise FormatError (lfs_pointer) if a file starts like a Git LFS pointer."""
    if start.startswith(LFS_POINTER_START):
        fault = f"This is a Git LFS pointer, not the {what}"
        raise FormatError("lfs_pointer", fault, "run `git lfs pull` and upload the file that it fetches")
