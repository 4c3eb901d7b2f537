"""The API's description as a page, and the files that pages load."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from hub.http.identity import ViewerDep
from hub.registry.platform.errors import NotFound
from hub.web.render import STATIC, page

router = APIRouter(include_in_schema=False)


@router.get("/v1/docs")
def api(request: Request, viewer: ViewerDep) -> Response:
    """The API's description as a page of ours: FastAPI's own would fetch its scripts from another server."""
    return page("reference/api.html", viewer, openapi=request.app.openapi())


@router.get("/static/{name}")
def static(name: str, v: str = "") -> Response:
    """A page asks for a file by the hash of its bytes, so it may be kept for ever; without the hash, for five minutes."""
    file = STATIC.get(name)
    if file is None:
        raise NotFound(f"There is no file {name!r}.")
    kept = "max-age=31536000, immutable" if v == file.hash else "max-age=300"
    return FileResponse(file.path, media_type=file.media_type, headers={"Cache-Control": kept})
