"""The first page: every adapter that the viewer may see, searched while they type, by facets, in several orders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response

from hub.http.identity import SessionDep, ViewerDep
from hub.registry.library.facets import Facets, facets
from hub.registry.library.search import Filters, Hit, Sort, search
from hub.vocabulary import Visibility
from hub.web.render import Page, query_string, render

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
class ChosenFilter:
    """A filter in force, and the address of the list without it."""

    name: str
    value: str
    address_without: str


@dataclass(frozen=True)
class Listing:
    """The search, filters and order of the list, and the addresses of lists that differ in one of them."""

    q: str
    base_model: str
    method: str
    task: str
    owner: str
    visibility: Visibility | Literal[""]
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
            visibility=self.visibility or None,
        )

    @property
    def fields(self) -> Mapping[str, object]:
        """Query parameters, omitting the default order."""
        return {**vars(self), "sort": "" if self.sort == "newest" else self.sort}

    def address(self, path: str = "/", **changed: object) -> str:
        query = query_string({**self.fields, **changed})
        return f"{path}?{query}" if query else path

    def chosen(self) -> Sequence[ChosenFilter]:
        chosen = [
            ChosenFilter(name, vars(self)[field], self.address(**{field: ""}))
            for field, name in FIELDS.values()
            if field != "tag" and vars(self)[field]
        ]
        if self.rank:
            chosen.append(ChosenFilter("Rank", self.rank, self.address(rank="")))
        for tag in self.tag:
            rest = [other for other in self.tag if other != tag]
            chosen.append(ChosenFilter("Tag", tag, self.address(tag=rest)))
        return chosen

    def toggled(self, facet: str, value: str) -> str:
        """The address that chooses a facet's value, or no longer does."""
        if facet == "tag":
            rest = [tag for tag in self.tag if tag != value]
            return self.address(tag=rest if value in self.tag else [*rest, value])
        field = FIELDS[facet][0]
        return self.address(**{field: "" if vars(self)[field] == value else value})

    def has(self, facet: str, value: str) -> bool:
        return value in self.tag if facet == "tag" else bool(vars(self)[FIELDS[facet][0]] == value)


def listing(
    q: Annotated[str, Query(max_length=200)] = "",
    base_model: Annotated[str, Query(max_length=500)] = "",
    method: Annotated[str, Query(max_length=40)] = "",
    task: Annotated[str, Query(max_length=40)] = "",
    owner: Annotated[str, Query(max_length=96)] = "",
    visibility: Visibility | Literal[""] = "",
    rank: Annotated[str, Query(pattern=r"^\d{0,6}$")] = "",
    tag: Annotated[list[str], Query(max_length=20)] = [],  # noqa: B006 - FastAPI copies it
    sort: Sort = "newest",
) -> Listing:
    tags = tuple(dict.fromkeys(word for word in tag if word))
    return Listing(q.strip(), base_model, method, task, owner, visibility, rank, tags, sort)


ListingDep = Annotated[Listing, Depends(listing)]


@dataclass(frozen=True, kw_only=True)
class FacetsPage(Page, template="modules/facets.html"):
    """The facets alone, which a script puts into the list's page."""

    listing: Listing
    facets: Facets
    fields: Mapping[str, tuple[str, str]] = field(default_factory=lambda: FIELDS)


@dataclass(frozen=True, kw_only=True)
class ModulesPage(Page, template="modules/list.html"):
    """One page of the adapters that match."""

    listing: Listing
    hits: Sequence[Hit]
    following: str | None  # cursor of the next page
    first: bool  # nothing comes before this page
    facets: Facets | None  # None where a script loads them
    fields: Mapping[str, tuple[str, str]] = field(default_factory=lambda: FIELDS)


@router.get("/")
def modules(
    session: SessionDep, viewer: ViewerDep, listing: ListingDep, cursor: str = "", filters: bool = False
) -> Response:
    """`filters`: with the facets in the page itself, for browsers that run no scripts, which load them apart."""
    matches = search(session, viewer, listing.filters, sort=listing.sort, limit=LISTED, cursor=cursor or None)
    page = ModulesPage(
        listing=listing,
        hits=matches.hits,
        following=matches.cursor,
        first=not cursor,
        facets=facets(session, viewer, listing.filters) if filters else None,
    )
    return render(page, viewer)


@router.get("/facets")
def choices(session: SessionDep, viewer: ViewerDep, listing: ListingDep) -> Response:
    return render(FacetsPage(listing=listing, facets=facets(session, viewer, listing.filters)), viewer)
