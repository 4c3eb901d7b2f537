"""The map of a library and the table of modules by data set."""

from collections.abc import Mapping, Sequence

from fastapi import APIRouter, Response
from sqlalchemy import select

from hub.http import SessionDep, ViewerDep
from hub.registry import similar, views
from hub.registry.models import BaseModel
from hub.web.render import page

router = APIRouter(include_in_schema=False)


@router.get("/map")
def library_map(session: SessionDep, viewer: ViewerDep, base_model: str = "") -> Response:
    """The modules of one base: what is nearly the same, what belongs together, and what was measured on each."""
    known = session.scalars(select(BaseModel.id).order_by(BaseModel.id)).all()
    found = similar.library_map(session, viewer, base_model) if base_model else None
    commits = [module.commit for module in [*found.modules, *found.unplaced]] if found else []
    scores = [score for score in views.scores(session, viewer, commit_ids=commits) if score.metric == "exact_match"]
    return page("map.html", viewer, base_model=base_model, known=known, map=found, table=_by_dataset(scores))


@router.get("/scores")
def scores(session: SessionDep, viewer: ViewerDep, metric: str = "exact_match") -> Response:
    """Modules by data set: the newest figure of each pair."""
    found = views.scores(session, viewer)
    metrics = sorted({score.metric for score in found} | {metric})
    chosen = [score for score in found if score.metric == metric]
    return page("scores.html", viewer, metric=metric, metrics=metrics, table=_by_dataset(chosen))


def _by_dataset(scores: Sequence[views.Measured]) -> Mapping[str, Mapping[str, views.Measured]]:
    """module -> data set -> figure. Scores come newest first, so the first of a pair is the one to show."""
    table: dict[str, dict[str, views.Measured]] = {}
    for score in scores:
        module = score.repo or f"{score.base_id} (base alone)"
        table.setdefault(module, {}).setdefault(f"{score.dataset} · {score.dataset_path}", score)
    return dict(sorted(table.items()))
