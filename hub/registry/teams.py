"""Who may do what: users, namespaces and their members, and the conditions on what a viewer may read or write."""

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, and_, or_, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from hub.registry.models.access import Membership, Namespace, User
from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.columns import Role
from hub.registry.models.content import Repo
from hub.registry.platform.errors import Conflict, Forbidden, InvalidInput, NotFound, NotSignedIn

NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")

ROLES: tuple[Role, ...] = ("read", "write", "admin")  # each may do what those before it may

Scope = Literal["read", "write", "jobs", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "write", "jobs", "admin")

# First parts of addresses, of ours and of the Hugging Face Hub's, that a namespace would shadow.
RESERVED_NAMES = frozenset(
    """account activity adapters api audit auth blog collections datasets device docs facets healthz invitations jobs join kernels login
    logout map metrics models new oauth organizations readyz scores search settings share spaces static tasks teams upload users v1
    whoami-v2""".split()
)


class NameTaken(Conflict):
    code = "name_taken"


class BadName(InvalidInput):
    code = "bad_name"


class ScopeMissing(Forbidden):
    """The person may do this, but not with this token."""

    code = "scope_missing"


@dataclass(frozen=True)
class Viewer:
    """A signed-in user as far as access is concerned: plain values, so that no session needs to stay open.

    `scopes` and `repos` are those of the token that was shown: what it is good for, and the repos ("namespace/name" or "namespace/*")
    beyond the public ones that it is limited to, or None. An administrator is one only with a token of scope admin.
    """

    id: uuid.UUID
    name: str
    is_admin: bool
    scopes: frozenset[str] = frozenset(SCOPES)
    repos: tuple[str, ...] | None = None
    service_of: str | None = None

    @property
    def namespace(self) -> str:
        """Where what nobody named goes: a person's own namespace, and a service account's organisation."""
        return self.service_of or self.name

    def limited_from(self, namespace: str, name: str | None) -> bool:
        """Whether the token's limits leave this repo out, or, without a name, anything in the namespace."""
        allowed = (f"{namespace}/*", f"{namespace}/{name}") if name else (f"{namespace}/*",)
        return self.repos is not None and not any(pattern in self.repos for pattern in allowed)


def viewer_of(user: User) -> Viewer:
    """The user himself, with no token between."""
    return Viewer(user.id, user.name, user.is_admin, service_of=user.service_of)


def check_name(name: str, what: str) -> str:
    """Names that every Hugging Face client accepts as a part of a repo id."""
    if not NAME.fullmatch(name):
        raise BadName(
            f"{what} {name!r} is not a valid name: use 1 to 96 letters, digits, '_', '-' or '.', "
            "beginning with a letter or digit, not ending in '-' or '.', without '--' or '..'."
        )
    return name


def create_namespace(session: Session, name: str, kind: Literal["user", "organization"], admin_id: uuid.UUID) -> None:
    """With its first member. Raises NameTaken also where another request is making it at this moment, or only the case differs."""
    made = insert(Namespace).values(name=name, kind=kind).on_conflict_do_nothing().returning(Namespace.name)
    if session.scalar(made) is None:
        raise NameTaken(f"The name {name!r} is taken; choose another one.")
    session.add(Membership(namespace=name, user_id=admin_id, role="admin"))
    session.flush()


def check_namespace(name: str, what: str) -> None:
    check_name(name, what)
    if name.lower() in RESERVED_NAMES:
        raise BadName(f"{what} {name!r} is an address of this hub; choose another name.")


def create_user(session: Session, name: str, *, is_admin: bool = False, password_hash: str | None = None) -> User:
    """A user and the namespace of the same name. Raises NameTaken."""
    check_namespace(name, "The user name")
    user = create_account(session, name, is_admin=is_admin, password_hash=password_hash)
    create_namespace(session, name, "user", user.id)
    return user


def create_account(session: Session, name: str, **values: Any) -> User:
    """A user without a namespace. Raises NameTaken."""
    made = insert(User).values(name=name, **values).on_conflict_do_nothing().returning(User)
    user = session.scalar(made)  # none also where another request is making it at this moment
    if user is None:
        raise NameTaken(f"There is already a user {name!r}; choose another name.")
    return user


