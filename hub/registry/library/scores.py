"""Keeping measured figures. views.py shows them."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from hub.registry.models.adapters import AdapterFacts, Score


def keep(session: Session, score: Mapping[str, Any]) -> None:
    """Keep a measured figure; a newer one of the same thing takes the older one's place."""
    statement = insert(Score).values(**score)
    measured = {key: score.get(key) for key in ("value", "low", "high", "examples", "job_id")}
    replaced = {**measured, "each": score.get("per_example"), "created_at": func.now()}  # by the columns' names
    session.execute(statement.on_conflict_do_update(constraint="uq_scores_what", set_=replaced))


def keep_own(session: Session, commit_id: str, scores: Sequence[Mapping[str, Any]]) -> None:
    """Show with a module what was measured on the data that whoever made it held out: exact match, else the first share there is."""
    shares = [score for score in scores if score["metric"] != "target_loss"]
    if not shares:
        return
    first = next((score for score in shares if score["metric"] == "exact_match"), shares[0])
    shown = {key: first[key] for key in ("metric", "value", "low", "high", "examples")}
    session.execute(update(AdapterFacts).where(AdapterFacts.commit_id == commit_id).values(measured=shown))
