"""Users and namespaces: which names are allowed, creating accounts, and memberships."""

import uuid
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from hub.registry.access import credentials
from hub.registry.access.permissions import AdministerHub
from hub.registry.access.viewer import Viewer
from hub.registry.models.access import Membership, Namespace, Token, User
from hub.registry.platform.errors import Conflict, InvalidInput, NotFound
from hub.vocabulary import NAME, NamespaceKind, Role

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


def check_name(name: str, what: str) -> str:
    """Names that every Hugging Face client accepts as a part of a repo id."""
    if not NAME.fullmatch(name):
        raise BadName(
            f"{what} {name!r} is not a valid name: use 1 to 96 letters, digits, '_', '-' or '.', "
            "beginning with a letter or digit, not ending in '-' or '.', without '--' or '..'."
        )
    return name


def create_namespace(session: Session, name: str, kind: NamespaceKind, admin_id: uuid.UUID) -> None:
    """With its first member. Raises NameTaken also where another request is making it at this moment, or only the case differs."""
    row = insert(Namespace).values(name=name, kind=kind).on_conflict_do_nothing().returning(Namespace.name)
    if session.scalar(row) is None:
        raise NameTaken(f"The name {name!r} is taken; choose another one.")
    session.add(Membership(namespace=name, user_id=admin_id, role="admin"))
    session.flush()


def check_namespace(name: str, what: str) -> None:
    check_name(name, what)
    if name.lower() in RESERVED_NAMES:
        raise BadName(f"{what} {name!r} is an address of this hub; choose another name.")


def register(
    session: Session, hub: AdministerHub, name: str, *, is_admin: bool, password_hash: str | None = None
) -> tuple[User, Token, str]:
    """A new user, with a first token and its secret to hand over. Raises NameTaken, BadName."""
    user = create_user(session, name, is_admin=is_admin, password_hash=password_hash)
    token, secret = credentials.issue_token(session, user.id, "first")
    hub.record(session, "user.created", user.name, is_admin=is_admin)
    return user, token, secret


def create_user(session: Session, name: str, *, is_admin: bool = False, password_hash: str | None = None) -> User:
    """A user and the namespace of the same name. Raises NameTaken."""
    check_namespace(name, "The user name")
    user = create_account(session, name, is_admin=is_admin, password_hash=password_hash)
    create_namespace(session, name, "user", user.id)
    return user


def create_account(session: Session, name: str, **values: Any) -> User:
    """A user without a namespace. Raises NameTaken."""
    row = insert(User).values(name=name, **values).on_conflict_do_nothing().returning(User)
    user = session.scalar(row)  # none also where another request is making it at this moment
    if user is None:
        raise NameTaken(f"There is already a user {name!r}; choose another name.")
    return user


def get_user(session: Session, name: str) -> User:
    user = session.scalar(select(User).where(User.name == name))
    if user is None:
        raise NotFound(f"There is no user {name!r}.")
    return user


def ensure_user(session: Session, name: str, *, is_admin: bool = False) -> User:
    """The user of that name, created if need be; two processes that start at once get the same one."""
    session.execute(insert(User).values(name=name, is_admin=is_admin).on_conflict_do_nothing())
    user = get_user(session, name)
    ensure_namespace(session, name, "user", user.id)
    return user


def ensure_namespace(session: Session, name: str, kind: NamespaceKind, admin_id: uuid.UUID) -> None:
    session.execute(insert(Namespace).values(name=name, kind=kind).on_conflict_do_nothing())
    member = insert(Membership).values(namespace=name, user_id=admin_id, role="admin")
    session.execute(member.on_conflict_do_nothing())


def names_of(session: Session, ids: Collection[uuid.UUID]) -> dict[uuid.UUID, str]:
    return dict(iter(session.execute(select(User.id, User.name).where(User.id.in_(ids)))))


def namespaces(session: Session, viewer: Viewer) -> Sequence[tuple[Namespace, Role]]:
    """Those that the viewer is a member of, their own first."""
    query = (
        select(Namespace, Membership.role)
        .join(Membership, Membership.namespace == Namespace.name)
        .where(Membership.user_id == viewer.id)
        .order_by(Namespace.name != viewer.name, Namespace.name)
    )
    return [(namespace, role) for namespace, role in session.execute(query)]
