"""The API's description as a page, and the files that pages load."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from hub.http.identity import ViewerDep
from hub.registry.platform.errors import NotFound
from hub.web.render import STATIC, Page, render

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class ApiPage(Page, template="reference/api.html"):
    """The API's description."""

    openapi: Mapping[str, object]  # as /v1/openapi.json has it


@router.get("/v1/docs")
def api(request: Request, viewer: ViewerDep) -> Response:
    """The API's description as a page of ours: FastAPI's own would fetch its scripts from another server."""
    return render(ApiPage(request.app.openapi()), viewer)


@router.get("/static/{name}")
def static(name: str, v: str = "") -> Response:
    """Pages name a file by the hash of its bytes, so browsers may cache it for ever; without the hash, for five minutes."""
    file = STATIC.get(name)
    if file is None:
        raise NotFound(f"There is no file {name!r}.")
    caching = "max-age=31536000, immutable" if v == file.hash else "max-age=300"
    return FileResponse(file.path, media_type=file.media_type, headers={"Cache-Control": caching})
