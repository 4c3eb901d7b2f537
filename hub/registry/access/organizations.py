"""Organizations: a namespace that several share, its members and their roles, invitations, and accounts for programs."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from hub.registry.access import credentials, permissions, users
from hub.registry.access.permissions import Administer, ManageAccount, NamespacePermit, authorize, authorize_in
from hub.registry.access.secret_hashes import expires_after, is_live, new_secret, opens
from hub.registry.access.viewer import Viewer
from hub.registry.models.access import Invitation, Membership, Namespace, Token, User
from hub.registry.platform.errors import Conflict, NotFound
from hub.vocabulary import ROLES, Role, Scope


class LastAdministrator(Conflict):
    code = "last_administrator"


class NotAnOrganization(Conflict):
    code = "not_an_organization"


class InvitationNotFound(NotFound):
    code = "invitation_not_found"


class AdministerOrganization(Administer):
    """To change its members, invitations and service accounts. Made by `administer`, which locks the organization."""


def administer(session: Session, viewer: Viewer, name: str) -> AdministerOrganization:
    """Raises NotFound to others than members, Forbidden, NotAnOrganization for a person's namespace."""
    permit = authorize_in(session, viewer, AdministerOrganization, name)
    namespace = session.get_one(Namespace, name)
    if namespace.kind != "organization":
        raise NotAnOrganization(f"{name!r} is a person's namespace; make an organization to share one.")
    session.refresh(
        namespace, with_for_update=True
    )  # two administrators who change its members do so one after the other
    return permit


@dataclass(frozen=True)
class RemoveMember(NamespacePermit):
    """To end this user's membership. Made by `authorize_removal` alone."""

    scope, roles = "admin", ROLES

    user: str


def authorize_removal(session: Session, viewer: Viewer, name: str, user: str) -> RemoveMember:
    """The permit to remove a member: administrators remove others, and everybody may leave."""
    require_member(session, viewer, name)
    authorize(viewer, ManageAccount)
    if user != viewer.name:
        administer(session, viewer, name)
    return RemoveMember(viewer, name, user)


def create(session: Session, account: ManageAccount, name: str) -> None:
    """Create it, with the account as its first member and administrator. Raises NameTaken, BadName."""
    users.check_namespace(name, "The organization's name")
    users.create_namespace(session, name, "organization", account.viewer.id)
    account.record(session, "organization.created", name, namespace=name)


def require_member(session: Session, viewer: Viewer, name: str) -> Role:
    """The viewer's role. Raises NotFound for others than members."""
    role = permissions.require_member(session, viewer, name)
    if session.get_one(Namespace, name).kind != "organization":
        raise NotFound(f"There is no organization {name!r} that you are a member of.")
    return role


def members(session: Session, viewer: Viewer, name: str) -> Sequence[tuple[User, Role]]:
    require_member(session, viewer, name)
    query = (
        select(User, Membership.role)
        .join(Membership, Membership.user_id == User.id)
        .where(Membership.namespace == name)
        .order_by(User.name)
    )
    return [(user, role) for user, role in session.execute(query)]


def set_role(session: Session, organization: AdministerOrganization, user_name: str, role: Role) -> None:
    """Change a member's role. Nobody is made a member without having accepted an invitation. Raises LastAdministrator."""
    member = _member(session, organization.namespace, user_name)
    if member.role == "admin" and role != "admin":
        _leave_one_admin(session, organization.namespace)
    organization.record(session, "member.role_set", user_name, role=role, before=member.role)
    member.role = role


def remove_member(session: Session, permit: RemoveMember) -> None:
    """Raises LastAdministrator."""
    member = _member(session, permit.namespace, permit.user)
    if member.role == "admin":
        _leave_one_admin(session, permit.namespace)
    session.delete(member)
    permit.record(session, "member.removed", permit.user)


def _member(session: Session, name: str, user_name: str) -> Membership:
    member = session.scalar(
        select(Membership)
        .join(User, User.id == Membership.user_id)
        .where(Membership.namespace == name, User.name == user_name)
    )
    if member is None:
        raise NotFound(f"{user_name!r} is not a member of {name!r}.")
    return member


