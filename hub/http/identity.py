"""Who sends a request, and with which services: one transaction a request, tokens, session cookies."""

from collections.abc import Iterator
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response
from sqlalchemy.orm import Session

from hub.registry.access import credentials, permissions
from hub.registry.access.viewer import Viewer
from hub.registry.platform import db
from hub.registry.platform.errors import Forbidden
from hub.registry.platform.services import Services

COOKIE = "loraloom_session"
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
    """The sender of a request, by bearer token or by session cookie; None for a visitor."""
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
    """The same, with a database session that is closed again at once."""
    if "Authorization" not in request.headers and COOKIE not in request.cookies:
        return None
    with db.transaction(services.sessions) as session:
        request.state.viewer = identify(request, session)  # also for the page that shows an error
        return request.state.viewer  # type: ignore[no-any-return]


ViewerDep = Annotated[Viewer | None, Depends(get_viewer)]


def require_viewer(viewer: ViewerDep) -> Viewer:
    return permissions.require_signed_in(viewer)


SignedIn = Annotated[Viewer, Depends(require_viewer)]


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
