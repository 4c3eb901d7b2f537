"""Grids of coloured cells as inline SVG: shares of a partition, cosines of modules. The stronger the colour the larger."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from markupsafe import Markup

CELL = 18
LETTER = 6.6  # about the width of one, at the size of labels
PARTS = {"system1": "System 1 alone", "system2": "System 2 alone", "common": "Common"}


@dataclass(frozen=True)
class Cell:
    row: int
    column: int
    strength: float  # 0 to 1
    title: str


@dataclass(frozen=True)
class Grid:
    """`kind` is the class that colours the cells; `links` are the addresses of the rows, one each, or none at all."""

    label: str
    kind: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Iterable[Cell]
    links: Sequence[str] = ()
    size: int = CELL


def draw(grid: Grid) -> Markup:
    size, left = grid.size, 12 + LETTER * max(map(len, grid.rows), default=0)
    width, height = left + size * len(grid.columns) + 4, size * (len(grid.rows) + 1) + 4
    parts = []
    for index, name in enumerate(grid.columns):
        parts.append(f'<text x="{left + (index + 0.5) * size:.1f}" y="12" class="across">{escape(name)}</text>')
    for index, name in enumerate(grid.rows):
        text = f'<text x="{left - 6:.1f}" y="{(index + 1.65) * size:.1f}" class="y">{escape(name)}</text>'
        parts.append(f'<a href="{escape(grid.links[index])}">{text}</a>' if grid.links else text)
    for cell in grid.cells:
        place = f'x="{left + cell.column * size:.1f}" y="{(cell.row + 1) * size}"'
        side = f'width="{size - 1}" height="{size - 1}"'
        parts.append(
            f'<rect {place} {side} fill-opacity="{cell.strength:.2f}"><title>{escape(cell.title)}</title></rect>'
        )
    # What has links inside is no image to a screen reader, which would hide them.
    role = "group" if grid.links else "img"
    head = f'<svg class="heat {grid.kind}" role="{role}" aria-label="{escape(grid.label)}" '
    shape = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">'
    return Markup(head + shape + "".join(parts) + "</svg>")  # noqa: S704 - every text in it is escaped above


def partition_maps(matrices: Sequence[Mapping[str, Any]]) -> tuple[float, list[tuple[str, str, Markup]]]:
    """(the largest share, for each part of a partition its class, name and picture): kinds of matrix down, layers across, one scale."""
    places = [_place(row["matrix"]) for row in matrices]
    kinds = list(dict.fromkeys(kind for kind, _ in places))
    layers = sorted({layer for _, layer in places}, key=lambda layer: int(layer or -1))
    most = max((row[part] for row in matrices for part in PARTS), default=0.0) or 1.0
    maps = []
    for part, name in PARTS.items():
        cells = [
            Cell(kinds.index(kind), layers.index(layer), row[part] / most, f"{row['matrix']}: {row[part]:.1%} {name}")
            for row, (kind, layer) in zip(matrices, places, strict=True)
        ]
        label = f"{name}: share of each matrix, by layer"
        maps.append((part, name, draw(Grid(label, part, kinds, layers, cells))))
    return most, maps


def _place(matrix: str) -> tuple[str, str]:
    """`model.layers.7.mlp.up_proj A` -> (`mlp.up_proj A`, `7`)."""
    found = re.search(r"\.(\d+)\.", matrix)
    return (matrix[found.end() :], found[1]) if found else (matrix, "")
