"""Organisations: a namespace that several share, its members and their roles, invitations, and accounts for programs."""

import secrets
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from hub.registry.access import audit, credentials, permissions, users
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


def create(session: Session, viewer: Viewer, name: str) -> None:
    """Its first member, and administrator, is whoever makes it. Raises NameTaken, BadName."""
    permissions.require_account(viewer)
    users.check_namespace(name, "The organisation's name")
    users.create_namespace(session, name, "organization", viewer.id)
    audit.record(session, viewer, "organization.created", name, namespace=name)


def require_member(session: Session, viewer: Viewer, name: str) -> Role:
    """The viewer's role. To others the organisation is not there."""
    has = permissions.role(session, viewer, name)
    if has is None or session.get_one(Namespace, name).kind != "organization":
        raise NotFound(f"There is no organisation {name!r} that you are a member of.")
    return has


def members(session: Session, viewer: Viewer, name: str) -> Sequence[tuple[User, Role]]:
    require_member(session, viewer, name)
    query = (
        select(User, Membership.role)
        .join(Membership, Membership.user_id == User.id)
        .where(Membership.namespace == name)
        .order_by(User.name)
    )
    return [(user, role) for user, role in session.execute(query)]


def set_role(session: Session, viewer: Viewer, name: str, user_name: str, role: Role) -> None:
    """Change a member's role. Nobody is made a member without having accepted an invitation. Raises LastAdministrator."""
    _administered(session, viewer, name)
    member = _member(session, name, user_name)
    if member.role == "admin" and role != "admin":
        _leave_one_admin(session, name)
    audit.record(session, viewer, "member.role_set", user_name, namespace=name, role=role, before=member.role)
    member.role = role


def remove_member(session: Session, viewer: Viewer, name: str, user_name: str) -> None:
    """By an administrator, or by the member himself, who leaves. Raises LastAdministrator."""
    require_member(session, viewer, name)
    if user_name != viewer.name:
        _administered(session, viewer, name)
    permissions.require_account(viewer)
    member = _member(session, name, user_name)
    if member.role == "admin":
        _leave_one_admin(session, name)
    session.delete(member)
    audit.record(session, viewer, "member.removed", user_name, namespace=name)


def _administered(session: Session, viewer: Viewer, name: str) -> None:
    """Locked, so that two administrators who change its members at once do so one after the other."""
    namespace = permissions.require_admin(session, viewer, name)
    if namespace.kind != "organization":
        raise NotAnOrganization(f"{name!r} is a person's namespace; make an organisation to share one.")
    session.refresh(namespace, with_for_update=True)


def _member(session: Session, name: str, user_name: str) -> Membership:
    found = session.scalar(
        select(Membership)
        .join(User, User.id == Membership.user_id)
        .where(Membership.namespace == name, User.name == user_name)
    )
    if found is None:
        raise NotFound(f"{user_name!r} is no member of {name!r}.")
    return found


def _leave_one_admin(session: Session, name: str) -> None:
    admins = select(func.count()).select_from(Membership).where(Membership.namespace == name)
    if session.scalar(admins.where(Membership.role == "admin")) == 1:
        raise LastAdministrator(f"{name!r} would have no administrator left; give somebody else that role first.")


# --- invitations ------------------------------------------------------------------------------------------------------


def invite(session: Session, viewer: Viewer, name: str, role: Role, days: float) -> tuple[Invitation, str]:
    """An invitation and its secret, shown this once; whoever sends the secret first becomes a member."""
    _administered(session, viewer, name)
    secret = secrets.token_urlsafe(32)
    made = Invitation(
        namespace=name,
        hash=credentials.hash_secret(secret),
        role=role,
        invited_by=viewer.id,
        expires_at=func.now() + timedelta(days=days),
    )
    session.add(made)
    session.flush()
    session.refresh(made)
    audit.record(session, viewer, "invitation.created", str(made.id), namespace=name, role=role)
    return made, secret


def invitations(session: Session, viewer: Viewer, name: str) -> Sequence[Invitation]:
    permissions.require_admin(session, viewer, name)
    query = select(Invitation).where(Invitation.namespace == name, Invitation.expires_at > func.now())
    return session.scalars(query.order_by(Invitation.created_at)).all()


def withdraw(session: Session, viewer: Viewer, name: str, invitation_id: uuid.UUID) -> None:
    _administered(session, viewer, name)
    gone = delete(Invitation).where(Invitation.id == invitation_id, Invitation.namespace == name)
    if session.scalar(gone.returning(Invitation.id)) is None:
        raise InvitationNotFound(f"{name!r} has no invitation {invitation_id}.")
    audit.record(session, viewer, "invitation.withdrawn", str(invitation_id), namespace=name)


def accept(session: Session, viewer: Viewer, secret: str) -> tuple[str, Role]:
    """Become a member; a role that is higher already stays. Returns the organisation and the role."""
    permissions.require_account(viewer)
    # Taken out in one statement: of several who send it at once, one gets it.
    taken = delete(Invitation).where(
        Invitation.hash == credentials.hash_secret(secret), Invitation.expires_at > func.now()
    )
    invitation = session.execute(taken.returning(Invitation.id, Invitation.namespace, Invitation.role)).one_or_none()
    if invitation is None:
        raise InvitationNotFound(
            "The invitation is not known, was used or withdrawn, or its time is over; ask for another."
        )
    name, offered = invitation.namespace, invitation.role
    member = session.get(Membership, (name, viewer.id))
    if member is None:
        member = Membership(namespace=name, user_id=viewer.id, role=offered)
        session.add(member)
    elif ROLES.index(offered) > ROLES.index(member.role):
        member.role = offered
    audit.record(session, viewer, "invitation.accepted", str(invitation.id), namespace=name, role=member.role)
    return name, member.role


# --- accounts for programs --------------------------------------------------------------------------------------------


def create_service(
    session: Session,
    viewer: Viewer,
    name: str,
    service: str,
    role: Role,
    *,
    scopes: Sequence[Scope],
    repos: Sequence[str] | None,
    expires_at: datetime | None,
) -> tuple[User, Token, str]:
    """An account of an organisation for a program, called ORGANISATION-SERVICE, with one token. It outlives whoever made it."""
    _administered(session, viewer, name)
    full = users.check_name(f"{name}-{service}", "The service account's name")
    user = users.create_account(session, full, service_of=name)
    session.add(Membership(namespace=name, user_id=user.id, role=role))
    token, secret = credentials.create_token(
        session, user.id, service, scopes=scopes, repos=repos, expires_at=expires_at
    )
    audit.record(session, viewer, "service.created", full, namespace=name, role=role, scopes=list(token.scopes))
    return user, token, secret


def services(session: Session, viewer: Viewer, name: str) -> Sequence[tuple[User, Role]]:
    return [(user, role) for user, role in members(session, viewer, name) if user.service_of == name]


def stop_service(session: Session, viewer: Viewer, name: str, service: str) -> None:
    """Its tokens are gone and it is no member any more; what it made keeps its name."""
    _administered(session, viewer, name)
    user = session.scalar(select(User).where(User.name == f"{name}-{service}", User.service_of == name))
    if user is None:
        raise NotFound(f"{name!r} has no service account {service!r}.")
    session.execute(delete(Token).where(Token.user_id == user.id))
    session.execute(delete(Membership).where(Membership.user_id == user.id))
    audit.record(session, viewer, "service.stopped", user.name, namespace=name)
