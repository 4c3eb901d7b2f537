"""Which adapters can be woven together on a base, and why the others cannot: by facts alone, as far as the viewer may see them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import JsonValue
from sqlalchemy import Row, func, or_, select
from sqlalchemy.orm import Session

from hub.registry.access import permissions
from hub.registry.access.viewer import Viewer
from hub.registry.content import repos
from hub.registry.inspection.facts import NOT_PLAIN
from hub.registry.jobs.requests.common import Module
from hub.registry.jobs.requests.compose import ON_FACTORS
from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.bases import RegisteredBase

MOST = 500  # adapters that are offered one by one; of more, namespaces are named


@dataclass(frozen=True)
class Candidate:
    """The adapter at the head of a repo's main, in one folder. `reason` says why it cannot take part, if it cannot."""

    repo: str
    folder: str
    visibility: str
    method: str
    ranks: list[int]
    size: int
    warnings: int
    published_at: datetime
    measured: Mapping[str, JsonValue] | None  # by the job that made it, on the data held out for that
    reason: str = ""

    @property
    def reference(self) -> str:
        """As a form names it."""
        return f"{self.repo}#{self.folder}" if self.folder else self.repo


@dataclass(frozen=True)
class CandidateList:
    fitting: list[Candidate]
    others: list[Candidate]
    more: bool  # there are others still, which are not listed


def bases_with_modules(session: Session, viewer: Viewer | None) -> list[tuple[str, int]]:
    """Every registered base, with how many adapters of it the viewer may see; the most first."""
    seen = (
        select(AdapterFacts.base_id, func.count().label("modules"))
        .where(AdapterFacts.current, ~AdapterFacts.deleted, permissions.readable(viewer, AdapterFacts))
        .group_by(AdapterFacts.base_id)
        .subquery()
    )
    count = func.coalesce(seen.c.modules, 0)
    query = (
        select(RegisteredBase.id, count)
        .outerjoin(seen, seen.c.base_id == RegisteredBase.id)
        .order_by(count.desc(), RegisteredBase.id)
    )
    return [(base_id, modules) for base_id, modules in session.execute(query)]


def candidates(
    session: Session, viewer: Viewer | None, base_id: str, *, form: str | None = None, chosen: Sequence[str] = ()
) -> CandidateList:
    """Adapters on a base, newest first: those to compose in a form, or, without one, those to run.

    Where the form adds the matrices themselves the ranks must be equal: to that of the first adapter chosen, else to the commonest.
    """
    mine = AdapterFacts.base_id == base_id
    fitting = _current(session, viewer, mine)
    others = _current(session, viewer, or_(AdapterFacts.base_id.is_(None), AdapterFacts.base_id != base_id))
    ranks = _ranks(fitting, chosen) if form in ON_FACTORS else None
    all_candidates = [
        _candidate(row, incompatibility_reason(row.base_id, row.base_model, row.flags, row.ranks, base_id, form, ranks))
        for row in (*fitting, *others)
    ]
    good = [candidate for candidate in all_candidates if not candidate.reason]
    return CandidateList(
        good, [candidate for candidate in all_candidates if candidate.reason], MOST in (len(fitting), len(others))
    )


def base_of(session: Session, viewer: Viewer | None, module: Module) -> str | None:
    """The registered base of an adapter that the viewer may see."""
    commit = repos.resolve(session, repos.find(session, viewer, "model", module.repo), module.revision)
    facts = session.get(AdapterFacts, (commit.id, module.folder))
    return facts.base_id if facts else None


def incompatibility_reason(
    base_id: str | None,
    base_model: str | None,
    flags: Sequence[str],
    ranks: Sequence[int],
    wanted_base: str,
    form: str | None,
    equal_to: Sequence[int] | None,
) -> str:
    """Why an adapter cannot take part; empty if it can."""
    if base_id is None:
        return f"is for {base_model}, which is not registered here" if base_model else "names no base"
    if base_id != wanted_base:
        return f"is for {base_id}"
    if form and (odd := [flag for flag in flags if flag in NOT_PLAIN]):
        return f"uses {odd[0]}, which a weighted sum of A and B cannot express"
    if equal_to is not None and list(ranks) != list(equal_to):
        has, needs = (" and ".join(str(rank) for rank in layer_ranks) for layer_ranks in (ranks, equal_to))
        return f"has rank {has}, and the form {form} needs rank {needs} as the others have"
    return ""


def _current(session: Session, viewer: Viewer | None, which: Any) -> Sequence[Row[Any]]:
    """Columns alone: an adapter's whole facts name every layer."""
    query = (
        select(
            (AdapterFacts.namespace + "/" + AdapterFacts.name).label("repo"),
            AdapterFacts.folder,
            AdapterFacts.visibility,
            AdapterFacts.base_id,
            AdapterFacts.base_model,
            AdapterFacts.method,
            AdapterFacts.facts["ranks"].label("ranks"),
            AdapterFacts.facts["flags"].label("flags"),
            AdapterFacts.size_bytes.label("size"),
            AdapterFacts.measured,
            AdapterFacts.findings,
            AdapterFacts.published_at,
        )
        .where(AdapterFacts.current, which, ~AdapterFacts.deleted, permissions.readable(viewer, AdapterFacts))
        .order_by(AdapterFacts.published_at.desc(), AdapterFacts.commit_id.desc(), AdapterFacts.folder.desc())
        .limit(MOST)
    )
    return session.execute(query).all()


def _ranks(rows: Sequence[Row[Any]], chosen: Sequence[str]) -> list[int] | None:
    plain = [row for row in rows if not any(flag in NOT_PLAIN for flag in row.flags)]
    first = next((row for name in chosen for row in plain if name in (row.repo, f"{row.repo}#{row.folder}")), None)
    if first is not None:
        return list(first.ranks)
    common = Counter(tuple(row.ranks) for row in plain).most_common(1)
    return list(common[0][0]) if common else None


def _candidate(row: Row[Any], reason: str) -> Candidate:
    warnings = sum(finding["severity"] != "info" for finding in row.findings)
    fields = ("repo", "folder", "visibility", "method", "ranks", "size", "published_at", "measured")
    return Candidate(**{name: getattr(row, name) for name in fields}, warnings=warnings, reason=reason)
