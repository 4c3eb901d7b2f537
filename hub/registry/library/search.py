"""Search adapters: filters over the facts of main's head, in several orders, in keyset pages. facets.py counts the hits."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, and_, select, text, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from hub.registry.access import permissions
from hub.registry.access.viewer import Viewer
from hub.registry.bases import base_models
from hub.registry.content import text_index
from hub.registry.models.adapters import AdapterFacts
from hub.registry.platform.cursors import decode_cursor, encode_cursor
from hub.registry.platform.errors import InvalidInput
from hub.vocabulary import Visibility

Sort = Literal["newest", "name", "size", "score"]
SORTS: tuple[Sort, ...] = get_args(Sort)


@dataclass(frozen=True)
class Filters:
    base_model: str | None = None  # any name of it
    method: str | None = None
    task: str | None = None  # as PEFT names it: CAUSAL_LM
    rank: int | None = None
    tag: Sequence[str] = ()  # all of them
    text: str | None = None  # every word must occur
    owner: str | None = None
    visibility: Visibility | None = None


@dataclass(frozen=True)
class OwnScore:
    """What the job that made an adapter measured on the data held out for that: a share, with its 95% interval."""

    metric: str
    value: float
    low: float
    high: float
    examples: int


@dataclass(frozen=True)
class Hit:
    """One line of a list."""

    repo: str
    visibility: str
    commit: str
    folder: str
    base_id: str | None  # the registered base, if any, that `base_model` means
    base_model: str | None  # as the adapter's config says it
    method: str
    task: str | None
    rank: int
    parameters: int
    size_bytes: int  # of the weights file
    licence: str | None
    tags: Sequence[str]
    score: OwnScore | None
    warnings: int
    infos: int
    published_at: datetime

    @property
    def base(self) -> str | None:
        """The base as facets and filters name it."""
        return self.base_id or self.base_model


@dataclass(frozen=True)
class Page:
    hits: list[Hit]
    cursor: str | None  # where the next page begins; None after the last


_NEWEST: tuple[InstrumentedAttribute[Any], ...] = (
    AdapterFacts.published_at,
    AdapterFacts.commit_id,
    AdapterFacts.folder,
)
# The sort keys of each order; the last ones distinguish any two adapters. By name it ascends, else it descends.
_KEYS: dict[Sort, tuple[InstrumentedAttribute[Any], ...]] = {
    "newest": _NEWEST,
    "name": (AdapterFacts.namespace, AdapterFacts.name, AdapterFacts.folder),
    "size": (AdapterFacts.size_bytes, *_NEWEST),
    "score": (AdapterFacts.score, *_NEWEST),  # adapters without a measurement come last
}
_SHOWN = (
    AdapterFacts.namespace,
    AdapterFacts.name,
    AdapterFacts.visibility,
    AdapterFacts.commit_id,
    AdapterFacts.folder,
    AdapterFacts.base_id,
    AdapterFacts.base_model,
    AdapterFacts.method,
    AdapterFacts.task,
    AdapterFacts.rank,
    AdapterFacts.parameters,
    AdapterFacts.size_bytes,
    AdapterFacts.licence,
    AdapterFacts.tags,
    AdapterFacts.measured,
    AdapterFacts.score,
    AdapterFacts.findings,
    AdapterFacts.published_at,
)


def search(
    session: Session,
    viewer: Viewer | None,
    filters: Filters,
    *,
    sort: Sort = "newest",
    limit: int,
    cursor: str | None,
) -> Page:
    """Adapters the viewer may read. Raises InvalidInput for a cursor that is not one of ours, or of another order."""
    plan_for_these_values(session)
    keys = _KEYS[sort]
    query = select(*_SHOWN).where(*matching(session, viewer, filters)).limit(limit + 1)
    query = query.order_by(*(key if sort == "name" else key.desc() for key in keys))
    if cursor:
        place, after = tuple_(*keys), _decode(sort, cursor)
        query = query.where(place > after if sort == "name" else place < after)
    rows = session.execute(query).all()
    hits = [_hit(row) for row in rows[:limit]]
    return Page(hits, _encode(sort, rows[limit - 1]) if len(rows) > limit else None)


def plan_for_these_values(session: Session) -> None:
    """Force a custom plan: PostgreSQL's cached generic plan ignores how selective the parameters are."""
    # After five runs of a prepared statement PostgreSQL may keep one plan for all values. A tag that one adapter has and a tag that half
    # of a million have then share a plan, which is slow for one of the two. Planning anew costs a millisecond.
    session.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))


def matching(session: Session, viewer: Viewer | None, filters: Filters) -> list[ColumnElement[bool]]:
    """The conditions on facts: listed, readable, and every filter."""
    listed = and_(AdapterFacts.current, ~AdapterFacts.deleted)
    conditions = [listed, permissions.readable(viewer, AdapterFacts)]
    if filters.base_model:
        conditions.append(AdapterFacts.base == base_models.names(session).get(filters.base_model, filters.base_model))
    if filters.method:
        conditions.append(AdapterFacts.method == filters.method)
    if filters.task:
        conditions.append(AdapterFacts.task == filters.task)
    if filters.rank:
        conditions.append(AdapterFacts.rank == filters.rank)
    if filters.tag:
        conditions.append(AdapterFacts.tags.contains(list(filters.tag)))
    if filters.owner:
        conditions.append(AdapterFacts.namespace == filters.owner)
    if filters.visibility:
        conditions.append(AdapterFacts.visibility == filters.visibility)
        if filters.visibility == "private" and viewer and not viewer.is_admin:
            # Implied by the other conditions, but the planner cannot infer it and would overestimate the rows.
            conditions.append(AdapterFacts.namespace.in_(permissions.member_of(viewer)))
    for word in text_index.searchable(filters.text or "").split():
        conditions.append(text_index.has_word(word))
    return conditions


def _hit(row: Any) -> Hit:
    severities = [finding["severity"] for finding in row.findings]
    return Hit(
        repo=f"{row.namespace}/{row.name}",
        visibility=row.visibility,
        commit=row.commit_id,
        folder=row.folder,
        base_id=row.base_id,
        base_model=row.base_model,
        method=row.method,
        task=row.task,
        rank=row.rank,
        parameters=row.parameters,
        size_bytes=row.size_bytes,
        licence=row.licence,
        tags=row.tags,
        score=OwnScore(**row.measured) if row.measured else None,
        warnings=severities.count("warning"),
        infos=severities.count("info"),
        published_at=row.published_at,
    )


def _encode(sort: Sort, row: Any) -> str:
    values = [getattr(row, key.key) for key in _KEYS[sort]]
    texts = [value.isoformat() if isinstance(value, datetime) else str(value) for value in values]
    return encode_cursor(sort, *texts)


def _decode(sort: Sort, cursor: str) -> tuple[Any, ...]:
    try:
        order, *texts = decode_cursor(cursor)
        if order != sort:
            raise ValueError(order)
        return tuple(_value(key, text) for key, text in zip(_KEYS[sort], texts, strict=True))
    except ValueError:
        raise InvalidInput(
            f"The cursor {cursor!r} is not one that this hub gave for the order {sort!r}; begin without a cursor."
        ) from None


def _value(key: InstrumentedAttribute[Any], text: str) -> Any:
    kind = key.type.python_type
    return datetime.fromisoformat(text) if kind is datetime else kind(text)
