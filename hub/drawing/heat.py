"""Grids of coloured cells as inline SVG: shares of a partition, cosines of adapters. The stronger the colour, the larger the value."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

from markupsafe import Markup

CELL = 18
LETTER = 6.6  # about the width of a letter in a label
REGIONS = {"system1": "System 1 alone", "system2": "System 2 alone", "common": "Common"}


@dataclass(frozen=True)
class Cell:
    row: int
    column: int
    strength: float  # 0 to 1
    title: str


@dataclass(frozen=True)
class Grid:
    """`kind` is the CSS class that colours the cells; `links` are the addresses of all rows, or there are none."""

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
        position = f'x="{left + cell.column * size:.1f}" y="{(cell.row + 1) * size}"'
        square = f'width="{size - 1}" height="{size - 1}"'
        parts.append(
            f'<rect {position} {square} fill-opacity="{cell.strength:.2f}"><title>{escape(cell.title)}</title></rect>'
        )
    # A screen reader would hide links inside an image, so a grid with links is a group.
    role = "group" if grid.links else "img"
    head = f'<svg class="heat {grid.kind}" role="{role}" aria-label="{escape(grid.label)}" '
    shape = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">'
    return Markup(head + shape + "".join(parts) + "</svg>")  # noqa: S704 - every text in it is escaped above


class MatrixShares(Protocol):
    """The shares of one matrix that only System 1 has, only System 2, and both."""

    @property
    def matrix(self) -> str: ...
    @property
    def system1(self) -> float: ...
    @property
    def system2(self) -> float: ...
    @property
    def common(self) -> float: ...


@dataclass(frozen=True)
class RegionMap:
    name: str
    picture: Markup


def partition_maps(matrices: Sequence[MatrixShares]) -> tuple[float, list[RegionMap]]:
    """The largest share, and a map of each region of a partition: kinds of matrix down, layers across, all on one scale."""
    positions = [_kind_and_layer(row.matrix) for row in matrices]
    kinds = list(dict.fromkeys(kind for kind, _ in positions))
    layers = sorted({layer for _, layer in positions}, key=lambda layer: int(layer or -1))
    shares = {
        "system1": [row.system1 for row in matrices],
        "system2": [row.system2 for row in matrices],
        "common": [row.common for row in matrices],
    }
    largest = max((share for region in shares.values() for share in region), default=0.0) or 1.0
    maps = []
    for region, name in REGIONS.items():
        cells = [
            Cell(kinds.index(kind), layers.index(layer), share / largest, f"{row.matrix}: {share:.1%} {name}")
            for row, share, (kind, layer) in zip(matrices, shares[region], positions, strict=True)
        ]
        label = f"{name}: share of each matrix, by layer"
        maps.append(RegionMap(name, draw(Grid(label, region, kinds, layers, cells))))
    return largest, maps


def _kind_and_layer(matrix: str) -> tuple[str, str]:
    """`model.layers.7.mlp.up_proj A` -> (`mlp.up_proj A`, `7`)."""
    layer = re.search(r"\.(\d+)\.", matrix)
    return (matrix[layer.end() :], layer[1]) if layer else (matrix, "")
