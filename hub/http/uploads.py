"""A multipart body -> files on disk, named by safe paths. The caller has been identified before the first byte is read."""

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from hub.registry.content import blobs
from hub.registry.content.blobs import Incoming
from hub.registry.inspection import archive
from hub.registry.platform.errors import InvalidInput

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_FILES = 1_000


class NoFiles(InvalidInput):
    code = "no_files"


@dataclass(frozen=True)
class Upload:
    fields: Mapping[str, str]
    files: list[Incoming]


@asynccontextmanager
async def read_upload(request: Request, limit_bytes: int) -> AsyncIterator[Upload]:
    """The form's fields and its files, hashed. One .zip or .tar instead of files is unpacked; all is removed at the end."""
    with ExitStack() as stack:
        async with request.form(max_files=MAX_FILES, max_fields=20) as form:
            fields = {key: value for key, value in form.multi_items() if isinstance(value, str)}
            # A form sends a part without a file's name for each field where nothing was chosen.
            parts = [value for _, value in form.multi_items() if isinstance(value, UploadFile) and value.filename]
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loraloom-upload-")))
            files = await run_in_threadpool(_hash_parts, parts, folder, stack, limit_bytes)
            if not files:
                raise NoFiles("The upload has no files; send them as parts named `files`, or one .zip or .tar.")
            yield Upload(fields, files)


def _hash_parts(parts: list[UploadFile], folder: Path, stack: ExitStack, limit_bytes: int) -> list[Incoming]:
    if len(parts) == 1 and (parts[0].filename or "").endswith(ARCHIVES):
        name = parts[0].filename or ""
        unpacked = archive.unpack(parts[0].file, name, limit_bytes=limit_bytes, limit_files=MAX_FILES, into=folder)
        return [blobs.hash_file(path, stack.enter_context(file.open("rb"))) for path, file in unpacked.items()]
    named = {archive.safe_path(part.filename or ""): part for part in parts}
    if len(named) < len(parts):
        raise InvalidInput("Two files of the upload have the same name; send each once.")
    return [blobs.hash_file(path, part.file) for path, part in named.items()]
