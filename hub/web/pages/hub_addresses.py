"""Addresses that Hugging Face clients print after an upload, for people who open them: to the page of the adapter or data set.

These routes come last, after the clients' own, and leave out namespaces that are addresses of this hub.
"""

from urllib.parse import unquote

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.convertors import StringConvertor, register_url_convertor

from hub.http.addresses import raw_path
from hub.registry.access.users import RESERVED_NAMES
from hub.web.render import query_string


class OwnerConvertor(StringConvertor):
    regex = rf"(?!(?i:{'|'.join(sorted(RESERVED_NAMES))})/)[^/]+"


register_url_convertor("owner", OwnerConvertor())

router = APIRouter(include_in_schema=False)


@router.get("/{namespace:owner}/{name}")
def module(namespace: str, name: str) -> Response:
    return RedirectResponse(f"/adapters/{namespace}/{name}", status_code=302)


@router.get("/{namespace:owner}/{name}/commit/{rest:path}")
@router.get("/{namespace:owner}/{name}/tree/{rest:path}")
@router.get("/{namespace:owner}/{name}/blob/{rest:path}")
def module_at(request: Request, namespace: str, name: str) -> Response:
    return RedirectResponse(f"/adapters/{namespace}/{name}?{_revision(request, 4)}", status_code=302)


@router.get("/datasets/{namespace}/{name}/commit/{rest:path}")
@router.get("/datasets/{namespace}/{name}/tree/{rest:path}")
@router.get("/datasets/{namespace}/{name}/blob/{rest:path}")
def dataset_at(request: Request, namespace: str, name: str) -> Response:
    return RedirectResponse(f"/datasets/{namespace}/{name}?{_revision(request, 5)}", status_code=302)


def _revision(request: Request, position: int) -> str:
    """The piece of the address after "tree" and its like, read before it is decoded, as a branch may have a "/" in it."""
    pieces = raw_path(request).split("/")
    return query_string({"revision": unquote(pieces[position])})
