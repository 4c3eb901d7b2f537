"""Unpack one uploaded .zip, .tar or .tar.gz into plain files, trusting none of its metadata.

Nothing in the archive decides where bytes are written: files are numbered on disk and named only in the mapping that is
returned. Sizes are counted as they come out, since the declared ones are the sender's to choose.
"""

import gzip
import io
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import IO, BinaryIO, TypeVar

from hub.registry.platform.errors import InvalidInput, TooLarge

CHUNK = 1 << 20
MAX_PATH = 500
MAX_PART = 200
_ALLOWED = re.compile(r"[A-Za-z0-9._+ /-]+", re.ASCII)

# Files that macOS adds beside each file, without the sender meaning to send them.
MAC_EXTRAS = re.compile(r"(^|/)(__MACOSX/|\._|\.DS_Store$)")

File = TypeVar("File")


class UnsafePath(InvalidInput):
    code = "unsafe_path"


class BadArchive(InvalidInput):
    """The archive cannot be read: not an archive, damaged, or compressed in a way that is not accepted."""

    code = "bad_archive"


class EncryptedArchive(InvalidInput):
    code = "encrypted_archive"


class NotAPlainFile(InvalidInput):
    """A link, a device or a sparse file, which has no bytes of its own to keep."""

    code = "not_a_plain_file"


class DuplicateName(InvalidInput):
    code = "duplicate_name"


class ArchiveTooLarge(TooLarge):
    code = "archive_too_large"


class TooManyFiles(TooLarge):
    code = "too_many_files"


def safe_path(path: str) -> str:
    """Return the path of a file in a tree unchanged if it is safe. Raises UnsafePath.

    Letters, digits, space and . _ + - are allowed, so that the same tree can be written on any system; no part may be empty,
    consist of dots, or begin or end with a space; and none is .git, whose hooks some later `git` would run.
    """
    parts = path.split("/")
    if not _ALLOWED.fullmatch(path) or len(path) > MAX_PATH:
        raise UnsafePath(
            f"The file name {path[:MAX_PATH]!a} cannot be kept: use letters, digits, space and . _ + - "
            f"(and / between folders), at most {MAX_PATH} characters."
        )
    if any(
        not part.strip(".") or part != part.strip() or len(part) > MAX_PART or part.lower() == ".git" for part in parts
    ):
        raise UnsafePath(
            f"The path {path!a} cannot be kept: it must be relative, and no part of it may be empty, dots only, .git, "
            f"longer than {MAX_PART} characters, or begin or end with a space."
        )
    return path


def unpack(file: BinaryIO, name: str, *, limit_bytes: int, limit_files: int, into: Path) -> dict[str, Path]:
    """Path in the archive -> file in the existing folder `into`. One folder around everything is stripped.

    The ending of `name` decides the archive's format. At most `limit_files` files of `limit_bytes` bytes in all are written.
    Raises the classes above; files already written stay in `into`, whose owner removes it.
    """
    members = (
        _zip_members(file, limit_files) if name.lower().endswith(".zip") else _tar_members(file, name, limit_files)
    )
    file.seek(0)
    written: dict[str, Path] = {}
    left = limit_bytes
    with closing(members):
        try:
            for path, stream in members:
                is_content = not MAC_EXTRAS.search(path)
                if is_content and safe_path(path) in written:
                    raise DuplicateName(f"{name} holds {path!r} twice; pack each file once.")
                if len(written) == limit_files:
                    raise TooManyFiles(f"{name} holds more than {limit_files} files; send only the adapter's own.")
                target = into / f"{len(written):06d}"
                left -= _write(stream, target, left)
                if left < 0:
                    raise ArchiveTooLarge(f"{name} unpacks to more than {limit_bytes} bytes, the most accepted.")
                if is_content:
                    written[path] = target
                else:
                    target.unlink()  # written first, so that its bytes are counted
        except _DAMAGE as error:
            raise BadArchive(
                f"{name} cannot be unpacked ({error}); pack it again as a plain .zip or .tar.gz."
            ) from error
    return without_top(written)


