"""Preupload, which says how to send each file, and commits as lines of JSON."""

import base64
import binascii
import hashlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from api.huggingface.common import CanWriteRepo, FullName, RepoTypeDep, pieces, repo_url, warn
from api.huggingface.errors import NotOffered
from hub.formats.git import blob_id
from hub.http.identity import ServicesDep, SessionDep
from hub.http.permissions import CanWriteSomewhere
from hub.registry.content import commits, refs, repos, trees
from hub.registry.content.blobs import Incoming
from hub.registry.content.commits import Copied, Deleted, DeletedFolder, Inline, Stored
from hub.registry.content.history import Entry
from hub.registry.content.trees import check_path, is_lfs
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import InvalidInput, TooLarge

router = APIRouter(prefix="/api/{kind}/{namespace}/{name}")

MAX_LINE_BYTES = 16 << 20  # a file of 1 MiB, the most that clients may send inline, has 1.4 MiB in base64
MAX_LINES = 50_000


def refuse_pull_request(create_pr: str | None) -> None:
    if create_pr not in (None, "0", "false", "False"):
        raise NotOffered("This hub has no pull requests: commit to a branch (revision=...) instead, without create_pr.")


class File(BaseModel):
    path: str
    size: int = Field(ge=0)


class Preupload(BaseModel):
    files: list[File] = Field(max_length=10_000)


