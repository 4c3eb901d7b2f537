"""Who may do what: `authorize` and `authorize_in` decide; the permit that they return writes the audit log.

A function that changes something takes a permit of the class that it needs, so it cannot be called by somebody who was not checked.
Routes and pages get theirs by their signatures (hub.http.permissions). The conditions on what may be read are below.
"""

import uuid
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from sqlalchemy import ColumnElement, Select, and_, or_, select, true
from sqlalchemy.orm import Session

from hub.registry.access import audit
from hub.registry.access.viewer import Viewer
from hub.registry.models.access import Membership, Namespace
from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.content import Repo
from hub.registry.platform.errors import Forbidden, HubError, NotFound, NotSignedIn
from hub.vocabulary import Role, Scope


class ScopeMissing(Forbidden):
    """The person may do this, but not with this token."""

    code = "scope_missing"


# --- permits ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Permit:
    """Proof that the viewer may do something. Each subclass declares what it takes; `authorize` checks it."""

    scope: ClassVar[Scope]  # that the token must have
    unlimited: ClassVar[bool] = False  # refuses tokens that are limited to some repos, which must not widen themselves
    administrator: ClassVar[bool] = False  # of the instance

    viewer: Viewer

    def record(
        self, session: Session, action: str, subject: str, *, namespace: str | None = None, **details: Any
    ) -> None:
        """Write the audit log's line on what was done with this permit; see `audit.record`."""
        audit.record(session, self.viewer.name, action, subject, namespace=namespace, **details)


class ManageAccount(Permit):
    """To manage what gives access to everything a user has: tokens, passwords, sessions, organizations."""

    scope, unlimited = "admin", True


class AdministerHub(Permit):
    """To administer the instance: users, quotas, bases, restored repos."""

    scope, unlimited, administrator = "admin", True, True


class UseJobs(Permit):
    """To submit and cancel jobs. Which ones is decided job by job."""

    scope = "jobs"


class WriteSomewhere(Permit):
    """To write at all. Where is decided once the name is known, which the body of the request holds."""

    scope = "write"


@dataclass(frozen=True)
class NamespacePermit(Permit):
    """Proof that the viewer has a role in a namespace, and a token that reaches it; `authorize_in` checks it."""

    roles: ClassVar[tuple[Role, ...]]

    namespace: str

    def record(
        self, session: Session, action: str, subject: str, *, namespace: str | None = None, **details: Any
    ) -> None:
        super().record(session, action, subject, namespace=namespace or self.namespace, **details)

    @classmethod
    def refusal(cls, viewer: Viewer, namespace: str, held: Role | None) -> HubError:
        """The error for a viewer with the role `held`; None for those to whom the namespace is not shown."""
        raise NotImplementedError


class Administer(NamespacePermit):
    """To administer a namespace: its webhook, its audit log, and of an organization the members."""

    scope = "admin"
    roles: ClassVar[tuple[Role, ...]] = ("admin",)

    @classmethod
    def refusal(cls, viewer: Viewer, namespace: str, held: Role | None) -> HubError:
        if held is None:
            return NotFound(f"There is no organization {namespace!r} that you are a member of.")
        return Forbidden(f"Only an administrator of {namespace!r} may do this; you have the role {held!r}.")


class Write(NamespacePermit):
    """To write in a namespace: a repo of it, or whatever its members with this role may. Refusals do not tell whether it exists."""

    scope, roles = "write", ("write", "admin")

    @classmethod
    def refusal(cls, viewer: Viewer, namespace: str, held: Role | None) -> HubError:
        return Forbidden(
            f"You may not write in the namespace {namespace!r}, or not with this token; your own is {viewer.name!r}."
        )


P = TypeVar("P", bound=Permit)
N = TypeVar("N", bound=NamespacePermit)


def authorize(viewer: Viewer | None, permit: type[P]) -> P:
    """The permit. Raises NotSignedIn, ScopeMissing if the token does not allow it, Forbidden if the person may not."""
    viewer = require_signed_in(viewer)
    _check_token(viewer, permit)
    return permit(viewer)


