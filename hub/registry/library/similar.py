"""The map of a library: which adapters of one base are alike by their sketches, as far as the viewer may see them.

Nothing of it is stored with an adapter: what is alike depends on who asks, and a stored sentence would name private adapters to everybody.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.registry.access import permissions
from hub.registry.access.viewer import Viewer
from hub.registry.bases import base_models
from hub.registry.content import repos
from hub.registry.inspection import sketches
from hub.registry.inspection.findings import Finding, finding
from hub.registry.inspection.inspect import Inspection
from hub.registry.inspection.parsed_adapter import parse_folder
from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.content import Commit, Repo
from hub.registry.platform.errors import InvalidInput
from hub.registry.platform.services import Services
from hub.similarity import DUPLICATE, WIDTH, Doubles, Floats, clusters, near_duplicates, sketched_cosines

MAX_MODULES = 1_000  # a map's table of cosines has the square of it


class TooManyModules(InvalidInput):
    code = "too_many_modules"


@dataclass(frozen=True)
class Module:
    repo: str
    folder: str
    commit: str
    sketch: bytes

    @property
    def name(self) -> str:
        return f"{self.repo}/{self.folder}" if self.folder else self.repo


@dataclass(frozen=True)
class Alike:
    module: Module
    cosine: float


@dataclass(frozen=True)
class Map:
    base: str
    modules: list[Module]
    unplaced: list[Module]  # without a sketch: no low-rank update of the base as it is
    cosines: Doubles  # (n, n), of `modules`
    duplicates: list[tuple[int, int, float]]
    clusters: list[list[int]]


def standard_error(cosine: float) -> float:
    return (1 - cosine**2) / math.sqrt(WIDTH)


def modules_of(session: Session, viewer: Viewer | None, base: str, namespaces: Sequence[str] = ()) -> list[Module]:
    """The adapters at the head of main that were trained on a base, under any of its names, and that the viewer may read."""
    name = AdapterFacts.namespace + "/" + AdapterFacts.name
    query = (
        select(name, AdapterFacts.folder, AdapterFacts.commit_id, AdapterFacts.sketch)
        .where(AdapterFacts.base == base_models.names(session).get(base, base))
        .where(AdapterFacts.current, ~AdapterFacts.deleted, permissions.readable(viewer, AdapterFacts))
        .order_by(name, AdapterFacts.folder)
    )
    if namespaces:
        query = query.where(AdapterFacts.namespace.in_(namespaces))
    return [
        Module(repo, folder, commit, sketch or sketches.NONE) for repo, folder, commit, sketch in session.execute(query)
    ]


def bases_of(session: Session, viewer: Viewer | None) -> list[tuple[str, int]]:
    """The bases of the adapters that the viewer may read, the one with the most first, and how many adapters it has."""
    base = func.coalesce(AdapterFacts.base_id, AdapterFacts.base_model)
    query = (
        select(base, func.count())
        .join(Repo, Repo.id == AdapterFacts.repo_id)
        .where(AdapterFacts.current, base.is_not(None), Repo.deleted_at.is_(None), permissions.readable(viewer))
        .group_by(base)
        .order_by(func.count().desc(), base)
        .limit(200)
    )
    return [(name, count) for name, count in session.execute(query)]


def alike(
    session: Session, viewer: Viewer | None, repo: Repo, facts: AdapterFacts, *, least: float, limit: int = 20
) -> list[Alike]:
    """Adapters of other repos that one adapter is alike, most alike first. An unnamed base is alike no other."""
    base = facts.base_id or facts.base_model
    return _alike(session, viewer, base, facts.sketch, but=repo.full_name, least=least)[:limit]


def _alike(
    session: Session, viewer: Viewer | None, base: str | None, sketch: bytes | None, *, but: str | None, least: float
) -> list[Alike]:
    if not base or not sketch:
        return []
    others = [module for module in modules_of(session, viewer, base) if module.sketch and module.repo != but]
    vectors = _vectors([sketch, *(module.sketch for module in others)])
    cosines = sketched_cosines(vectors[:1], vectors[1:])[0]
    matches = [
        Alike(module, round(float(cosine), 6))
        for module, cosine in zip(others, cosines, strict=True)
        if cosine >= least
    ]
    return sorted(matches, key=lambda match: (-match.cosine, match.module.name))


def duplicate_findings(session: Session, viewer: Viewer, repo: Repo, commit: Commit) -> list[Finding]:
    """The findings that report an upload's near duplicates."""
    return [
        _duplicate_finding(match, facts.folder)
        for facts in repos.facts(session, commit)
        for match in alike(session, viewer, repo, facts, least=DUPLICATE, limit=3)
    ]


def duplicates_of(session: Session, viewer: Viewer, inspection: Inspection) -> list[Finding]:
    """The same findings for adapters that are not published yet."""
    return [
        _duplicate_finding(match, facts.folder)
        for facts in inspection.adapters
        for match in _alike(
            session,
            viewer,
            facts.base_id or facts.base_model,
            inspection.sketches[facts.folder],
            but=None,
            least=DUPLICATE,
        )[:3]
    ]


def _duplicate_finding(match: Alike, folder: str) -> Finding:
    message = (
        f"This adapter's update is {match.cosine:.2f} the same as that of {match.module.name} "
        f"(cosine, standard error {standard_error(match.cosine):.4f})."
    )
    return finding("near_duplicate", folder, message)


def library_map(
    session: Session,
    viewer: Viewer | None,
    base: str,
    *,
    namespaces: Sequence[str] = (),
    duplicate: float = DUPLICATE,
    cluster: float = 0.5,
) -> Map:
    """Every pair of one base's adapters. Raises TooManyModules."""
    modules = modules_of(session, viewer, base, namespaces)
    placed = [module for module in modules if module.sketch]
    if len(placed) > MAX_MODULES:
        raise TooManyModules(
            f"{base!r} has {len(placed):,} adapters that you can see, and a map holds {MAX_MODULES:,}; name namespaces with `owner`."
        )
    vectors = _vectors([module.sketch for module in placed])
    cosines = sketched_cosines(vectors, vectors)
    return Map(
        base=base,
        modules=placed,
        unplaced=[module for module in modules if not module.sketch],
        cosines=cosines,
        duplicates=near_duplicates(cosines, duplicate),
        clusters=clusters(cosines, cluster),
    )


def _vectors(raw: Sequence[bytes]) -> Floats:
    return np.frombuffer(b"".join(raw), "<f4").astype(np.float32).reshape(-1, WIDTH)


def sketch_missing(services: Services, limit: int = 20) -> int:
    """Sketch adapters that were published before there were sketches. Returns how many it looked at; each commits by itself."""
    with services.sessions() as session:
        waiting = session.execute(
            select(AdapterFacts.commit_id, AdapterFacts.folder)
            .where(AdapterFacts.current, AdapterFacts.sketch.is_(None))
            .order_by(AdapterFacts.commit_id, AdapterFacts.folder)
            .limit(limit)
        ).all()
        for commit_id, folder in waiting:
            files = repos.stored_files(session, services.storage, session.get_one(Commit, commit_id))
            adapter = parse_folder(files, folder)
            facts = session.get_one(AdapterFacts, (commit_id, folder))
            facts.sketch = sketches.sketch_of(adapter) if adapter else sketches.NONE
            session.commit()
    return len(waiting)
