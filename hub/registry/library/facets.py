"""Facets of a search: the most frequent values of each property of its hits, counted exactly up to a thousand.

The newest WINDOW hits are always counted. A search for words or tags counts WIDE of them, as an index alone cannot count those singly. If
there are more hits, the window shows which values are frequent. Each of these with at most a thousand hits so far is then counted among
the older hits, up to a thousand and one. So counts are always exact. In a larger search, a value that is frequent only among older hits may
be left out.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, func, literal, null, select, text, tuple_, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session

from hub.registry.access.viewer import Viewer
from hub.registry.library import search
from hub.registry.library.search import Filters
from hub.registry.models.adapters import AdapterFacts

Facet = Literal["base", "method", "task", "tag", "owner", "visibility"]
FACETS: tuple[Facet, ...] = get_args(Facet)
EXACT = 1_000
SHOWN = 12
WINDOW, WIDE = 10_000, 30_000
TAGS = -1  # in the place of a mask of columns


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
    """The facets of the hits that the viewer may read.

    Each facet is counted without its own filter, because choosing a value replaces that filter. Tags are counted with theirs, because
    choosing a tag adds to them.
    """
    search.plan_for_these_values(session)
    session.execute(text("SET LOCAL work_mem = '32MB'"))  # keeps the window in memory
    same = [facet for facet in FACETS if without(filters, facet) == filters]
    window = WIDE if filters.text or filters.tag else WINDOW
    total, values = _counted(session, viewer, filters, same, window)
    for facet in set(FACETS) - set(same):
        values |= _counted(session, viewer, without(filters, facet), [facet], window)[1]
    return Facets(_capped(total), {facet: values[facet] for facet in FACETS})


def without(filters: Filters, facet: Facet) -> Filters:
    return filters if facet == "tag" else _with(filters, facet, None)


def narrowed(filters: Filters, facet: Facet, value: str) -> Filters:
    return replace(filters, tag=[*filters.tag, value]) if facet == "tag" else _with(filters, facet, value)


def _with(filters: Filters, facet: Facet, value: str | None) -> Filters:
    own: dict[str, Any] = {"base_model" if facet == "base" else facet: value}
    return replace(filters, **own)


def _counted(
    session: Session, viewer: Viewer | None, filters: Filters, of: Sequence[Facet], window: int
) -> tuple[int, dict[Facet, list[Value]]]:
    """The number of rows, up to the window, and the values of some facets in all rows."""
    total, oldest, counts = _in_window(session, search.matching(session, viewer, filters), of, window)
    frequent = {facet: dict(counts[facet].most_common(SHOWN)) for facet in of}
    if oldest is not None and total >= window:
        some = {facet: {value: n for value, n in frequent[facet].items() if n <= EXACT} for facet in of}
        for facet, value, older in _one_by_one(session, viewer, filters, some, oldest):
            frequent[facet][value] += older
    return total, {
        facet: [
            Value(min(count, EXACT), count > EXACT, value)
            for value, count in sorted(frequent[facet].items(), key=lambda pair: (-min(pair[1], EXACT + 1), pair[0]))
        ]
        for facet in of
    }


def _in_window(
    session: Session, where: Sequence[ColumnElement[bool]], of: Sequence[Facet], limit: int
) -> tuple[int, datetime | None, dict[Facet, Counter[str]]]:
    """The number of rows in the window, the time of the oldest, and the values. Rows as old as the oldest are included beyond the limit."""
    newest = AdapterFacts.published_at
    columns = {facet: _COLUMNS[facet] for facet in of}
    newest_first = select(newest, *columns.values()).where(*where).order_by(newest.desc())
    window = newest_first.fetch(limit, with_ties=True).cte("window")
    # GROUPING SETS counts the values of every column in one pass over the window, where a GROUP BY for each column would read it again.
    # grouping() tells which column a row of the answer counts: its mask has a bit for each column that the row is not grouped by.
    # Tags are counted apart, as a row has several.
    names = [facet for facet in of if facet != "tag"]
    plain = [window.c[columns[facet].key] for facet in names]
    everything = (1 << len(plain)) - 1
    sets: dict[int, Facet] = {everything ^ (1 << place): facet for place, facet in enumerate(reversed(names))}
    sets[TAGS] = "tag"
    mask = func.grouping(*plain) if plain else literal(everything)
    value = func.coalesce(*plain, null())
    grouped = func.grouping_sets(*(tuple_(column) for column in plain), tuple_())
    parts = [select(mask, value, func.count(), func.min(window.c.published_at)).group_by(grouped)]
    if "tag" in of:
        tag = select(func.unnest(window.c[columns["tag"].key]).label("value")).subquery()
        parts.append(select(literal(TAGS), tag.c.value, func.count(), null()).group_by(tag.c.value))
    total, oldest = 0, None
    counts: dict[Facet, Counter[str]] = {facet: Counter() for facet in of}
    for kind, value, count, since in session.execute(union_all(*parts)):
        if kind == everything:
            total, oldest = count, since
        elif value is not None:
            counts[sets[kind]][value] = count
    return total, oldest, counts


def _one_by_one(
    session: Session,
    viewer: Viewer | None,
    filters: Filters,
    values: Mapping[Facet, Mapping[str, int]],
    before: datetime,
) -> Sequence[Any]:
    """(facet, value, count) of the rows published before. Count at most EXACT + 1 - already_counted older rows of each value."""
    parts = []
    for facet, counts in values.items():
        for value, so_far in counts.items():
            where = search.matching(session, viewer, narrowed(filters, facet, value))
            older = AdapterFacts.published_at < before
            some = select(literal(1)).where(*where, older).limit(EXACT + 1 - so_far).subquery()
            count = select(func.count()).select_from(some).scalar_subquery()
            parts.append(select(literal(facet), literal(value), count))
    return session.execute(union_all(*parts)).all() if parts else []


def _capped(count: int) -> Count:
    return Count(min(count, EXACT), count > EXACT)
