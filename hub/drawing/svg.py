"""Pictures of results as SVG: for a page, whose style sheet colours them, or `standalone` as files beside a model card."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 24, 40  # margins

_STYLE = (
    "<style>text{font:12px sans-serif;fill:#57606a}line,polyline{stroke:#8c959f;fill:none}.kept{fill:#0969da}.cut{fill:#d0d7de}"
    ".mark{stroke:#cf222e}@media(prefers-color-scheme:dark){text{fill:#9198a1}.kept{fill:#4493f8}.cut{fill:#3d444d}}</style>"
)


def spectrum(name: str, values: Sequence[float], kept: int) -> str:
    """Singular values in falling order on a logarithmic axis: the first `kept` in colour, the others are those to be cut."""
    exponents = [math.log10(max(value, 1e-12)) for value in values]
    low, high = exponents[-1], exponents[0]
    width = (WIDTH - LEFT - RIGHT) / len(exponents)
    bars = []
    for index, exponent in enumerate(exponents):
        y = _height(exponent, low - 0.1, high)
        bars.append(
            f'<rect class="{"kept" if index < kept else "cut"}" x="{LEFT + index * width:.2f}" y="{y:.1f}" '
            f'width="{max(width, 0.5):.2f}" height="{HEIGHT - BOTTOM - y:.1f}"/>'
        )
    label = f"Singular values of {name}: {kept} of {len(values)} kept"
    ticks = [
        f'<text x="{LEFT - 6}" y="{_height(exponent, low - 0.1, high) + 4:.1f}" text-anchor="end">{10**exponent:.2g}</text>'
        for exponent in (low, high)
    ]
    ends = f'<text x="{LEFT}" y="{HEIGHT - 20}">1</text><text x="{WIDTH - RIGHT}" y="{HEIGHT - 20}" text-anchor="end">{len(values)}</text>'
    return _picture(label, [*bars, *ticks, ends])


def gains(values: Mapping[str, float], chosen: Sequence[str]) -> str:
    """The best predicted gain of each matrix as a bar, in the order of the model; matrices that were cut are in colour."""
    high, low = max(0.0, *values.values()), min(0.0, *values.values())
    width = (WIDTH - LEFT - RIGHT) / len(values)
    zero = _height(0.0, low, high)
    bars = []
    for index, (name, value) in enumerate(values.items()):
        y = _height(value, low, high)
        bars.append(
            f'<rect class="{"kept" if name in chosen else "cut"}" x="{LEFT + index * width:.2f}" y="{min(y, zero):.1f}" '
            f'width="{max(width * 0.8, 0.5):.2f}" height="{abs(zero - y):.1f}"><title>{escape(name)}: {value:.4g}</title></rect>'
        )
    ticks = [
        f'<text x="{LEFT - 6}" y="{_height(value, low, high) + 4:.1f}" text-anchor="end">{value:.2g}</text>'
        for value in sorted({low, high})
    ]
    return _picture(
        "Best predicted gain of each matrix, first layer to last; in colour those that were cut", [*bars, *ticks]
    )


def standalone(picture: str) -> str:
    """The picture with a style sheet of its own, which the security policy of a page would not allow."""
    start = picture.index(">") + 1
    return picture[:start] + _STYLE + picture[start:]


def _height(value: float, low: float, high: float) -> float:
    """The y coordinate of a value on the axis from low to high."""
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / ((high - low) or 1))


def _picture(label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>'
        f'{"".join(parts)}<text x="{LEFT}" y="{HEIGHT - 4}">{escape(label)}</text></svg>\n'
    )
