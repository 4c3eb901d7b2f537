"""The signed-in user, and signing in from a terminal by device code."""

from typing import Annotated

from fastapi import APIRouter, Form, Request

from api.huggingface.errors import NotOffered
from hub.http.addresses import root_url
from hub.http.identity import SessionDep, SignedIn
from hub.http.permissions import public
from hub.registry.access import credentials, device_login, users

router = APIRouter()

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


@router.get("/api/whoami-v2")
def whoami(request: Request, session: SessionDep, viewer: SignedIn) -> dict[str, object]:
    """The user, with their other namespaces as organizations."""
    others = [
        (namespace.name, role) for namespace, role in users.namespaces(session, viewer) if namespace.name != viewer.name
    ]
    answer: dict[str, object] = {
        "type": "user",
        "id": viewer.id.hex,
        "name": viewer.name,
        "fullname": viewer.name,
        "isPro": False,
        "orgs": [{"type": "org", "name": name, "fullname": name, "roleInOrg": role} for name, role in others],
    }
    token = credentials.token_of(session, request.headers.get("Authorization", "").partition(" ")[2].strip())
    if token is not None:
        access = {"displayName": token.name, "role": "write" if "write" in token.scopes else "read"}
        answer["auth"] = {"type": "access_token", "accessToken": access}
    return answer


@router.get("/api/agent-harnesses")
def agent_harnesses() -> dict[str, object]:
    """Answer with an empty list. Every client process requests it once, to name in its user agent the tool that runs it."""
    return {"standardEnvVars": [], "harnesses": {}}


@router.post("/oauth/device", dependencies=[public("begins to sign in")])
def start_device_login(request: Request, session: SessionDep) -> dict[str, object]:
    codes = device_login.start(session)
    page = f"{root_url(request)}/device"
    return {
        "device_code": codes.device_code,
        "user_code": codes.user_code,
        "verification_uri": page,
        "verification_uri_complete": f"{page}?code={codes.user_code}",
        "interval": device_login.INTERVAL_SECONDS,
        "expires_in": device_login.SECONDS,
    }


@router.post("/oauth/token", dependencies=[public("signs in with a code that somebody has approved")])
def poll_device_login(
    session: SessionDep, grant_type: Annotated[str, Form()], device_code: Annotated[str, Form()] = ""
) -> dict[str, object]:
    """The token, once somebody has approved the code. It does not expire, so it needs no refresh."""
    if grant_type != DEVICE_GRANT:
        raise NotOffered("Only sign-in by device code is offered here; begin again with `hf auth login`.")
    return {"access_token": device_login.poll(session, device_code), "token_type": "bearer"}
