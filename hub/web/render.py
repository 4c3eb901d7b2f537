"""How a page is made: templates with the headers that keep a page to our own files, and Markdown from strangers made safe."""

from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hub.registry.teams import Viewer

HERE = Path(__file__).parent

# Nothing but our own files may be loaded, and no script stands in a page: text from an upload cannot become code.
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_templates = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(name: str, viewer: Viewer | None, *, status: int = 200, **values: Any) -> HTMLResponse:
    html = _templates.get_template(name).render(viewer=viewer, **values)
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}
    return HTMLResponse(html, status_code=status, headers=headers)


def error_page(request: Request, status: int, code: str, message: str) -> Response:
    """How an error looks in a browser. Somebody who is not signed in is sent to the form that changes that."""
    if status == 401:
        return RedirectResponse("/login", status_code=303)
    return page("error.html", None, status=status, code=code, message=message)
