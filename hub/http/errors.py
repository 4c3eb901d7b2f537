"""How an error looks: to programs under /v1, to Hugging Face clients, and to people in a browser."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from hub.registry.platform.errors import HubError

log = logging.getLogger(__name__)


def error_body(code: str, message: str, **details: Any) -> dict[str, object]:
    return {"error": {"code": code, "message": message, **details}}


def error_json(error: HubError) -> JSONResponse:
    body = error_body(error.code, error.message, **error.details)
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return JSONResponse(body, status_code=error.status, headers=headers)


Page = Callable[[Request, int, str, str], Response]
HubShape = Callable[[Request, int, str, str, Mapping[str, object]], Response]

OWN_SHAPE = ("/v1", "/healthz", "/readyz")


def install_error_handlers(app: FastAPI, page: Page, hub_shape: HubShape) -> None:
    """One shape for every error: ours under /v1, a page for browsers, and elsewhere what Hugging Face clients read.

    `page` renders (request, status, code, message), `hub_shape` the same and the error's details.
    """

    def wants_page(request: Request) -> bool:
        return not request.url.path.startswith("/v1") and "text/html" in request.headers.get("Accept", "")

    def on_hub_error(request: Request, error: HubError) -> Response:
        if error.status >= 500:
            log.error("request failed", extra={"code": error.code, "path": request.url.path}, exc_info=error)
        if wants_page(request):
            return page(request, error.status, error.code, error.message)
        if not request.url.path.startswith(OWN_SHAPE):
            return hub_shape(request, error.status, error.code, error.message, error.details)
        return error_json(error)

    def on_invalid(request: Request, error: RequestValidationError) -> Response:
        problems = [
            {"where": ".".join(str(part) for part in problem["loc"]), "message": problem["msg"]}
            for problem in error.errors()
        ]
        message = "; ".join(f"{problem['where']}: {problem['message']}" for problem in problems)
        if wants_page(request):
            return page(request, 422, "invalid_request", message)
        if not request.url.path.startswith(OWN_SHAPE):
            return hub_shape(request, 422, "invalid_request", f"The request cannot be read: {message}.", {})
        return JSONResponse(error_body("invalid_request", message, problems=problems), status_code=422)

    def on_http_error(request: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        message = {
            404: "There is nothing at this address.",
            405: f"The address is there, but not for {request.method}.",
        }.get(error.status_code, str(error.detail))
        if wants_page(request):
            return page(request, error.status_code, code, message)
        if not request.url.path.startswith(OWN_SHAPE):
            return hub_shape(request, error.status_code, code, message, {})
        return JSONResponse(error_body(code, message), status_code=error.status_code, headers=error.headers)

    app.add_exception_handler(HubError, on_hub_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, on_invalid)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, on_http_error)  # type: ignore[arg-type]
