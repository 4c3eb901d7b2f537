"""Estimate how long a job takes, from succeeded jobs of its kind on its base that are nearest to it in size."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from hub.registry.bases import base_models
from hub.registry.datasets.examples import PinnedExamples
from hub.registry.jobs.contracts.common import Params
from hub.registry.jobs.kinds import KINDS
from hub.registry.jobs.sizes import Settings
from hub.registry.models.content import Commit, TreeEntry
from hub.registry.models.jobs import Job
from hub.registry.platform.errors import NotFound
from hub.vocabulary import JobKind

LOOKED_AT = 100  # of the newest
LIKE = 8  # of these, so many that are nearest in size


@dataclass(frozen=True)
class Estimate:
    """Seconds from a job's start to its end: the quartiles over the jobs most like it."""

    low: float
    high: float
    jobs: int


def estimate(
    session: Session, kind: JobKind, base: str, settings: Settings, *, examples: int, held_out: int
) -> Estimate | None:
    """The estimate, or None while no such job has succeeded. Sizes are in bytes; `settings` are the request's, with its defaults."""
    size = KINDS[kind].size
    work_wanted = size(settings, examples, held_out)
    try:
        base = base_models.find(session, base).id
    except NotFound:
        return None
    seconds = func.extract("epoch", Job.finished_at - Job.started_at)
    rows = session.execute(
        select(Job.params, seconds)
        .where(
            Job.kind == kind, Job.state == "succeeded", Job.attempt == 1, Job.params.contains({"base": {"id": base}})
        )
        .order_by(Job.created_at.desc())
        .limit(LOOKED_AT)
    )
    jobs = [(KINDS[kind].params.model_validate(params), float(took)) for params, took in rows]
    sizes = _file_sizes(session, [params for params, _ in jobs])
    done = [(size(params.size_settings(), *_byte_sizes(params, sizes)), took) for params, took in jobs]
    return scaled(work_wanted, done)


def scaled(work_wanted: float, done: Sequence[tuple[float, float]]) -> Estimate | None:
    """The estimate from (work, seconds) of the earlier jobs that are nearest in size.

    How much of a job's time grows with its size is unknown. So each earlier job gives a range: from none of it to all of it.
    """
    near = sorted(done, key=lambda job: abs(math.log(job[0] / work_wanted)))[:LIKE]
    if not near:
        return None
    ranges = [sorted((seconds, seconds * work_wanted / amount)) for amount, seconds in near]
    return Estimate(_quartile([low for low, _ in ranges], 0), _quartile([high for _, high in ranges], 2), len(near))


def _quartile(values: Sequence[float], which: int) -> float:
    return statistics.quantiles(values, n=4, method="inclusive")[which] if len(values) > 1 else values[0]


def _byte_sizes(params: Params, sizes: Mapping[tuple[str, str], int]) -> tuple[int, int]:
    """Bytes of the examples that a job computed on, and of the held-out ones."""

    def size(source: PinnedExamples) -> int:
        return sizes.get((source.commit, source.path), 0)

    return sum(size(source) for source in params.learnt), size(params.measured) if params.measured else 0


def _file_sizes(session: Session, jobs: Sequence[Params]) -> dict[tuple[str, str], int]:
    pinned = [source for params in jobs for source in (*params.learnt, params.measured) if source]
    places = {(source.commit, source.path) for source in pinned}
    rows = session.execute(
        select(Commit.id, TreeEntry.path, TreeEntry.size)
        .join(TreeEntry, TreeEntry.tree == Commit.tree)
        .where(tuple_(Commit.id, TreeEntry.path).in_(places))
    )
    return {(commit, path): size for commit, path, size in rows}
