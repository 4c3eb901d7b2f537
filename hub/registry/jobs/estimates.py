"""About how long a job will take: from the jobs of its kind on its base that have succeeded here, those most like it in size."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from hub.registry.bases import base_models
from hub.registry.models.content import Commit, TreeEntry
from hub.registry.models.jobs import Job
from hub.registry.platform.errors import NotFound

LOOKED_AT = 100  # of the newest
LIKE = 8  # of these, so many that are nearest in size


@dataclass(frozen=True)
class Estimate:
    """Seconds from a job's start to its end, between the quartiles of what the jobs most like it say."""

    low: float
    high: float
    jobs: int


def estimate(
    session: Session, kind: str, base: str, asked: Mapping[str, Any], *, examples: int, held_out: int
) -> Estimate | None:
    """None where no such job has succeeded here yet. Sizes are in bytes; `asked` is the request with its defaults."""
    wanted = work(kind, asked, examples, held_out)
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
    ).all()
    sizes = _sizes(session, [each for params, _ in rows for each in _sources(params)])
    done = [
        (work(kind, {**params, **params.get("recipe", {})}, *_sized(params, sizes)), float(took))
        for params, took in rows
    ]
    return scaled(wanted, done)


def scaled(wanted: float, done: Sequence[tuple[float, float]]) -> Estimate | None:
    """From (work, seconds) of earlier jobs, the nearest in size.

    What part of a job's time grows with its size is not known, so each says a range: from none of it to all of it.
    """
    near = sorted(done, key=lambda each: abs(math.log(each[0] / wanted)))[:LIKE]
    if not near:
        return None
    ranges = [sorted((seconds, seconds * wanted / amount)) for amount, seconds in near]
    return Estimate(_quartile([low for low, _ in ranges], 0), _quartile([high for _, high in ranges], 2), len(near))


def _quartile(values: Sequence[float], which: int) -> float:
    return statistics.quantiles(values, n=4, method="inclusive")[which] if len(values) > 1 else values[0]


def work(kind: str, asked: Mapping[str, Any], examples: int, held_out: int) -> float:
    """How much is computed, in bytes of examples that go through the model; of use only beside other jobs of the kind."""
    measured = 4 * held_out  # each of some arms, answers as well
    if kind == "compose":
        evaluations = _number(asked, "budget", 10 if asked.get("search") == "gradient" else 40)
        tuning = _number(asked.get("tune") or {}, "steps", 0)
        tried = _number(asked, "choose", 0) and len(asked.get("modules") or ())
        return examples * (evaluations + tuning + tried) + measured + 1
    if kind == "train":
        passes = _number(asked, "epochs", 3)
        if steps := _number(asked, "steps", 0):
            # Of how many bytes an example has nothing is known before it is read; 200 is a question and its answer.
            passes = (
                steps * _number(asked, "batch_size", 8) * _number(asked, "accumulation", 1) * 200 / max(examples, 1)
            )
        tries = len(asked.get("rates") or ()) or (
            5 if asked.get("compare") or asked.get("lr_search") is not None else 0
        )
        return examples * passes * (1 + len(asked.get("compare") or ())) * (1 + tries / 5) + measured + 1
    if kind == "reduce":
        trials = 20 if asked.get("subject") == "module" else 2 * _number(asked, "budget", 10) + 3
        return examples * trials + measured + 1
    if kind == "evaluate":
        return examples * (len(asked.get("modules") or ()) + bool(asked.get("include_base"))) + 1
    return examples * (1 + len(asked.get("compare") or ())) + measured + 1


def _number(asked: Mapping[str, Any], name: str, default: float) -> float:
    """Also of what was typed and is no number yet."""
    try:
        return float(asked.get(name) or default)
    except (TypeError, ValueError):
        return default


def _sources(params: Mapping[str, Any]) -> list[Mapping[str, str]]:
    named = [params.get("examples"), params.get("held_out"), *params.get("datasets", ())]
    return [each for each in named if each]


def _sized(params: Mapping[str, Any], sizes: Mapping[tuple[str, str], int]) -> tuple[int, int]:
    def size(source: Mapping[str, str] | None) -> int:
        return sizes.get((source["commit"], source["path"]), 0) if source else 0

    return size(params.get("examples")) + sum(size(each) for each in params.get("datasets", ())), size(
        params.get("held_out")
    )


def _sizes(session: Session, sources: Sequence[Mapping[str, str]]) -> dict[tuple[str, str], int]:
    places = {(each["commit"], each["path"]) for each in sources}
    rows = session.execute(
        select(Commit.id, TreeEntry.path, TreeEntry.size)
        .join(TreeEntry, TreeEntry.tree == Commit.tree)
        .where(tuple_(Commit.id, TreeEntry.path).in_(places))
    )
    return {(commit, path): size for commit, path, size in rows}
