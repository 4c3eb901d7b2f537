"""The first page: every module that one may see, searched and sorted."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from hub.http import SessionDep, ViewerDep
from hub.registry import search
from hub.registry.search import Filters
from hub.web.render import page

router = APIRouter(include_in_schema=False)


@router.get("/")
def adapters(
    session: SessionDep,
    viewer: ViewerDep,
    q: Annotated[str, Query(max_length=200)] = "",
    base_model: str = "",
    method: str = "",
    owner: str = "",
    tag: str = "",
    rank: Annotated[str, Query(pattern=r"^\d{0,6}$")] = "",
    cursor: str | None = None,
) -> Response:
    filters = Filters(
        base_model=base_model or None,
        method=method or None,
        rank=int(rank) if rank else None,
        tag=[tag] if tag else (),
        text=q or None,
        owner=owner or None,
    )
    found = search.search(session, viewer, filters, limit=50, cursor=cursor)
    asked = {"q": q, "base_model": base_model, "method": method, "owner": owner, "tag": tag, "rank": rank}
    following = {**{key: value for key, value in asked.items() if value}, "cursor": found.cursor}
    return page("adapters.html", viewer, page=found, asked=asked, following=following)
