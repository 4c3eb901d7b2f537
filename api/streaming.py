"""Bytes on their way out: one file with ranges, or a folder as a zip, streamed from S3 with nothing held in memory."""

import io
import re
import zipfile
from collections.abc import Generator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from fastapi.responses import RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from hub.registry.models.content import Commit, TreeEntry
from hub.registry.platform.errors import HubError
from hub.registry.platform.storage import Storage

RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class RangeNotSatisfiable(HubError):
    status, code = 416, "range_not_satisfiable"


class Streamed(StreamingResponse):
    """Bytes as they come. A client who goes away at any piece leaves no connection or thread behind: their source is closed at once."""

    def __init__(
        self, pieces: Generator[bytes], media_type: str, headers: Mapping[str, str], status: int = 200
    ) -> None:
        super().__init__(pieces, status, headers, media_type)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._pieces.close()


def send_file(storage: Storage, entry: TreeEntry, commit: Commit, range_header: str | None) -> Response:
    """The file, or the part a Range header asks for. Through S3's public address where there is one."""
    headers = file_headers(commit.id, entry.path, entry.sha256)
    address = storage.presigned_url(entry.sha256, entry.path.rpartition("/")[2])
    if address:
        return RedirectResponse(address, status_code=302, headers=headers)
    start, end = parse_range(range_header, entry.size)
    status = 200
    if (start, end) != (0, entry.size):
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{entry.size}"
    headers["Content-Length"] = str(end - start)
    body = storage.stream(entry.sha256, start, end)
    return Streamed(body, "application/octet-stream", headers, status)


def file_headers(commit_id: str, path: str, etag: str) -> dict[str, str]:
    """The headers of a file's bytes, and of a redirect to them."""
    return {
        "X-Repo-Commit": commit_id,
        "ETag": f'"{etag}"',
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.rpartition('/')[2])}",
        # Uploaded bytes are data, whatever they look like: no browser may run them as a page of this hub.
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
    }


def parse_range(header: str | None, size: int) -> tuple[int, int]:
    """One byte range -> (start, end), end exclusive. Anything but one range means the whole file, as RFC 9110 allows."""
    match = RANGE.fullmatch(header.strip()) if header else None
    if match is None or not any(match.groups()):
        return 0, size
    first, last = match.groups()
    if first == "":
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
    if start >= end:
        raise RangeNotSatisfiable(f"The range {header} lies outside the file's {size} bytes.")
    return start, end


def send_zip(storage: Storage, name: str, entries: Sequence[TreeEntry]) -> Response:
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}.zip"}
    return Streamed(stream_zip(storage, entries), "application/zip", headers)


class Sink(io.RawIOBase):
    """What zipfile writes into: it keeps what was written until it is taken. Not seekable, so zipfile streams."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self.pieces)
        self.pieces.clear()
        return taken


def stream_zip(storage: Storage, entries: Sequence[TreeEntry]) -> Generator[bytes]:
    """A zip of the files, stored without compression: weights do not shrink. The same files give the same bytes."""
    sink = Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for entry in entries:
            info = zipfile.ZipInfo(entry.path)  # dated 1980-01-01, as no file here has a time of its own
            info.file_size = entry.size
            with archive.open(info, "w", force_zip64=entry.size > 2**31) as file:
                for chunk in storage.stream(entry.sha256, 0, entry.size):
                    file.write(chunk)
                    yield sink.take()
    yield sink.take()
