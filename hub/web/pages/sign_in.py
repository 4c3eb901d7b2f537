"""Signing in and out in the browser: by password, by token, and by an OpenID Connect provider."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from authlib.integrations.base_client import OAuthError
from authlib.integrations.starlette_client import OAuth, StarletteOAuth2App
from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from httpx2 import HTTPError
from joserfc.errors import JoseError
from pydantic import BaseModel, ValidationError

from hub.http.addresses import address_of, root_url
from hub.http.identity import COOKIE, ServicesDep, SessionDep, ViewerDep, refuse_cross_site, set_session_cookie
from hub.http.permissions import public
from hub.registry.access import credentials, sign_in
from hub.registry.access.permissions import ScopeMissing
from hub.registry.access.viewer import Viewer
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import HubError, NotFound, NotSignedIn, Unavailable
from hub.registry.platform.rate_limits import TooManyAttempts
from hub.registry.platform.services import Services
from hub.registry.platform.settings import Settings
from hub.web.render import Page, render

router = APIRouter(include_in_schema=False)

Next = Annotated[str, Query(max_length=2_000)]

OIDC_COOKIE = "loraloom_oidc"
OIDC_PATH = "/login/oidc"
OIDC_SECONDS = 600


class OidcAttempt(BaseModel, frozen=True):
    """A sign-in by the provider, from when it begins: the provider's answer must fit it. A cookie holds it as JSON."""

    state: str
    nonce: str
    code_verifier: str
    address: str  # to which the provider sends the browser back
    next: str  # where to go afterwards


@dataclass(frozen=True, kw_only=True)
class LoginPage(Page, template="sign_in/login.html"):
    """The ways to sign in."""

    problem: str
    oidc: str  # the provider's name on the button; "" without a provider
    next: str  # where to go afterwards


@router.get("/login")
def login_form(services: ServicesDep, viewer: ViewerDep, next: Next = "") -> Response:
    return _form(services.settings, viewer, next=next)


def _form(
    settings: Settings, viewer: Viewer | None, *, status: int = 200, problem: str = "", next: str = ""
) -> Response:
    label = settings.oidc_label if settings.oidc_issuer else ""
    return render(LoginPage(problem=problem, oidc=label, next=next), viewer, status=status)


def _own_address(next: str) -> str:
    """Where to go after signing in: only ever an address of this hub, as anybody can write a link to the form."""
    return next if re.fullmatch(r"/(?![/\\])[^\\\x00-\x20]*", next) else "/"


@router.post("/login", dependencies=[public("signs in")])
def login(
    request: Request,
    services: ServicesDep,
    name: Annotated[str, Form(max_length=96)] = "",
    password: Annotated[str, Form(max_length=1_000)] = "",
    token: Annotated[str, Form(max_length=200)] = "",
    next: Annotated[str, Form(max_length=2_000)] = "",
) -> Response:
    refuse_cross_site(request)  # else another site could sign its visitors in as somebody else
    try:
        viewer = _identified(request, services, name.strip(), password, token)
    except (NotSignedIn, ScopeMissing, TooManyAttempts) as error:
        return _form(services.settings, None, status=error.status, problem=error.message, next=next)
    return _signed_in(request, services, viewer, next)


def _identified(request: Request, services: Services, name: str, password: str, token: str) -> Viewer:
    limits, address = request.app.state.limits, address_of(request)
    if token:
        return sign_in.by_token(services.sessions, limits, token, address)
    return sign_in.by_password(services.sessions, limits, name, password, address)


def _signed_in(request: Request, services: Services, viewer: Viewer, next: str) -> Response:
    with transaction(services.sessions) as session:
        agent = request.headers.get("User-Agent", "")
        secret = credentials.start_session(session, viewer, services.settings.session_days, agent)
    response = RedirectResponse(_own_address(next), status_code=303)
    set_session_cookie(response, services, secret)
    return response


@router.post("/logout", dependencies=[public("ends the session that it comes with")])
def logout(request: Request, session: SessionDep, viewer: ViewerDep) -> Response:
    credentials.end_session(session, request.cookies.get(COOKIE, ""))
    response = RedirectResponse("/", status_code=303)
    response.delete_cookie(COOKIE)
    return response


