"""The conditions on what a viewer may read or write."""

from sqlalchemy import ColumnElement, Select, and_, or_, select, true
from sqlalchemy.orm import Session

from hub.registry.access.users import namespaces
from hub.registry.access.viewer import Viewer
from hub.registry.models.access import Membership, Namespace
from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.content import Repo
from hub.registry.platform.errors import Forbidden, NotFound, NotSignedIn
from hub.vocabulary import Role, Scope


class ScopeMissing(Forbidden):
    """The person may do this, but not with this token."""

    code = "scope_missing"


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
