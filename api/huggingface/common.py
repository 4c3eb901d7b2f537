"""Common parts of the Hugging Face routes: kinds of repo, names and revisions in paths, this hub's address, times and warnings."""

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from typing import Annotated
from urllib.parse import unquote, urlencode

from anyio import from_thread
from fastapi import Depends, Request, Response
from starlette.requests import ClientDisconnect

from hub.http.addresses import raw_path, root_url
from hub.http.identity import SessionDep, SignedIn
from hub.registry.content import refs
from hub.registry.content.repo_visibility import parse_visibility
from hub.registry.content.repos import WriteRepo
from hub.registry.inspection.findings import Finding
from hub.registry.platform.errors import InvalidInput, NotFound
from hub.vocabulary import RepoType, Visibility

PIECE = 1 << 20
MAX_WARNINGS = 10


# Async, as FastAPI gives a thread to each dependency that is not.
async def get_repo_type(kind: str) -> RepoType:
    if kind == "models":
        return "model"
    if kind == "datasets":
        return "dataset"
    raise NotFound(f"There is nothing at this address: this hub has models and data sets, and no {kind[:100]!r}.")


RepoTypeDep = Annotated[RepoType, Depends(get_repo_type)]  # for routes below /api/{kind}/{namespace}/{name}


async def get_full_name(namespace: str, name: str) -> str:
    return f"{namespace}/{name}"


FullName = Annotated[str, Depends(get_full_name)]


def write_repo(session: SessionDep, viewer: SignedIn, repo_type: RepoTypeDep, full_name: FullName) -> WriteRepo:
    return refs.writable(session, viewer, repo_type, full_name)


CanWriteRepo = Annotated[WriteRepo, Depends(write_repo)]


def revision_and_path(request: Request, word: str) -> tuple[str, str]:
    """Revision and path behind a `word` such as /tree/ in the address. Both may hold %2F, so it is read before it is decoded."""
    raw = raw_path(request)
    parts = raw.split("/")
    # Behind the namespace and name, either of which could be that word too.
    start = parts.index(word, 5 if parts[1] == "api" else 4 if parts[1] == "datasets" else 3) + 1
    return unquote(parts[start]), "/".join(unquote(part) for part in parts[start + 1 :]).strip("/")


def repo_url(request: Request, repo_type: RepoType, full_name: str) -> str:
    return f"{root_url(request)}/{'datasets/' if repo_type == 'dataset' else ''}{full_name}"


def link_next(request: Request, response: Response, cursor: str | None) -> None:
    """Add a Link header to the next page, if there is one: the same request with another cursor."""
    if cursor is not None:
        parameters = [(key, value) for key, value in request.query_params.multi_items() if key != "cursor"]
        query = urlencode([*parameters, ("cursor", cursor)])
        path = raw_path(request)
        response.headers["Link"] = f'<{root_url(request)}{path}?{query}>; rel="next"'


def time(at: datetime) -> str:
    """A time in UTC, in the one format that clients parse."""
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"


def header_text(text: str) -> str:
    return " ".join(text.encode("ascii", "replace").decode().split())


def warn(response: Response, findings: Sequence[Finding]) -> None:
    """Send findings as headers, which clients print, each code once a process."""
    for finding in [finding for finding in findings if finding.severity != "info"][:MAX_WARNINGS]:
        where = f"{finding.path}: " if finding.path else ""
        warn_text(response, finding.code, f"{where}{finding.message} {finding.remedy}")


def warn_text(response: Response, topic: str, text: str) -> None:
    response.headers.append("X-HF-Warning", header_text(f"{topic}; {text}"))


def visibility(name: str | None, private: bool | None) -> Visibility | None:
    """The requested visibility. Clients before 2.x send `private` instead; None leaves it to the hub."""
    if name is None:
        return None if private is None else "private" if private else "public"
    return parse_visibility(name)


def pieces(request: Request) -> Iterator[bytes]:
    """The body as a stream for a worker thread, in pieces of about a megabyte."""
    stream = request.stream()
    while piece := from_thread.run(_gather, stream):
        yield piece


async def _gather(stream: AsyncIterator[bytes]) -> bytes:
    gathered = bytearray()
    try:
        async for piece in stream:
            gathered += piece
            if len(gathered) >= PIECE:
                break
    except ClientDisconnect:
        raise InvalidInput("The connection ended before the body did; send it again.") from None
    return bytes(gathered)
