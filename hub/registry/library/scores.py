"""Store measured figures. provenance.py reads them."""

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from hub.registry.models.adapters import AdapterFacts, Score
from hub.vocabulary import Metric, Template


@dataclass(frozen=True)
class Figure:
    """A mean over `examples` with its interval."""

    metric: Metric
    value: float
    low: float
    high: float
    examples: int


@dataclass(frozen=True)
class Measurement(Figure):
    """A figure and what it was measured on; `per_example` has one value an example, in their order."""

    base_id: str
    dataset_commit: str
    dataset_path: str
    template: Template
    per_example: Sequence[float] | None = None


def keep(session: Session, measured: Measurement, *, commit_id: str | None, job_id: uuid.UUID) -> None:
    """Store a figure of a commit, or, without one, of the base alone. It replaces an older figure of the same measurement."""
    statement = insert(Score).values(**asdict(measured), commit_id=commit_id, job_id=job_id)
    newer = {
        name: statement.excluded[name] for name in ("value", "low", "high", "examples", "each", "job_id")
    }  # columns
    session.execute(
        statement.on_conflict_do_update(constraint="uq_scores_what", set_={**newer, "created_at": func.now()})
    )


def keep_own(session: Session, commit_id: str, figures: Sequence[Figure]) -> None:
    """Store with an adapter its figure on its maker's held-out data: exact match, else the first metric that is a share."""
    shares = [figure for figure in figures if figure.metric != "target_loss"]
    if not shares:
        return
    first = next((figure for figure in shares if figure.metric == "exact_match"), shares[0])
    figure = {name: getattr(first, name) for name in Figure.__dataclass_fields__}
    session.execute(update(AdapterFacts).where(AdapterFacts.commit_id == commit_id).values(measured=figure))
