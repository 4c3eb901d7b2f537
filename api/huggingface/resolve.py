"""Downloads: /{namespace}/{name}/resolve/{revision}/{path}, with the file's metadata in the headers."""

from collections.abc import Callable, Generator
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import RedirectResponse

from api.huggingface.common import FullName, revision_and_path
from api.huggingface.upstream_proxy import serves
from api.streaming import RANGE, Streamed, file_headers, parse_range
from hub.http.identity import ServicesDep, identify
from hub.registry.content import refs
from hub.registry.content.trees import is_lfs
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import RepoNotFound
from hub.registry.platform.services import Services
from hub.vocabulary import RepoType

router = APIRouter()


@router.api_route("/datasets/{namespace}/{name}/resolve/{rest:path}", methods=["GET", "HEAD"])
def resolve_dataset(
    request: Request,
    services: ServicesDep,
    full_name: FullName,
    range_header: Annotated[str | None, Header(alias="Range")] = None,
) -> Response:
    return _resolve(request, services, "dataset", full_name, range_header)


@router.api_route("/{namespace}/{name}/resolve/{rest:path}", methods=["GET", "HEAD"])
def resolve_model(
    request: Request,
    services: ServicesDep,
    full_name: FullName,
    range_header: Annotated[str | None, Header(alias="Range")] = None,
) -> Response:
    return _resolve(request, services, "model", full_name, range_header)


@router.api_route("/{name}/resolve/{rest:path}", methods=["GET", "HEAD"])
def resolve_without_namespace(name: str) -> Response:
    raise RepoNotFound(f"There is no repo {name!r}: every repo of this hub has a namespace before its name.")


def _resolve(
    request: Request,
    services: Services,
    repo_type: RepoType,
    full_name: str,
    range_header: str | None,
) -> Response:
    """Serve a file. ETags are those of the Hub: the SHA-256 of an LFS file, git's blob id of any other."""
    revision, path = revision_and_path(request, "resolve")
    storage = services.storage
    try:
        with transaction(services.sessions) as session:  # one for both, as no other request is made as often
            viewer = identify(request, session)
            commit_id, entry = refs.find_file(session, viewer, repo_type, full_name, revision, path)
    except RepoNotFound:
        if not serves(request):
            raise
        upstream = services.upstream
        file = upstream.file(repo_type, full_name, revision, path)
        pieces = partial(upstream.stream, repo_type, full_name, path, file)
        return _send(request, file.commit, path, file.etag, file.size, pieces, range_header)
    etag = entry.sha256 if is_lfs(path, entry.size) else entry.git_oid
    address = storage.presigned_url(entry.sha256, path.rpartition("/")[2])
    if address:
        # Of a redirect clients read these instead, as its own length and the ETag that S3 gives mean something else.
        linked = {"X-Linked-Size": str(entry.size), "X-Linked-ETag": f'"{etag}"'}
        return RedirectResponse(address, status_code=302, headers=file_headers(commit_id, path, etag) | linked)
    pieces = partial(storage.stream, entry.sha256)
    return _send(request, commit_id, path, etag, entry.size, pieces, range_header)


def _send(
    request: Request,
    commit_id: str,
    path: str,
    etag: str,
    size: int,
    pieces: Callable[[int, int], Generator[bytes]],
    range_header: str | None,
) -> Response:
    headers = file_headers(commit_id, path, etag)
    start, end = parse_range(range_header, size)
    status = 200
    # Also where the range is the whole: Rust clients read the size there.
    if range_header and RANGE.fullmatch(range_header.strip()):
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type="application/octet-stream")
    body = pieces(start, end)
    return Streamed(body, "application/octet-stream", headers, status)