def _leave_one_admin(session: Session, name: str) -> None:
    admins = select(func.count()).select_from(Membership).where(Membership.namespace == name)
    if session.scalar(admins.where(Membership.role == "admin")) == 1:
        raise LastAdministrator(f"{name!r} would have no administrator left; give somebody else that role first.")


# --- invitations ------------------------------------------------------------------------------------------------------


def invite(session: Session, organization: AdministerOrganization, role: Role, days: float) -> tuple[Invitation, str]:
    """An invitation and its secret, shown this once; the first person who sends the secret becomes a member."""
    secret, hashed = new_secret()
    invitation = Invitation(
        namespace=organization.namespace,
        hash=hashed,
        role=role,
        invited_by=organization.viewer.id,
        expires_at=expires_after(days=days),
    )
    session.add(invitation)
    session.flush()
    session.refresh(invitation)
    organization.record(session, "invitation.created", str(invitation.id), role=role)
    return invitation, secret


def invitations(session: Session, viewer: Viewer, name: str) -> Sequence[Invitation]:
    authorize_in(session, viewer, Administer, name)
    query = select(Invitation).where(Invitation.namespace == name, is_live(Invitation))
    return session.scalars(query.order_by(Invitation.created_at)).all()


def withdraw(session: Session, organization: AdministerOrganization, invitation_id: uuid.UUID) -> None:
    name = organization.namespace
    gone = delete(Invitation).where(Invitation.id == invitation_id, Invitation.namespace == name)
    if session.scalar(gone.returning(Invitation.id)) is None:
        raise InvitationNotFound(f"{name!r} has no invitation {invitation_id}.")
    organization.record(session, "invitation.withdrawn", str(invitation_id))


def accept(session: Session, account: ManageAccount, secret: str) -> tuple[str, Role]:
    """Become a member; a role that is higher already stays. Returns the organization and the role."""
    # Taken out in one statement: of several who send it at once, one gets it.
    taken = delete(Invitation).where(opens(Invitation, secret))
    invitation = session.execute(taken.returning(Invitation.id, Invitation.namespace, Invitation.role)).one_or_none()
    if invitation is None:
        raise InvitationNotFound("The invitation is not known, was used or withdrawn, or has expired; ask for another.")
    name, offered = invitation.namespace, invitation.role
    member = session.get(Membership, (name, account.viewer.id))
    if member is None:
        member = Membership(namespace=name, user_id=account.viewer.id, role=offered)
        session.add(member)
    elif ROLES.index(offered) > ROLES.index(member.role):
        member.role = offered
    account.record(session, "invitation.accepted", str(invitation.id), namespace=name, role=member.role)
    return name, member.role


# --- accounts for programs --------------------------------------------------------------------------------------------


def create_service(
    session: Session,
    organization: AdministerOrganization,
    service: str,
    role: Role,
    *,
    scopes: Sequence[Scope],
    repos: Sequence[str] | None,
    expires_at: datetime | None,
) -> tuple[User, Token, str]:
    """An account of an organization for a program, called ORGANIZATION-SERVICE, with one token. It stays when its creator leaves."""
    name = organization.namespace
    full = users.check_name(f"{name}-{service}", "The service account's name")
    user = users.create_account(session, full, service_of=name)
    session.add(Membership(namespace=name, user_id=user.id, role=role))
    token, secret = credentials.issue_token(
        session, user.id, service, scopes=scopes, repos=repos, expires_at=expires_at
    )
    organization.record(session, "service.created", full, role=role, scopes=list(token.scopes))
    return user, token, secret


def services(session: Session, viewer: Viewer, name: str) -> Sequence[tuple[User, Role]]:
    return [(user, role) for user, role in members(session, viewer, name) if user.service_of == name]


def stop_service(session: Session, organization: AdministerOrganization, service: str) -> None:
    """Delete its tokens and its membership; its repos and commits keep its name."""
    name = organization.namespace
    user = session.scalar(select(User).where(User.name == f"{name}-{service}", User.service_of == name))
    if user is None:
        raise NotFound(f"{name!r} has no service account {service!r}.")
    session.execute(delete(Token).where(Token.user_id == user.id))
    session.execute(delete(Membership).where(Membership.user_id == user.id))
    organization.record(session, "service.stopped", user.name)
