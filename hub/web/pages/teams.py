"""Teams: the viewer's organizations, their members, invitations, accounts for programs, and what they use."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from hub.http.addresses import root_url
from hub.http.identity import SessionDep, SignedIn
from hub.http.permissions import CanAdministerOrganization, CanManageAccount, CanRemoveMember
from hub.registry.access import organizations, quota, users
from hub.registry.access.quota import Usage
from hub.registry.access.viewer import Viewer
from hub.registry.jobs import usage
from hub.registry.jobs.usage import Used
from hub.registry.models.access import Invitation, User
from hub.vocabulary import ROLES, SCOPES, Role, Scope
from hub.web.forms import NO_FORM, RefusedForm, expiry, run_form
from hub.web.render import Page, render

router = APIRouter(include_in_schema=False)

MONTHS = 3  # of device-seconds

Name = Annotated[str, Form(max_length=96)]


@dataclass(frozen=True)
class OwnNamespace:
    """A namespace that the viewer is a member of."""

    name: str
    is_team: bool  # else the viewer's own
    role: Role
    usage: Usage


@dataclass(frozen=True)
class TeamsPage(Page, template="teams/teams.html"):
    """The namespaces of the viewer, with the forms "create" and "join"."""

    namespaces: Sequence[OwnNamespace]  # the viewer's own first
    form: RefusedForm


@dataclass(frozen=True)
class JoinPage(Page, template="teams/join.html"):
    """Where the link of an invitation leads: a button accepts it."""

    invitation: str  # the secret of the link


@dataclass(frozen=True, kw_only=True)
class TeamPage(Page, template="teams/team.html"):
    """One team, with the forms "members" and "services", which only its administrators may send."""

    name: str
    role: Role  # of the viewer
    members: Sequence[tuple[User, Role]]
    services: Sequence[tuple[User, Role]]
    invitations: Sequence[Invitation]  # those still open; none for who may not see them
    usage: Usage
    used: Sequence[Used]  # device-seconds of the last months
    form: RefusedForm
    invitation_link: str  # of an invitation just made, which is shown this once
    secret: str  # of a service account just made, which is shown this once
    roles: Sequence[Role] = ROLES
    scopes: Sequence[Scope] = SCOPES


@router.get("/teams")
def teams(session: SessionDep, viewer: SignedIn) -> Response:
    return _teams(session, viewer)


def _teams(session: Session, viewer: Viewer, form: RefusedForm = NO_FORM) -> Response:
    namespaces = [
        OwnNamespace(own.name, own.kind == "organization", role, quota.usage(session, viewer, own.name))
        for own, role in users.namespaces(session, viewer)
        if not viewer.limited_from(own.name, None)
    ]
    return render(TeamsPage(namespaces, form), viewer, status=form.status)


@router.post("/teams")
def create(session: SessionDep, account: CanManageAccount, name: Name) -> Response:
    def change() -> Response:
        organizations.create(session, account, name.strip())
        return RedirectResponse(f"/teams/{name.strip()}", status_code=303)

    def show_again(form: RefusedForm) -> Response:
        return _teams(session, account.viewer, form)

    return run_form(change, show_again, name="create", typed={"name": name}, session=session)


@router.get("/join")
def invitation(viewer: SignedIn, invitation: Annotated[str, Query(max_length=100)] = "") -> Response:
    """Where the link of an invitation leads: it is accepted by a button, not by being opened."""
    return render(JoinPage(invitation), viewer)


@router.post("/join")
def join(
    session: SessionDep, account: CanManageAccount, invitation: Annotated[str, Form(max_length=2_000)]
) -> Response:
    def change() -> Response:
        secret = invitation.strip().rpartition("invitation=")[2]  # the link does as well as the secret in it
        name, _ = organizations.accept(session, account, secret)
        return RedirectResponse(f"/teams/{name}", status_code=303)

    def show_again(form: RefusedForm) -> Response:
        return _teams(session, account.viewer, form)

    return run_form(change, show_again, name="join", typed={"invitation": invitation}, session=session)


@router.get("/teams/{organization}")
def team(session: SessionDep, viewer: SignedIn, organization: str) -> Response:
    return _team(session, viewer, organization)


def _team(
    session: Session,
    viewer: Viewer,
    name: str,
    form: RefusedForm = NO_FORM,
    *,
    invitation_link: str = "",
    secret: str = "",
) -> Response:
    """Raises NotFound for who is not a member."""
    role = organizations.require_member(session, viewer, name)
    page = TeamPage(
        name=name,
        role=role,
        members=[member for member in organizations.members(session, viewer, name) if member[0].service_of is None],
        services=organizations.services(session, viewer, name),
        invitations=organizations.invitations(session, viewer, name) if role == "admin" else [],
        usage=quota.usage(session, viewer, name),
        used=usage.of_namespace(session, viewer, name, MONTHS),
        form=form,
        invitation_link=invitation_link,
        secret=secret,
    )
    return render(page, viewer, status=201 if invitation_link or secret else form.status)


@router.post("/teams/{organization}/members/{user}")
def set_role(
    session: SessionDep, team: CanAdministerOrganization, user: str, role: Annotated[Role, Form()]
) -> Response:
    def change() -> Response:
        organizations.set_role(session, team, user, role)
        return RedirectResponse(f"/teams/{team.namespace}", status_code=303)

    def show_again(form: RefusedForm) -> Response:
        return _team(session, team.viewer, team.namespace, form)

    return run_form(change, show_again, name="members", session=session)


@router.post("/teams/{organization}/members/{user}/remove")
def remove_member(session: SessionDep, permit: CanRemoveMember) -> Response:
    def change() -> Response:
        organizations.remove_member(session, permit)
        return RedirectResponse(
            "/teams" if permit.user == permit.viewer.name else f"/teams/{permit.namespace}", status_code=303
        )

    def show_again(form: RefusedForm) -> Response:
        return _team(session, permit.viewer, permit.namespace, form)

    return run_form(change, show_again, name="members", session=session)


@router.post("/teams/{organization}/invitations")
def invite(
    session: SessionDep,
    team: CanAdministerOrganization,
    request: Request,
    role: Annotated[Role, Form()],
    days: Annotated[int, Form(ge=1, le=365)] = 7,
) -> Response:
    """The page with the invitation's link on it, this once."""
    _, secret = organizations.invite(session, team, role, days)
    link = f"{root_url(request)}/join?invitation={secret}"
    return _team(session, team.viewer, team.namespace, invitation_link=link)


