"""The first page: every module that one may see, searched as one types, by facets, in several orders."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response

from hub.http.identity import SessionDep, ViewerDep
from hub.registry.library.facets import Facets, facets
from hub.registry.library.search import Filters, Sort, search
from hub.vocabulary import Visibility
from hub.web.render import page, query

router = APIRouter(include_in_schema=False)

LISTED = 30  # what keeps the page below 100 kB

# Facet -> the field of an address that chooses a value of it, and what people call it.
FIELDS = {
    "base": ("base_model", "Base model"),
    "task": ("task", "Task"),
    "method": ("method", "Method"),
    "tag": ("tag", "Tag"),
    "owner": ("owner", "Owner"),
    "visibility": ("visibility", "Visible to"),
}


@dataclass(frozen=True)
class Asked:
    """What an address of the list asks for, and the addresses that ask for a little more or less."""

    q: str
    base_model: str
    method: str
    task: str
    owner: str
    visibility: str
    rank: str
    tag: tuple[str, ...]
    sort: Sort

    @property
    def filters(self) -> Filters:
        return Filters(
            base_model=self.base_model or None,
            method=self.method or None,
            task=self.task or None,
            rank=int(self.rank) if self.rank else None,
            tag=self.tag,
            text=self.q or None,
            owner=self.owner or None,
            visibility=self.visibility or None,  # type: ignore[arg-type]
        )

    @property
    def fields(self) -> dict[str, Any]:
        """For an address, without what is as it is anyway."""
        return {**vars(self), "sort": "" if self.sort == "newest" else self.sort}

    def address(self, path: str = "/", **changed: Any) -> str:
        asked = query({**self.fields, **changed})
        return f"{path}?{asked}" if asked else path

    def chosen(self) -> Sequence[tuple[str, str, str]]:
        """Each filter: what it is of, its value, and the address without it."""
        found = [
            (name, vars(self)[field], self.address(**{field: ""}))
            for field, name in FIELDS.values()
            if field != "tag" and vars(self)[field]
        ]
        if self.rank:
            found.append(("Rank", self.rank, self.address(rank="")))
        return found + [("Tag", tag, self.address(tag=[each for each in self.tag if each != tag])) for tag in self.tag]

    def toggled(self, facet: str, value: str) -> str:
        """The address that chooses a facet's value, or no longer does."""
        if facet == "tag":
            rest = [tag for tag in self.tag if tag != value]
            return self.address(tag=rest if value in self.tag else [*rest, value])
        field = FIELDS[facet][0]
        return self.address(**{field: "" if vars(self)[field] == value else value})

    def has(self, facet: str, value: str) -> bool:
        return value in self.tag if facet == "tag" else bool(vars(self)[FIELDS[facet][0]] == value)


def asked(
    q: Annotated[str, Query(max_length=200)] = "",
    base_model: Annotated[str, Query(max_length=500)] = "",
    method: Annotated[str, Query(max_length=40)] = "",
    task: Annotated[str, Query(max_length=40)] = "",
    owner: Annotated[str, Query(max_length=96)] = "",
    visibility: Visibility | Literal[""] = "",
    rank: Annotated[str, Query(pattern=r"^\d{0,6}$")] = "",
    tag: Annotated[list[str], Query(max_length=20)] = [],  # noqa: B006 - FastAPI copies it
    sort: Sort = "newest",
) -> Asked:
    tags = tuple(dict.fromkeys(each for each in tag if each))
    return Asked(q.strip(), base_model, method, task, owner, visibility, rank, tags, sort)


AskedDep = Annotated[Asked, Depends(asked)]


@router.get("/")
def modules(
    session: SessionDep, viewer: ViewerDep, asked: AskedDep, cursor: str = "", filters: bool = False
) -> Response:
    """`filters`: with the facets in the page itself, for browsers that run no scripts, which load them apart."""
    found = search(session, viewer, asked.filters, sort=asked.sort, limit=LISTED, cursor=cursor or None)
    shown: Facets | None = facets(session, viewer, asked.filters) if filters else None
    return page("modules/list.html", viewer, page=found, asked=asked, cursor=cursor, facets=shown, fields=FIELDS)


@router.get("/facets")
def choices(session: SessionDep, viewer: ViewerDep, asked: AskedDep) -> Response:
    """The facets alone, to be put into the list's page."""
    found = facets(session, viewer, asked.filters)
    return page("modules/facets.html", viewer, asked=asked, facets=found, fields=FIELDS)
