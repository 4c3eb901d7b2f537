"""The map of a library and the table of modules by data set."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, get_args

from fastapi import APIRouter, Query, Response
from markupsafe import Markup

from hub.drawing.heat import Cell, Grid, draw
from hub.drawing.plot import Dot, scatter
from hub.http.identity import SessionDep, ViewerDep
from hub.registry.bases import base_models
from hub.registry.library import provenance, similar
from hub.registry.library.provenance import Measured
from hub.registry.library.similar import Map, Module, TooManyModules
from hub.similarity import layout
from hub.vocabulary import Metric
from hub.web.render import page

router = APIRouter(include_in_schema=False)

GRID = 60  # modules, above which a grid of cosines is too large to read
GROUPS = 8  # clusters with a colour of their own
FIGURES = 10_000  # of one table

Owner = Annotated[str, Query(pattern=r"^[\w.-]{0,96}$")]
Text = Annotated[str, Query(max_length=500, pattern=r"^[^\x00]*$")]


@router.get("/map")
def library_map(session: SessionDep, viewer: ViewerDep, base_model: Text = "", owner: Owner = "") -> Response:
    """The modules of one base: what is nearly the same, what belongs together. Of the base with the most modules if none is named."""
    known = similar.bases_of(session, viewer)
    chosen = base_model or (known[0][0] if known else "")
    found, problem = None, None
    try:
        found = similar.library_map(session, viewer, chosen, namespaces=[owner] if owner else []) if chosen else None
    except TooManyModules as error:
        problem = error.message
    return page(
        "library/map.html",
        viewer,
        asked={"base_model": chosen, "owner": owner},
        known=known,
        map=found,
        problem=problem,
        error=similar.standard_error,
        **(_pictures(found) if found else {}),
        status=422 if problem else 200,
    )


def _pictures(found: Map) -> dict[str, object]:
    """Dots whose distances are those of the updates, coloured by cluster; and the grid of all cosines, where it can be read."""
    groups = [group for group in found.clusters if len(group) > 1]
    colours = {index: number for number, group in enumerate(groups[:GROUPS], 1) for index in group}
    places, share = layout(found.cosines)
    dots = [
        Dot(float(x), float(y), module.name, address(module), f"group{colours.get(index, 0)}")
        for index, (module, (x, y)) in enumerate(zip(found.modules, places, strict=True))
    ]
    return {
        "scatter": scatter(dots, "Modules by likeness: the nearer two are, the more alike"),
        "share": share,
        "groups": groups,
        "coloured": len(groups[:GROUPS]),
        "grid": _grid(found) if 1 < len(found.modules) <= GRID else Markup(),
        "order": [index for group in found.clusters for index in group],
        "address": address,
    }


def _grid(found: Map) -> Markup:
    """Every cosine, the modules of a cluster beside each other; what is unlike or opposed stays blank."""
    order = [index for group in found.clusters for index in group]
    names = [found.modules[index].name for index in order]
    cells = []
    for row, i in enumerate(order):
        for column, j in enumerate(order):
            cosine = float(found.cosines[i, j])
            said = "itself" if i == j else f"cosine {cosine:.2f} ± {similar.standard_error(cosine):.2f}"
            cells.append(Cell(row, column, max(0.0, cosine), f"{names[row]} and {names[column]}: {said}"))
    numbers = [str(number) for number in range(1, len(order) + 1)]
    rows = [f"{name}  {number}" for name, number in zip(names, numbers, strict=True)]
    links = [address(found.modules[index]) for index in order]
    return draw(Grid("Cosine of every two modules", "cosine", rows, numbers, cells, links))


def address(module: Module) -> str:
    return f"/adapters/{module.repo}?revision={module.commit}"


# --- scores -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """What figures can be compared on: one file of a data set at one commit, with one template."""

    dataset: str
    commit: str
    path: str
    template: str

    @property
    def key(self) -> str:
        return f"{self.dataset}@{self.commit[:12]}/{self.path}:{self.template}"


Row = tuple[str | None, str | None, str]  # repo, commit, base: the first two are none for the base alone
Table = Mapping[Row, Mapping[Column, Measured]]


@router.get("/scores")
def scores(
    session: SessionDep,
    viewer: ViewerDep,
    metric: Metric = "exact_match",
    base_model: Text = "",
    owner: Owner = "",
    sort: Text = "",
) -> Response:
    """Modules by data set: the newest figure of each pair."""
    base_id = base_models.names(session).get(base_model, base_model) or None
    found = provenance.scores(session, viewer, metric=metric, base_id=base_id, owner=owner or None, limit=FIGURES)
    table: dict[Row, dict[Column, Measured]] = {}
    for score in found:
        column = Column(score.dataset, score.dataset_commit, score.dataset_path, score.template)
        table.setdefault((score.repo, score.commit, score.base_id), {}).setdefault(column, score)
    columns = sorted({column for row in table.values() for column in row}, key=lambda column: column.key)
    least = metric == "target_loss"
    return page(
        "library/scores.html",
        viewer,
        asked={"metric": metric, "base_model": base_model, "owner": owner},
        sort=sort,
        metrics=get_args(Metric),
        bases=sorted(set(base_models.names(session).values()) | {score.base_id for score in found}),
        columns=columns,
        rows=_sorted(table, next((column for column in columns if column.key == sort), None), least=least),
        table=table,
        marks={column: _marks(table, column, least=least) for column in columns},
        versions=Counter(repo for repo, _, _ in table),
        cut=len(found) == FIGURES,
        least=least,
    )


def _sorted(table: Table, column: Column | None, *, least: bool) -> list[Row]:
    """By name, or by one column's figures, the best first and those without one last."""

    def place(row: Row) -> tuple[float, str, str]:
        figure = table[row].get(column) if column else None
        value = math.inf if column is None or figure is None else figure.value if least else -figure.value
        return value, row[0] or "", row[2]

    return sorted(table, key=place)


def _marks(table: Table, column: Column, *, least: bool) -> tuple[Row | None, Mapping[Row, int]]:
    """(the best row, if its interval is clear of every other's; of each row how good it is, 0 to 9)."""
    figures = {row: figures[column] for row, figures in table.items() if column in figures}
    worst, best = (max, min) if least else (min, max)
    ends = (worst(f.value for f in figures.values()), best(f.value for f in figures.values()))
    if not least:
        ends = (0.0, 1.0)  # shares are told on their own scale, a loss between the worst and the best
    span = (ends[1] - ends[0]) or 1.0
    levels = {row: round(9 * max(0.0, min(1.0, (f.value - ends[0]) / span))) for row, f in figures.items()}
    return _clear_best(figures, least=least), levels


def _clear_best(figures: Mapping[Row, Measured], *, least: bool) -> Row | None:
    first = sorted(figures, key=lambda row: figures[row].value, reverse=not least)
    if len(first) < 2:
        return None
    ours, others = figures[first[0]], [figures[row] for row in first[1:]]
    if least:
        return first[0] if all(ours.high < other.low for other in others) else None
    return first[0] if all(ours.low > other.high for other in others) else None
