"""What the adapters that a search finds have in common: the most frequent values of each facet, counted exactly up to a thousand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from hub.registry import search
from hub.registry.models import AdapterFacts
from hub.registry.search import Filters
from hub.registry.teams import Viewer

Facet = Literal["base", "method", "task", "tag", "owner", "visibility"]
FACETS: tuple[Facet, ...] = get_args(Facet)
EXACT = 1_000
SHOWN = 12


@dataclass(frozen=True)
class Count:
    """`more`: there are more than `count`, which is then EXACT; "1,000+"."""

    count: int
    more: bool


@dataclass(frozen=True)
class Value(Count):
    value: str


@dataclass(frozen=True)
class Facets:
    total: Count  # of what the search finds
    values: Mapping[Facet, Sequence[Value]]  # most frequent first


_COLUMNS: dict[Facet, InstrumentedAttribute[Any]] = {
    "base": AdapterFacts.base,
    "method": AdapterFacts.method,
    "task": AdapterFacts.task,
    "tag": AdapterFacts.tags,
    "owner": AdapterFacts.namespace,
    "visibility": AdapterFacts.visibility,
}


def facets(session: Session, viewer: Viewer | None, filters: Filters) -> Facets:
    """Among what the viewer may read. Each facet is counted without its own filter, as a choice of it would replace that;
    tags with theirs, as a tag adds to them."""
    found = {}
    for facet in FACETS:
        where = search.matching(session, viewer, without(filters, facet))
        value = func.unnest(AdapterFacts.tags) if facet == "tag" else _COLUMNS[facet]
        each = select(value.label("value")).where(*where).subquery()
        count = func.count()
        rows = session.execute(
            select(each.c.value, count)
            .where(each.c.value.is_not(None))
            .group_by(each.c.value)
            .order_by(count.desc(), each.c.value)
            .limit(SHOWN)
        )
        found[facet] = [Value(min(number, EXACT), number > EXACT, text) for text, number in rows]
    some = select(AdapterFacts.folder).where(*search.matching(session, viewer, filters)).limit(EXACT + 1).subquery()
    total = session.scalar(select(func.count()).select_from(some)) or 0
    return Facets(Count(min(total, EXACT), total > EXACT), found)


def without(filters: Filters, facet: Facet) -> Filters:
    if facet == "tag":
        return filters
    own: dict[str, Any] = {"base_model" if facet == "base" else facet: None}
    return replace(filters, **own)