def authorize_in(
    session: Session, viewer: Viewer | None, permit: type[N], namespace: str, name: str | None = None
) -> N:
    """The permit for a namespace, or with `name` for one repo of it. Raises as `authorize` does, and NotFound or Forbidden."""
    viewer = require_signed_in(viewer)
    held = None if viewer.limited_from(namespace, name) else role(session, viewer, namespace)
    if held is None:
        raise permit.refusal(viewer, namespace, None)
    _check_token(viewer, permit)
    if held not in permit.roles:
        raise permit.refusal(viewer, namespace, held)
    return permit(viewer, namespace)


def require_signed_in(viewer: Viewer | None) -> Viewer:
    if viewer is None:
        raise NotSignedIn("Sign in, or send a token as `Authorization: Bearer ll_...`.")
    return viewer


def _check_token(viewer: Viewer, permit: type[Permit]) -> None:
    if permit.scope not in viewer.scopes:
        has = ", ".join(sorted(viewer.scopes))
        raise ScopeMissing(
            f"This token has no scope {permit.scope!r} (it has: {has}); make one that has it, or sign in."
        )
    if permit.unlimited and viewer.repos is not None:
        raise ScopeMissing(
            "This token is limited to some repos, so it cannot be used for this; sign in, or use one that is not."
        )
    if permit.administrator and not viewer.is_admin:
        raise Forbidden("Only an administrator may do this.")


# Whoever runs commands on the instance's own machine. No user can have this name.
OPERATOR = authorize(Viewer(uuid.UUID(int=0), "(operator)", is_admin=True), AdministerHub)


# --- conditions -------------------------------------------------------------------------------------------------------


def writable(session: Session, viewer: Viewer) -> list[str]:
    """The namespaces in which the viewer may make things, their own first."""
    own_first = (Membership.namespace != viewer.name, Membership.namespace)
    names = session.scalars(member_of(viewer).order_by(*own_first)).all()
    return [name for name in names if may_write(session, viewer, name)]


def readable(viewer: Viewer | None, of: type[Repo] | type[AdapterFacts] = Repo) -> ColumnElement[bool]:
    """The condition on a repo, or on facts, which repeat its columns, for what a viewer may see (deleted repos aside)."""
    if viewer is None:
        return of.visibility == "public"
    if viewer.is_admin:
        seen: ColumnElement[bool] = true()
    else:
        seen = or_(of.visibility.in_(("public", "internal")), of.namespace.in_(member_of(viewer)))
    if viewer.repos is None:
        return seen
    whole = [pattern.removesuffix("/*") for pattern in viewer.repos if pattern.endswith("/*")]
    named = or_(of.namespace.in_(whole), (of.namespace + "/" + of.name).in_(viewer.repos))
    return or_(of.visibility == "public", and_(seen, named))


def member_of(viewer: Viewer) -> Select[str]:
    return select(Membership.namespace).where(Membership.user_id == viewer.id)


def role(session: Session, viewer: Viewer, namespace: str) -> Role | None:
    """The viewer's role in the namespace; None without a membership, and where there is no namespace of that name."""
    if viewer.is_admin:
        return "admin" if session.get(Namespace, namespace) else None
    membership = session.get(Membership, (namespace, viewer.id))
    return membership.role if membership else None


def require_member(session: Session, viewer: Viewer, namespace: str) -> Role:
    """The viewer's role in the namespace. Raises NotFound for others than its members, and for tokens that do not reach it."""
    held = None if viewer.limited_from(namespace, None) else role(session, viewer, namespace)
    if held is None:
        raise NotFound(f"There is no namespace {namespace!r} that you are a member of.")
    return held


def may_write(session: Session, viewer: Viewer | None, namespace: str, name: str | None = None) -> bool:
    """Whether `authorize_in` would give a permit to write."""
    try:
        authorize_in(session, viewer, Write, namespace, name)
    except HubError:
        return False
    return True
