"""A family of commits as inline SVG: ancestors on the left, descendants on the right, every node that has an address a link."""

from collections.abc import Sequence

from markupsafe import Markup

from hub.registry.library.lineage import Family, Line, Member

WIDTH, HEIGHT = 208, 38  # of a node
ACROSS, DOWN = 78, 12  # between nodes
MARGIN = 6
LETTERS = 27  # that fit into a node


def family_graph(family: Family) -> Markup:
    """Empty where the commit has no relatives."""
    if len(family.members) < 2:
        return Markup()
    generations = sorted({member.generation for member in family.members})
    columns = [[member for member in family.members if member.generation == generation] for generation in generations]
    tallest = max(len(column) for column in columns)
    width = len(columns) * (WIDTH + ACROSS) - ACROSS + 2 * MARGIN
    height = tallest * (HEIGHT + DOWN) - DOWN + 2 * MARGIN
    positions: dict[str, tuple[float, float]] = {}
    for number, column in enumerate(columns):
        top = (height - len(column) * (HEIGHT + DOWN) + DOWN) / 2
        for row, member in enumerate(column):
            positions[member.key] = (MARGIN + number * (WIDTH + ACROSS), top + row * (HEIGHT + DOWN))
    below = {member.key for member in family.members if member.generation > 0}
    lines = Markup().join(_line(line, positions, line.child in below) for line in family.lines)
    nodes = Markup().join(_node(member, *positions[member.key]) for member in family.members)
    return Markup(
        '<svg class="family" viewBox="0 0 {} {}" width="{}" height="{}" role="group" aria-label="Lineage graph">{}{}</svg>'
    ).format(width, f"{height:.0f}", width, f"{height:.0f}", lines, nodes)


def address(member: Member) -> str | None:
    if member.repo is None:
        return None
    kind = "datasets" if member.type == "dataset" else "adapters"
    tab = "" if member.type == "dataset" else "/lineage"
    return f"/{kind}/{member.repo}{tab}?revision={member.version or member.commit}"


def title(member: Member) -> str:
    what = "data set" if member.type == "dataset" else "adapter"
    if member.repo is None:
        return f"deleted {what}" if member.lost else f"private {what}"
    return member.repo


def _line(line: Line, positions: dict[str, tuple[float, float]], downwards: bool) -> Markup:
    """The weight stands at the end where lines lie apart: many lead to one child, and many leave one parent."""
    (x1, y1), (x2, y2) = positions[line.parent], positions[line.child]
    x1, y1, y2 = x1 + WIDTH, y1 + HEIGHT / 2, y2 + HEIGHT / 2
    bend = (x2 - x1) / 2
    path = Markup('<path d="M{:.0f} {:.1f}C{:.0f} {:.1f} {:.0f} {:.1f} {:.0f} {:.1f}"/>').format(
        x1, y1, x1 + bend, y1, x2 - bend, y2, x2, y2
    )
    if line.weight is None:
        return path
    x, y, end = (x2 - 4, y2, " end") if downwards else (x1 + 4, y1, "")
    label = Markup('<text class="weight{}" x="{:.0f}" y="{:.1f}">{:+.2f}</text>')
    return path + label.format(end, x, y - 3, line.weight)


def _node(member: Member, x: float, y: float) -> Markup:
    name = title(member)
    under = _under(member)
    classes = " ".join(["node", member.type, *_marks(member)])
    drawn = Markup(
        '<title>{}{}</title><rect x="{:.0f}" y="{:.1f}" width="{}" height="{}" rx="5"/>'
        '<text x="{:.0f}" y="{:.1f}">{}</text><text class="under" x="{:.0f}" y="{:.1f}">{}</text>'
    ).format(
        name, f", {under}" if under else "", x, y, WIDTH, HEIGHT, x + 9, y + 16, _short(name), x + 9, y + 30, under
    )
    at = address(member)
    if at is None or member.generation == 0:
        return Markup('<g class="{}">{}</g>').format(classes, drawn)
    return Markup('<a class="{}" href="{}">{}</a>').format(classes, at, drawn)


def _marks(member: Member) -> Sequence[str]:
    marks = {"lost": member.lost, "hidden": member.repo is None, "itself": member.generation == 0}
    return [mark for mark, on in marks.items() if on]


def _under(member: Member) -> str:
    what = "data set" if member.type == "dataset" else "adapter"
    pieces = [what if member.repo else "", member.version or (member.commit or "")[:8], "lost" if member.lost else ""]
    return " · ".join(piece for piece in pieces if piece)


def _short(name: str) -> str:
    """The end of a long name, which tells more than its beginning."""
    return name if len(name) <= LETTERS else f"…{name[-LETTERS + 1 :]}"