# --- OpenID Connect ---------------------------------------------------------------------------------------------------


@cache
def _client(issuer: str, client_id: str, client_secret: str | None) -> StarletteOAuth2App:
    """Kept, as it keeps the provider's metadata and keys."""
    client: StarletteOAuth2App = OAuth().register(
        "oidc",
        client_id=client_id,
        client_secret=client_secret,
        server_metadata_url=f"{issuer.rstrip('/')}/.well-known/openid-configuration",
        client_kwargs={"scope": "openid profile email", "code_challenge_method": "S256"},
    )
    return client


def _provider(settings: Settings) -> StarletteOAuth2App:
    if settings.oidc_issuer is None:
        raise NotFound("This hub has no OpenID Connect provider.")
    return _client(settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret)


@router.get(OIDC_PATH)
async def start_oidc(request: Request, services: ServicesDep, next: Next = "") -> Response:
    """Lead to the provider. The attempt is in a cookie, so that only this browser can bring back the answer."""
    provider: Any = _provider(services.settings)  # its stubs leave much untyped
    address = f"{root_url(request)}{OIDC_PATH}/callback"
    try:
        authorization = await provider.create_authorization_url(address)
    except HTTPError as error:
        raise Unavailable(f"The OpenID Connect provider does not answer: {error}; try again in a minute.") from error
    attempt = OidcAttempt(
        state=authorization["state"],
        nonce=authorization["nonce"],
        code_verifier=authorization["code_verifier"],
        address=address,
        next=next,
    )
    response = RedirectResponse(authorization["url"], status_code=303)
    response.set_cookie(
        OIDC_COOKIE,
        attempt.model_dump_json(),
        max_age=OIDC_SECONDS,
        path=OIDC_PATH,
        httponly=True,
        samesite="lax",
        secure=services.settings.cookie_secure,
    )
    return response


@router.get(f"{OIDC_PATH}/callback", dependencies=[public("signs in whom the provider names")])
async def finish_oidc(request: Request, services: ServicesDep, code: str = "", state: str = "") -> Response:
    """Exchange the provider's code, and check the ID token's signature, issuer, audience, time and nonce."""
    provider: Any = _provider(services.settings)  # its stubs leave much untyped
    attempt = _attempt(request)
    if attempt is None or not state or state != attempt.state:
        return _form(
            services.settings,
            None,
            status=401,
            problem="The sign-in did not begin in this browser, or took too long; begin again.",
        )
    try:
        token = await provider.fetch_access_token(
            redirect_uri=attempt.address, code=code, code_verifier=attempt.code_verifier
        )
        claims = await provider.parse_id_token(token, nonce=attempt.nonce)
    except HTTPError as error:
        raise Unavailable(f"The OpenID Connect provider does not answer: {error}; try again in a minute.") from error
    except (OAuthError, JoseError) as error:
        return _form(services.settings, None, status=401, problem=f"The provider did not sign you in: {error}.")
    if claims is None:
        return _form(
            services.settings, None, status=401, problem="The provider sent no ID token; its setup lacks openid."
        )
    response = await run_in_threadpool(_admitted, request, services, claims, attempt.next)
    response.delete_cookie(OIDC_COOKIE, path=OIDC_PATH)
    return response


def _attempt(request: Request) -> OidcAttempt | None:
    try:
        return OidcAttempt.model_validate_json(request.cookies.get(OIDC_COOKIE, ""))
    except ValidationError:
        return None


def _admitted(request: Request, services: Services, claims: dict[str, object], next: str) -> Response:
    settings = services.settings
    try:
        with transaction(services.sessions) as session:
            viewer = credentials.identify_session(session, request.cookies.get(COOKIE, ""))
            viewer = sign_in.by_identity(session, settings.oidc_issuer or "", claims, viewer, admit=settings.oidc_admit)
    except HubError as error:
        return _form(settings, None, status=error.status, problem=error.message)
    return _signed_in(request, services, viewer, next)
