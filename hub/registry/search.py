"""Finding adapters: filters over the facts of main's head, newest first, in keyset pages."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from hub.registry import bases, repos, teams
from hub.registry.errors import InvalidInput
from hub.registry.models import AdapterFacts, Repo
from hub.registry.teams import Viewer


@dataclass(frozen=True)
class Filters:
    base_model: str | None = None  # any name of it
    method: str | None = None
    rank: int | None = None
    tag: Sequence[str] = ()
    text: str | None = None  # every word must occur
    owner: str | None = None


@dataclass(frozen=True)
class Hit:
    repo: Repo
    facts: AdapterFacts


@dataclass(frozen=True)
class Page:
    hits: list[Hit]
    cursor: str | None  # where the next page begins; None after the last


def search(session: Session, viewer: Viewer | None, filters: Filters, *, limit: int, cursor: str | None) -> Page:
    """Adapters the viewer may read. Raises InvalidInput for a cursor that is not one of ours."""
    query = (
        select(Repo, AdapterFacts)
        .join(AdapterFacts, AdapterFacts.repo_id == Repo.id)
        .where(AdapterFacts.current, Repo.deleted_at.is_(None), teams.readable(viewer))
        .order_by(AdapterFacts.published_at.desc(), AdapterFacts.commit_id.desc(), AdapterFacts.folder.desc())
        .limit(limit + 1)
    )
    if filters.base_model:
        wanted = bases.names(session).get(filters.base_model)
        same = AdapterFacts.base_id == wanted if wanted else AdapterFacts.base_model == filters.base_model
        query = query.where(same)
    if filters.method:
        query = query.where(AdapterFacts.method == filters.method)
    if filters.rank:
        query = query.where(AdapterFacts.rank == filters.rank)
    if filters.tag:
        query = query.where(AdapterFacts.tags.contains(list(filters.tag)))
    if filters.owner:
        query = query.where(Repo.namespace == filters.owner)
    for word in repos.searchable(filters.text or "").split():
        query = query.where(AdapterFacts.search.contains(word, autoescape=True))
    if cursor:
        after = tuple_(AdapterFacts.published_at, AdapterFacts.commit_id, AdapterFacts.folder)
        query = query.where(after < _decode(cursor))
    hits = [Hit(repo, facts) for repo, facts in session.execute(query)]
    if len(hits) <= limit:
        return Page(hits, None)
    return Page(hits[:limit], _encode(hits[limit - 1].facts))


def _encode(facts: AdapterFacts) -> str:
    place = "\0".join([facts.published_at.isoformat(), facts.commit_id, facts.folder])
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _decode(cursor: str) -> tuple[datetime, str, str]:
    try:
        place = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        published_at, commit_id, folder = place.split("\0")
        return datetime.fromisoformat(published_at), commit_id, folder
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise InvalidInput(f"The cursor {cursor!r} is not one that this hub gave; begin without a cursor.") from None
