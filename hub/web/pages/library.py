"""The map of a library and the table of adapters by data set."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

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
from hub.vocabulary import METRICS, Metric
from hub.web.render import Page, render

router = APIRouter(include_in_schema=False)

GRID = 60  # adapters, above which a grid of cosines is too large to read
GROUPS = 8  # clusters with a colour of their own
FIGURES = 10_000  # of one table

Owner = Annotated[str, Query(pattern=r"^[\w.-]{0,96}$")]
Text = Annotated[str, Query(max_length=500, pattern=r"^[^\x00]*$")]


@dataclass(frozen=True)
class MapPictures:
    """A map as pictures. `share`: of the differences between adapters, which the plane keeps."""

    scatter: Markup
    share: float
    clusters: Sequence[Sequence[Module]]  # those with a colour of their own
    small_clusters: Sequence[Sequence[Module]]
    grid: Markup  # empty where it would be too large to read
    order: Sequence[int]  # of the adapters in the grid and its table


@dataclass(frozen=True, kw_only=True)
class MapPage(Page, template="library/map.html"):
    """The adapters of one base: which are nearly the same, which belong together."""

    base_model: str
    owner: str  # whose adapters; "" for everybody's
    bases: Sequence[tuple[str, int]]  # (base, number of its adapters), the most adapters first
    map: Map | None
    pictures: MapPictures | None  # of the same map
    problem: str
    address: Callable[[Module], str]
    standard_error: Callable[[float], float] = similar.standard_error


@router.get("/map")
def library_map(session: SessionDep, viewer: ViewerDep, base_model: Text = "", owner: Owner = "") -> Response:
    """Of the base with the most adapters if the address names none."""
    bases = similar.bases_of(session, viewer)
    chosen = base_model or (bases[0][0] if bases else "")
    library, problem = None, ""
    try:
        library = similar.library_map(session, viewer, chosen, namespaces=[owner] if owner else []) if chosen else None
    except TooManyModules as error:
        problem = error.message
    page = MapPage(
        base_model=chosen,
        owner=owner,
        bases=bases,
        map=library,
        pictures=_pictures(library) if library else None,
        problem=problem,
        address=address,
    )
    return render(page, viewer, status=422 if problem else 200)


def _pictures(library: Map) -> MapPictures:
    """Dots whose distances are those of the updates, coloured by cluster; and the grid of all cosines, where it can be read."""
    groups = [group for group in library.clusters if len(group) > 1]
    colours = {index: number for number, group in enumerate(groups[:GROUPS], 1) for index in group}
    positions, share = layout(library.cosines)
    dots = [
        Dot(float(x), float(y), module.name, address(module), f"group{colours.get(index, 0)}")
        for index, (module, (x, y)) in enumerate(zip(library.modules, positions, strict=True))
    ]
    clusters = [[library.modules[index] for index in group] for group in groups]
    return MapPictures(
        scatter=scatter(dots, "Adapters by likeness: the nearer two are, the more alike"),
        share=share,
        clusters=clusters[:GROUPS],
        small_clusters=clusters[GROUPS:],
        grid=_grid(library) if 1 < len(library.modules) <= GRID else Markup(),
        order=[index for group in library.clusters for index in group],
    )


def _grid(library: Map) -> Markup:
    """Every cosine, the adapters of a cluster beside each other; what is unlike or opposed stays blank."""
    order = [index for group in library.clusters for index in group]
    names = [library.modules[index].name for index in order]
    cells = []
    for row, i in enumerate(order):
        for column, j in enumerate(order):
            cosine = float(library.cosines[i, j])
            words = "itself" if i == j else f"cosine {cosine:.2f} ± {similar.standard_error(cosine):.2f}"
            cells.append(Cell(row, column, max(0.0, cosine), f"{names[row]} and {names[column]}: {words}"))
    numbers = [str(number) for number in range(1, len(order) + 1)]
    rows = [f"{name}  {number}" for name, number in zip(names, numbers, strict=True)]
    links = [address(library.modules[index]) for index in order]
    return draw(Grid("Cosine of every two adapters", "cosine", rows, numbers, cells, links))


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


class Row(NamedTuple):
    """What was measured: a commit of an adapter, or a base alone."""

    repo: str | None  # None for a base alone
    commit: str | None
    base: str


Figures = Mapping[Row, Mapping[Column, Measured]]


@dataclass(frozen=True)
class Marks:
    """How the figures of a column compare."""

    best: Row | None  # if its interval is clear of every other's
    levels: Mapping[Row, int]  # how good each row is, 0 to 9


@dataclass(frozen=True)
class Table:
    """Adapters by data set: the newest figure of each pair."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    figures: Figures
    marks: Mapping[Column, Marks]
    versions: Mapping[str | None, int]  # repo -> number of its commits in the table