@router.post("/preupload/{revision:path}")
def preupload(
    session: SessionDep,
    writer: CanWriteRepo,
    revision: str,
    body: Preupload,
    create_pr: str | None = None,
) -> dict[str, Any]:
    """How to send each file, and the revision's present file at its path: clients leave out unchanged files."""
    refuse_pull_request(create_pr)
    commit = repos.resolve(session, writer.repo, revision)
    there = {entry.path: entry for entry in trees.find(session, commit, [file.path for file in body.files])}
    answers: list[dict[str, Any]] = []
    for file in body.files:
        lfs = is_lfs(check_path(file.path), file.size)
        answer = {"path": file.path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
        if entry := there.get(file.path):
            answer["oid"] = entry.sha256 if lfs else entry.git_oid
        answers.append(answer)
    return {"files": answers}


class Header(BaseModel):
    summary: str
    description: str = ""
    parentCommit: str | None = Field(None, pattern=r"^[0-9A-Fa-f]{5,40}$")


class InlineFile(BaseModel):
    path: str
    content: str
    encoding: Literal["base64"] = "base64"


class LfsFile(BaseModel):
    path: str
    oid: str = Field(pattern=r"^[0-9a-f]{64}$")
    algo: Literal["sha256"] = "sha256"
    size: int | None = Field(None, ge=0)


class CopyFile(BaseModel):
    path: str
    srcPath: str
    srcRevision: str | None = None


class Path(BaseModel):
    path: str


class HeaderLine(BaseModel):
    key: Literal["header"]
    value: Header


class FileLine(BaseModel):
    key: Literal["file"]
    value: InlineFile


class LfsLine(BaseModel):
    key: Literal["lfsFile"]
    value: LfsFile


class CopyLine(BaseModel):
    key: Literal["copyFile"]
    value: CopyFile


class DeletedLine(BaseModel):
    key: Literal["deletedFile", "deletedFolder"]
    value: Path


Line = Annotated[HeaderLine | FileLine | LfsLine | CopyLine | DeletedLine, Field(discriminator="key")]
LINE: TypeAdapter[Line] = TypeAdapter(Line)


@router.post("/commit/{revision:path}")
async def commit(
    request: Request,
    response: Response,
    services: ServicesDep,
    writer: CanWriteSomewhere,
    repo_type: RepoTypeDep,
    full_name: FullName,
    revision: str,
    create_pr: str | None = None,
) -> dict[str, Any]:
    """Make a commit. The body goes to disk first, so that only one of its files at a time is in memory."""
    refuse_pull_request(create_pr)

    viewer = writer.viewer

    def make() -> commits.Committed:
        with transaction(services.sessions) as session:
            refs.writable(session, viewer, repo_type, full_name)  # before any of the body is read
        with tempfile.TemporaryFile(prefix="loraloom-commit-") as body:
            for piece in pieces(request):
                body.write(piece)
            described = read_commit(body)
            return commits.commit(
                services, viewer, repo_type, full_name, revision, described.request, described.files()
            )

    committed = await run_in_threadpool(make)
    warn(response, committed.findings)
    address = f"{repo_url(request, repo_type, full_name)}/commit/{committed.commit.id}"
    return {"success": True, "commitOid": committed.commit.id, "commitUrl": address, "hookOutput": ""}


@dataclass(frozen=True)
class Described:
    """A parsed commit, and the offsets of its inline files in the body."""

    request: commits.Request
    body: BinaryIO
    places: list[tuple[int, Entry]]  # offset of the line, what its file is

    def files(self) -> Iterator[Incoming]:
        """The inline files, decoded anew one by one."""
        for offset, entry in self.places:
            self.body.seek(offset)
            line = FileLine.model_validate_json(self.body.readline())
            content = base64.b64decode(line.value.content)
            yield Incoming(entry.path, io.BytesIO(content), entry.size, entry.sha256, entry.git_oid)


def read_commit(body: BinaryIO) -> Described:
    """Check every line of a commit before any of it takes effect. Raises InvalidInput naming the line, TooLarge."""
    header: Header | None = None
    changes: list[commits.Change] = []
    places: list[tuple[int, Entry]] = []
    for number, offset, text in _lines(body):
        line = _parse(number, text)
        match line:
            case HeaderLine():
                if header is not None:
                    raise InvalidInput(f"Line {number} of the commit is a second header; send one.")
                header = line.value
            case FileLine():
                entry = _entry(number, line.value)
                places.append((offset, entry))
                changes.append(Inline(entry))
            case LfsLine():
                changes.append(Stored(check_path(line.value.path), line.value.oid, line.value.size))
            case CopyLine():
                changes.append(Copied(check_path(line.value.path), line.value.srcPath, line.value.srcRevision))
            case DeletedLine(key="deletedFile"):
                changes.append(Deleted(line.value.path))
            case DeletedLine():
                changes.append(DeletedFolder(line.value.path.strip("/")))
    if header is None:
        raise InvalidInput('The commit has no header; its first line is {"key": "header", "value": {"summary": ...}}.')
    message = f"{header.summary}\n\n{header.description}".strip() or "Upload"
    if "\0" in message:
        raise InvalidInput("The commit message holds a NUL character, which cannot be kept; leave it out.")
    return Described(commits.Request(message, changes, header.parentCommit), body, places)


def _lines(body: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and text of each line that is not empty."""
    body.seek(0)
    number = 0
    while True:
        offset = body.tell()
        text = body.readline(MAX_LINE_BYTES + 1)
        if not text:
            return
        number += 1
        if len(text) > MAX_LINE_BYTES or number > MAX_LINES:
            raise TooLarge(
                f"Line {number} of the commit is longer than {MAX_LINE_BYTES:,} bytes, or there are more than {MAX_LINES:,}: "
                "send large files by LFS, and many files in several commits."
            )
        if text.strip():
            yield number, offset, text


def _parse(number: int, text: bytes) -> Line:
    try:
        return LINE.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"Line {number} of the commit cannot be read: {where} {first['msg']}".replace(":  ", ": ")
        ) from None


def _entry(number: int, file: InlineFile) -> Entry:
    try:
        content = base64.b64decode(file.content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(
            f"Line {number} of the commit: the content of {file.path!a} is not base64 ({error})."
        ) from None
    return Entry(check_path(file.path), hashlib.sha256(content).hexdigest(), len(content), blob_id(content))