def get_user(session: Session, name: str) -> User:
    user = session.scalar(select(User).where(User.name == name))
    if user is None:
        raise NotFound(f"There is no user {name!r}.")
    return user


def ensure_user(session: Session, name: str, *, is_admin: bool = False) -> User:
    """The user of that name, made if need be; two processes that start at once get the same one."""
    session.execute(insert(User).values(name=name, is_admin=is_admin).on_conflict_do_nothing())
    user = get_user(session, name)
    ensure_namespace(session, name, "user", user.id)
    return user


def ensure_namespace(session: Session, name: str, kind: Literal["user", "organization"], admin_id: uuid.UUID) -> None:
    session.execute(insert(Namespace).values(name=name, kind=kind).on_conflict_do_nothing())
    member = insert(Membership).values(namespace=name, user_id=admin_id, role="admin")
    session.execute(member.on_conflict_do_nothing())


def namespaces(session: Session, viewer: Viewer) -> Sequence[tuple[Namespace, Role]]:
    """Those that the viewer is a member of, his own first."""
    query = (
        select(Namespace, Membership.role)
        .join(Membership, Membership.namespace == Namespace.name)
        .where(Membership.user_id == viewer.id)
        .order_by(Namespace.name != viewer.name, Namespace.name)
    )
    return [(namespace, role) for namespace, role in session.execute(query)]


def writable(session: Session, viewer: Viewer) -> list[str]:
    """The namespaces in which the viewer may make things, his own first."""
    return [each.name for each, _ in namespaces(session, viewer) if may_write(session, viewer, each.name)]


def readable(viewer: Viewer | None, of: type[Repo] | type[AdapterFacts] = Repo) -> ColumnElement[bool]:
    """The condition on a repo, or on facts, which repeat what it asks for, for what a viewer may see (deleted repos aside)."""
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
    """What the viewer is in the namespace; None if he is no member or there is none of that name."""
    if viewer.is_admin:
        return "admin" if session.get(Namespace, namespace) else None
    found = session.get(Membership, (namespace, viewer.id))
    return found.role if found else None


def may_write(session: Session, viewer: Viewer, namespace: str, name: str | None = None) -> bool:
    """Whether the viewer may write in the namespace: a repo of it, or, without a name, whatever its members with this role may."""
    return (
        "write" in viewer.scopes
        and not viewer.limited_from(namespace, name)
        and role(session, viewer, namespace) in ("write", "admin")
    )


def require_write(session: Session, viewer: Viewer | None, namespace: str, name: str | None = None) -> Viewer:
    """The viewer, if he may write there. Raises NotSignedIn, ScopeMissing or Forbidden, which also hides whether it exists."""
    if viewer is None:
        raise NotSignedIn("Sign in, or send a token, to write.")
    require_scope(viewer, "write")
    if not may_write(session, viewer, namespace, name):
        raise Forbidden(
            f"You may not write in the namespace {namespace!r}, or not with this token; your own is {viewer.name!r}."
        )
    return viewer


def require_scope(viewer: Viewer, scope: Scope) -> None:
    if scope not in viewer.scopes:
        has = ", ".join(sorted(viewer.scopes))
        raise ScopeMissing(f"This token has no scope {scope!r} (it has: {has}); make one that has it, or sign in.")


def require_account(viewer: Viewer) -> None:
    """For what gives access to everything the user has: tokens, sessions, passwords. A limited token must not widen itself."""
    require_scope(viewer, "admin")
    if viewer.repos is not None:
        raise ScopeMissing(
            "This token is limited to some repos, so it cannot be used for this; sign in, or use one that is not."
        )


def require_admin(session: Session, viewer: Viewer, namespace: str) -> Namespace:
    """The namespace, if the viewer administers it. Raises NotFound to whom it shows nothing, Forbidden to other members."""
    found = session.get(Namespace, namespace)
    has = role(session, viewer, namespace)
    if found is None or has is None or viewer.limited_from(namespace, None):
        raise NotFound(f"There is no organisation {namespace!r} that you are a member of.")
    require_scope(viewer, "admin")
    if has != "admin":
        raise Forbidden(f"Only an administrator of {namespace!r} may do this; you have the role {has!r}.")
    return found