@dataclass(frozen=True, kw_only=True)
class ScoresPage(Page, template="library/scores.html"):
    """What was measured on adapters."""

    metric: Metric
    base_model: str  # "" for every base
    owner: str  # "" for everybody
    sort: str  # key of the column that orders the rows; "" for their names
    bases: Sequence[str]
    table: Table
    cut: bool  # older figures are left out
    lower_is_better: bool
    metrics: Sequence[Metric] = METRICS


@router.get("/scores")
def scores(
    session: SessionDep,
    viewer: ViewerDep,
    metric: Metric = "exact_match",
    base_model: Text = "",
    owner: Owner = "",
    sort: Text = "",
) -> Response:
    names = base_models.names(session)
    base_id = names.get(base_model, base_model) or None
    newest = provenance.scores(session, viewer, metric=metric, base_id=base_id, owner=owner or None, limit=FIGURES)
    lower_is_better = metric == "target_loss"
    page = ScoresPage(
        metric=metric,
        base_model=base_model,
        owner=owner,
        sort=sort,
        bases=sorted(set(names.values()) | {score.base_id for score in newest}),
        table=_table(newest, sort, least=lower_is_better),
        cut=len(newest) == FIGURES,
        lower_is_better=lower_is_better,
    )
    return render(page, viewer)


def _table(scores: Sequence[Measured], sort: str, *, least: bool) -> Table:
    figures: dict[Row, dict[Column, Measured]] = {}
    for score in scores:
        column = Column(score.dataset, score.dataset_commit, score.dataset_path, score.template)
        figures.setdefault(Row(score.repo, score.commit, score.base_id), {}).setdefault(column, score)
    columns = sorted({column for row in figures.values() for column in row}, key=lambda column: column.key)
    return Table(
        columns=columns,
        rows=_sorted(figures, next((column for column in columns if column.key == sort), None), least=least),
        figures=figures,
        marks={column: _marks(figures, column, least=least) for column in columns},
        versions=Counter(row.repo for row in figures),
    )


def _sorted(figures: Figures, column: Column | None, *, least: bool) -> list[Row]:
    """By name, or by one column's figures, the best first and those without one last."""

    def place(row: Row) -> tuple[float, str, str]:
        figure = figures[row].get(column) if column else None
        value = math.inf if column is None or figure is None else figure.value if least else -figure.value
        return value, row.repo or "", row.base

    return sorted(figures, key=place)


def _marks(table: Figures, column: Column, *, least: bool) -> Marks:
    figures = {row: figures[column] for row, figures in table.items() if column in figures}
    worst, best = (max, min) if least else (min, max)
    ends = (worst(f.value for f in figures.values()), best(f.value for f in figures.values()))
    if not least:
        ends = (0.0, 1.0)  # shares have a scale of their own, a loss lies between the worst and the best
    span = (ends[1] - ends[0]) or 1.0
    levels = {row: round(9 * max(0.0, min(1.0, (f.value - ends[0]) / span))) for row, f in figures.items()}
    return Marks(_clear_best(figures, least=least), levels)


def _clear_best(figures: Mapping[Row, Measured], *, least: bool) -> Row | None:
    first = sorted(figures, key=lambda row: figures[row].value, reverse=not least)
    if len(first) < 2:
        return None
    ours, others = figures[first[0]], [figures[row] for row in first[1:]]
    if least:
        return first[0] if all(ours.high < other.low for other in others) else None
    return first[0] if all(ours.low > other.high for other in others) else None
