"""Teams: one's organisations, their members, invitations, accounts for programs, and what they use."""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from hub.http.identity import SessionDep, SignedIn
from hub.registry.access import organizations, quota, users
from hub.registry.access.viewer import Viewer
from hub.registry.jobs import usage
from hub.registry.platform.errors import HubError, InvalidInput
from hub.vocabulary import ROLES, SCOPES, Role, Scope
from hub.web.forms import expiry
from hub.web.render import page

router = APIRouter(include_in_schema=False)

MONTHS = 3  # of device-seconds

Name = Annotated[str, Form(max_length=96)]


@router.get("/teams")
def teams(session: SessionDep, viewer: SignedIn) -> Response:
    return _teams(session, viewer)


def _teams(
    session: Session, viewer: Viewer, problem: HubError | None = None, about: str = "", typed: str = ""
) -> Response:
    own = [(each, role, quota.usage(session, viewer, each.name)) for each, role in users.namespaces(session, viewer)]
    status = problem.status if problem else 200
    said = problem.message if problem else ""
    return page("teams.html", viewer, status=status, problem=said, about=about, typed=typed, own=own)


@router.post("/teams")
def create(session: SessionDep, viewer: SignedIn, name: Name) -> Response:
    try:
        with session.begin_nested():
            organizations.create(session, viewer, name.strip())
    except HubError as error:
        return _teams(session, viewer, error, "create", name)
    return RedirectResponse(f"/teams/{name.strip()}", status_code=303)


@router.get("/join")
def invitation(viewer: SignedIn, invitation: Annotated[str, Query(max_length=100)] = "") -> Response:
    """Where the link of an invitation leads: it is accepted by a button, not by being opened."""
    return page("join.html", viewer, invitation=invitation)


@router.post("/join")
def join(session: SessionDep, viewer: SignedIn, invitation: Annotated[str, Form(max_length=2_000)]) -> Response:
    secret = invitation.strip().rpartition("invitation=")[2]  # the link does as well as the secret in it
    try:
        with session.begin_nested():
            name, _ = organizations.accept(session, viewer, secret)
    except HubError as error:
        return _teams(session, viewer, error, "join", invitation)
    return RedirectResponse(f"/teams/{name}", status_code=303)


@router.get("/teams/{organization}")
def team(session: SessionDep, viewer: SignedIn, request: Request, organization: str) -> Response:
    return _team(session, viewer, request, organization)


def _team(
    session: Session,
    viewer: Viewer,
    request: Request,
    name: str,
    *,
    status: int = 200,
    problem: HubError | None = None,
    about: str = "",
    **shown: Any,
) -> Response:
    """`about`: the form that the problem is of."""
    role = organizations.require_member(session, viewer, name)
    return page(
        "team.html",
        viewer,
        status=problem.status if problem else status,
        problem=problem.message if problem else "",
        about=about,
        name=name,
        role=role,
        roles=ROLES,
        scopes=SCOPES,
        members=[each for each in organizations.members(session, viewer, name) if each[0].service_of is None],
        services=organizations.services(session, viewer, name),
        invitations=organizations.invitations(session, viewer, name) if role == "admin" else [],
        usage=quota.usage(session, viewer, name),
        used=usage.of_namespace(session, viewer, name, MONTHS),
        join=f"{str(request.base_url).rstrip('/')}/join?invitation=",
        **{"invited": "", "secret": "", "typed": {}} | shown,
    )


@router.post("/teams/{organization}/members/{user}")
def set_role(
    session: SessionDep, viewer: SignedIn, request: Request, organization: str, user: str, role: Annotated[Role, Form()]
) -> Response:
    try:
        with session.begin_nested():
            organizations.set_role(session, viewer, organization, user, role)
    except organizations.LastAdministrator as error:
        return _team(session, viewer, request, organization, problem=error, about="members")
    return RedirectResponse(f"/teams/{organization}", status_code=303)


@router.post("/teams/{organization}/members/{user}/remove")
def remove_member(session: SessionDep, viewer: SignedIn, request: Request, organization: str, user: str) -> Response:
    try:
        with session.begin_nested():
            organizations.remove_member(session, viewer, organization, user)
    except organizations.LastAdministrator as error:
        return _team(session, viewer, request, organization, problem=error, about="members")
    return RedirectResponse("/teams" if user == viewer.name else f"/teams/{organization}", status_code=303)


@router.post("/teams/{organization}/invitations")
def invite(
    session: SessionDep,
    viewer: SignedIn,
    request: Request,
    organization: str,
    role: Annotated[Role, Form()],
    days: Annotated[int, Form(ge=1, le=365)] = 7,
) -> Response:
    """The page with the invitation's link on it, this once."""
    _, secret = organizations.invite(session, viewer, organization, role, days)
    return _team(session, viewer, request, organization, status=201, invited=secret)


@router.post("/teams/{organization}/invitations/{invitation_id}/withdraw")
def withdraw(session: SessionDep, viewer: SignedIn, organization: str, invitation_id: uuid.UUID) -> Response:
    organizations.withdraw(session, viewer, organization, invitation_id)
    return RedirectResponse(f"/teams/{organization}", status_code=303)


@router.post("/teams/{organization}/services")
def create_service(
    session: SessionDep,
    viewer: SignedIn,
    request: Request,
    organization: str,
    name: Name,
    role: Annotated[Role, Form()],
    scopes: Annotated[list[Scope], Form()] = [],  # noqa: B006 - FastAPI copies it
    days: Annotated[str, Form(max_length=6)] = "",
) -> Response:
    """The page with the account's token on it, this once."""
    try:
        with session.begin_nested():
            _, _, secret = organizations.create_service(
                session,
                viewer,
                organization,
                name.strip(),
                role,
                scopes=scopes,
                repos=[f"{organization}/*"],
                expires_at=expiry(days),
            )
    except (InvalidInput, users.NameTaken) as error:
        typed = {"name": name, "days": days}
        return _team(session, viewer, request, organization, problem=error, about="services", typed=typed)
    return _team(session, viewer, request, organization, status=201, secret=secret)


@router.post("/teams/{organization}/services/{service}/stop")
def stop_service(session: SessionDep, viewer: SignedIn, organization: str, service: str) -> Response:
    organizations.stop_service(session, viewer, organization, service)
    return RedirectResponse(f"/teams/{organization}", status_code=303)
