"""Render pages: typed contexts into templates, filters for numbers and times, Markdown from strangers made safe, security headers.

A page is a subclass of `Page` that names its template. Its fields are all that the template may use, beside the `viewer`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote, urlencode

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from hub.registry.access.viewer import Viewer

HERE = Path(__file__).parent

# Nothing but our own files may be loaded, and no script stands in a page: text from an upload cannot become code.
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}

MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".txt": "text/plain"}


@dataclass(frozen=True)
class StaticFile:
    path: Path
    media_type: str
    hash: str


def _static_file(path: Path) -> StaticFile:
    return StaticFile(path, MEDIA_TYPES[path.suffix], hashlib.sha256(path.read_bytes()).hexdigest()[:12])


STATIC = {path.name: _static_file(path) for path in sorted((HERE / "static").iterdir())}

_markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
_markdown.add_render_rule("table_open", lambda *_: '<div class="scroll" tabindex="0"><table>\n')
_markdown.add_render_rule("table_close", lambda *_: "</table></div>\n")


def markdown(text: str, below: int = 2) -> Markup:
    """As HTML: commonmark without raw HTML or images, so that nothing of it runs or is fetched.

    Its headings are put below one of the page's, and none is skipped, so that the page has an outline whatever a stranger wrote.
    """
    tokens = _markdown.parse(text)
    level = below
    for token in tokens:
        if token.type == "heading_open":
            level = min(below + int(token.tag[1]), level + 1, 6)
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{level}"
    html: str = _markdown.renderer.render(tokens, _markdown.options, {})
    return Markup(html)  # noqa: S704 - the renderer escapes everything it does not make itself


def size(count: float) -> str:
    """Bytes, in units of a thousand as disks and networks have them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.2g} {unit}"
        count /= 1_000
    return f"{count:.3g} TB"


def amount(count: float) -> str:
    """A number of things: 4.7 M."""
    for unit in ("", " k", " M", " G"):
        if count < 999.5:
            return f"{count:.3g}{unit}"
        count /= 1_000
    return f"{count:.3g} T"


def duration(seconds: float) -> str:
    """Its two largest units: 3 min 20 s."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, length, below, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length} {unit}" + (f" {rest} {below}" if rest else "")
    raise AssertionError(seconds)


def age(time: datetime) -> str:
    """How long ago, in one unit."""
    seconds = (datetime.now(UTC) - time).total_seconds()
    for unit, length in (("y", 31_557_600), ("mo", 2_629_800), ("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"


def static(name: str) -> str:
    return f"/static/{name}?v={STATIC[name].hash}"


def query_string(values: Mapping[str, object]) -> str:
    """The part of an address after "?", without what is empty."""
    return urlencode({key: value for key, value in values.items() if value not in (None, "", [])}, doseq=True)


TEMPLATES = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {"size": size, "amount": amount, "duration": duration, "age": age, "query": query_string}
TEMPLATES.globals |= {"static": static}


@dataclass(frozen=True)
class Page:
    """Base of every page's context: a frozen dataclass whose fields are the variables of its template.

    Write the template's name in the class statement: `class TeamsPage(Page, template="teams/teams.html")`.
    """

    template: ClassVar[str]

    def __init_subclass__(cls, template: str) -> None:
        cls.template = template

    def variables(self) -> dict[str, object]:
        """The fields by name, each as it is: no dataclass within is turned into a dict."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def render(page: Page, viewer: Viewer | None, *, status: int = 200) -> HTMLResponse:
    """The page as HTML. Checks no permission: its route has done that."""
    html = TEMPLATES.get_template(page.template).render(page.variables(), viewer=viewer)
    return HTMLResponse(html, status_code=status, headers=HEADERS)


@dataclass(frozen=True)
class ErrorPage(Page, template="error.html"):
    """How an error looks in a browser."""

    status: int
    code: str  # as the API says it: "repo_not_found"
    message: str


def error_page(request: Request, status: int, code: str, message: str) -> Response:
    """How an error looks in a browser. Somebody who is not signed in is sent to the form that changes that, and back."""
    if status == 401:
        back = request.url.path if request.method == "GET" else ""
        if back and request.url.query:
            back += f"?{request.url.query}"
        return RedirectResponse(f"/login?next={quote(back, safe='')}" if back else "/login", status_code=303)
    viewer = getattr(request.state, "viewer", None)
    return render(ErrorPage(status, code, message), viewer, status=status)
