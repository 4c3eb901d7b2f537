"""Errors as Hugging Face clients read them: a code in X-Error-Code by which they choose a class, a sentence in X-Error-Message."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from api.huggingface.common import header_text, repo_url
from hub.registry.platform.errors import HubError

CODES = {
    "repo_not_found": "RepoNotFound",
    "revision_not_found": "RevisionNotFound",
    "file_not_found": "EntryNotFound",
}


class NotOffered(HubError):
    """A part of the Hugging Face Hub that this hub does not have. The status is 400, because clients retry after a 5xx."""

    status, code = 400, "not_offered"


def render(request: Request, status: int, code: str, message: str, details: Mapping[str, Any]) -> Response:
    headers = {"X-Error-Message": header_text(message)}
    if code in CODES:
        headers["X-Error-Code"] = CODES[code]
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body: dict[str, Any] = {"error": message}
    if request.url.path.startswith("/oauth/"):
        body = {"error": code, "error_description": message}  # RFC 6749's shape
    if "commit" in details:
        headers["X-Repo-Commit"] = details["commit"]  # clients then remember that the file is not in it
    if code == "repo_exists" and "repo" in details:
        body["url"] = repo_url(request, details["type"], details["repo"])
    elif code == "repo_exists":
        status = 403  # by 409 clients understand that the repo is there to be used, but only its name is held
    return JSONResponse(body, status_code=status, headers=headers)