# Errors that zipfile, tarfile, gzip and zlib raise for damaged input.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RecursionError,
    ValueError,
)


class _Bounded(io.RawIOBase):
    """A file that refuses reads of more than `limit` bytes at once.

    zipfile reads the whole directory of an archive, and tarfile a whole extended header, in one read of a length that the archive states.
    """

    def __init__(self, file: BinaryIO | gzip.GzipFile, limit: int) -> None:
        self.file, self.limit = file, limit

    def read(self, length: int = -1) -> bytes:
        if length > self.limit:
            raise EOFError(f"its directory or a header claims {length} bytes")
        return self.file.read(length if length >= 0 else self.limit)  # zipfile asks so for the last 64 KiB alone

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0 and offset < 0:
            raise EOFError("it points before its own start")
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def _zip_members(file: BinaryIO, limit_files: int) -> Generator[tuple[str, IO[bytes]], None, None]:
    # An entry of the directory has 46 bytes and a name or two; with room for folders and for what a Mac adds.
    with zipfile.ZipFile(_Bounded(file, CHUNK + 2_000 * limit_files)) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16
            if info.flag_bits & 1:
                raise EncryptedArchive(
                    f"{info.orig_filename[:MAX_PATH]!a} is encrypted; pack the files without a password."
                )
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise NotImplementedError(
                    f"compression method {info.compress_type}"
                )  # some can ask for gigabytes of memory
            if info.orig_filename.endswith("/"):
                continue
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise _not_plain(info.orig_filename)
            with archive.open(info) as stream:
                yield info.orig_filename, stream


def _tar_members(file: BinaryIO, name: str, limit_files: int) -> Generator[tuple[str, IO[bytes]], None, None]:
    zipped = name.lower().endswith((".gz", ".tgz"))
    plain = gzip.GzipFile(fileobj=file, mode="rb") if zipped else file
    with tarfile.open(fileobj=_Bounded(plain, CHUNK), mode="r:") as archive:
        for count, member in enumerate(archive):
            if (
                count > 4 * limit_files + 1_000
            ):  # folders cost the sender nothing, and us the memory that tarfile keeps of each
                raise TooManyFiles(f"{name} holds too many entries; send only the adapter's own files.")
            if member.isdir():
                continue
            stream = archive.extractfile(member) if member.isreg() and not member.issparse() else None
            if stream is None:
                raise _not_plain(member.name)
            yield member.name, stream


def _not_plain(name: str) -> NotAPlainFile:
    return NotAPlainFile(f"{name[:MAX_PATH]!a} is a link, a device or a sparse file; pack the file itself.")


def _write(stream: IO[bytes], target: Path, limit: int) -> int:
    """Write the stream to a new file; stops as soon as it has given more than `limit` bytes. Returns how many it gave."""
    size = 0
    with target.open("xb") as out:
        while size <= limit and (chunk := stream.read(CHUNK)):
            size += len(chunk)
            out.write(chunk)
    return size


def without_top(written: Mapping[str, File]) -> dict[str, File]:
    """Strip the one folder around everything, if there is one. Raises DuplicateName for names that one disk cannot hold."""
    tops = {path.partition("/")[0] for path in written}
    nested = len(tops) == 1 and all("/" in path for path in written)
    named = {path.partition("/")[2] if nested else path: file for path, file in written.items()}
    _refuse_clashes(named)
    return named


def _refuse_clashes(paths: Iterable[str]) -> None:
    """Refuse two names that one disk cannot hold: equal but for case, or a file where another path has a folder."""
    seen: dict[str, str] = {}
    for path in paths:
        other = seen.setdefault(path.casefold(), path)
        if other != path:
            raise DuplicateName(f"{other!r} and {path!r} differ only in case; rename one of them.")
    for path in seen.values():
        words = path.casefold().split("/")
        if any("/".join(words[:end]) in seen for end in range(1, len(words))):
            raise DuplicateName(f"{path!r} lies in a folder that is also the name of a file; rename one of them.")
