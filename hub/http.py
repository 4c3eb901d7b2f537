"""What routes and pages share: the services, one transaction a request, who is asking, and how an error looks. No routes."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.registry.access import credentials
from hub.registry.access.viewer import Viewer
from hub.registry.platform import db
from hub.registry.platform.errors import Forbidden, HubError, NotSignedIn, TooLarge
from hub.registry.platform.rate_limits import RateLimits, TooManyRequests
from hub.registry.platform.services import Services

log = logging.getLogger(__name__)

COOKIE = "loraloom_session"
UNLIMITED = ("/healthz", "/readyz", "/static/")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


async def get_services(request: Request) -> Services:
    # Async, as FastAPI gives a thread to each dependency that is not, which costs more than this does.
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


def get_session(services: ServicesDep) -> Iterator[Session]:
    """One request, one transaction. With scope="function" it commits before the response is sent."""
    with db.transaction(services.sessions) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session, scope="function")]


def identify(request: Request, session: Session) -> Viewer | None:
    """Who asks, by bearer token or by session cookie; None for a visitor."""
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and secret:
        return credentials.identify_token(session, secret.strip())
    cookie = request.cookies.get(COOKIE)
    if not cookie:
        return None
    if request.method not in SAFE_METHODS:
        refuse_cross_site(request)
    return credentials.identify_session(session, cookie)


def get_viewer(request: Request, services: ServicesDep) -> Viewer | None:
    """The same with a database session that is closed again at once."""
    if "Authorization" not in request.headers and COOKIE not in request.cookies:
        return None
    with db.transaction(services.sessions) as session:
        request.state.viewer = identify(request, session)  # also for the page that shows an error
        return request.state.viewer  # type: ignore[no-any-return]


ViewerDep = Annotated[Viewer | None, Depends(get_viewer)]


def require_viewer(viewer: ViewerDep) -> Viewer:
    if viewer is None:
        raise NotSignedIn("Sign in, or send a token as `Authorization: Bearer ll_...`.")
    return viewer


SignedIn = Annotated[Viewer, Depends(require_viewer)]


def require_admin(viewer: SignedIn) -> Viewer:
    if not viewer.is_admin:
        raise Forbidden("Only an administrator may do this.")
    return viewer


Admin = Annotated[Viewer, Depends(require_admin)]


def refuse_cross_site(request: Request) -> None:
    """A browser sends the cookie along with another site's form; it also says, in headers that no page can set, where the form is from."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        same = site in ("same-origin", "none")
    else:
        origin = request.headers.get("Origin")
        same = origin is None or urlsplit(origin).netloc == request.headers.get("Host")
    if not same:
        raise Forbidden("This request came from another site; go to the hub itself and repeat it there.")


def set_session_cookie(response: Response, services: Services, secret: str) -> None:
    settings = services.settings
    response.set_cookie(
        COOKIE,
        secret,
        max_age=int(settings.session_days * 86_400),
        httponly=True,
        samesite="lax",
        secure=settings.cookie_secure,
    )


class LimitRate:
    """Counts requests by token, session or, of visitors, address, and refuses those over the limit, wherever they go.

    A secret that signs nobody in counts as a failed sign-in of its address, so that secrets cannot be tried out at full speed.
    """

    def __init__(self, app: ASGIApp, limits: RateLimits) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(UNLIMITED):
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        secret = request.headers.get("Authorization") or request.cookies.get(COOKIE)
        address = address_of(request)
        who = hashlib.sha256(secret.encode()).hexdigest() if secret else f"address {address}"
        counted = await run_in_threadpool(self.limits.request, who)
        headers = counted[1].headers() if counted else {}

        async def send_with_budget(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
                if message["status"] == 401 and secret:
                    await run_in_threadpool(self.limits.count_failure, address)
            await send(message)

        try:
            if counted and not counted[0]:
                raise TooManyRequests(
                    f"More than {counted[1].limit} requests in a minute; wait {counted[1].seconds} seconds."
                )
            if secret:
                await run_in_threadpool(self.limits.check_attempts, address)
        except HubError as error:
            refusal: Response = scope["app"].exception_handlers[HubError](request, error)
            await refusal(scope, receive, send_with_budget)
            return
        await self.app(scope, receive, send_with_budget)


def address_of(request: Request) -> str:
    """Where a request comes from; behind a proxy that uvicorn was told to trust, where the proxy says."""
    return request.client.host if request.client else "unknown"


def root_url(request: Request) -> str:
    """This hub's address as the client wrote it, behind a proxy too: Hugging Face clients refuse answers that name another host."""
    headers = request.headers
    scheme = headers.get("X-Forwarded-Proto", request.url.scheme)
    host = headers.get("X-Forwarded-Host", headers.get("Host", request.url.netloc))
    return f"{scheme}://{host}{request.scope.get('root_path', '')}"


class LimitBody:
    """Refuses a request body over the limit, by its declared length or as it streams, before anyone has stored it."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.limit:
                raise too_large(self.limit)
            return message

        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.limit:
            response = error_json(too_large(self.limit))
            await response(scope, receive, send)
            return
        await self.app(scope, counted, send)


def too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request is larger than this hub accepts ({limit:,} bytes); send less at once.")


def error_body(code: str, message: str, **details: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, **details}}


def error_json(error: HubError) -> JSONResponse:
    body = error_body(error.code, error.message, **error.details)
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return JSONResponse(body, status_code=error.status, headers=headers)


Page = Callable[[Request, int, str, str], Response]
HubShape = Callable[[Request, int, str, str, Mapping[str, Any]], Response]

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