@router.post("/teams/{organization}/invitations/{invitation_id}/withdraw")
def withdraw(session: SessionDep, team: CanAdministerOrganization, invitation_id: uuid.UUID) -> Response:
    organizations.withdraw(session, team, invitation_id)
    return RedirectResponse(f"/teams/{team.namespace}", status_code=303)


@router.post("/teams/{organization}/services")
def create_service(
    session: SessionDep,
    team: CanAdministerOrganization,
    name: Name,
    role: Annotated[Role, Form()],
    scopes: Annotated[list[Scope], Form()] = [],  # noqa: B006 - FastAPI copies it
    days: Annotated[str, Form(max_length=6)] = "",
) -> Response:
    """The page with the account's token on it, this once."""

    def change() -> Response:
        _, _, secret = organizations.create_service(
            session,
            team,
            name.strip(),
            role,
            scopes=scopes,
            repos=[f"{team.namespace}/*"],
            expires_at=expiry(days),
        )
        return _team(session, team.viewer, team.namespace, secret=secret)

    def show_again(form: RefusedForm) -> Response:
        return _team(session, team.viewer, team.namespace, form)

    return run_form(change, show_again, name="services", typed={"name": name, "days": days}, session=session)


@router.post("/teams/{organization}/services/{service}/stop")
def stop_service(session: SessionDep, team: CanAdministerOrganization, service: str) -> Response:
    organizations.stop_service(session, team, service)
    return RedirectResponse(f"/teams/{team.namespace}", status_code=303)
