"""Registered base models: what workers can load, under which names, and with which linear layers."""

from collections.abc import Mapping, Sequence

from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from hub.registry.access import encryption
from hub.registry.inspection.checks import KnownBase
from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.bases import BaseAlias, RegisteredBase
from hub.registry.models.jobs import Job
from hub.registry.platform.errors import Conflict, NotFound


class BaseNotFound(NotFound):
    code = "base_not_found"


class BaseExists(Conflict):
    code = "base_exists"


class BaseInUse(Conflict):
    code = "base_in_use"


def register(
    session: Session,
    base_id: str,
    *,
    path: str | None,
    upstream: str | None = None,
    token: str | None = None,
    revision: str | None,
    dtype: str,
    licence: str | None,
    aliases: Sequence[str],
    shapes: Mapping[str, tuple[int, int]],
    fingerprint: str,
) -> RegisteredBase:
    """Add or update a base, and link the adapters that name it.

    Raises BaseExists if one of its names belongs to another base.
    """
    aliases = sorted(set(aliases) - {base_id})
    taken = session.scalars(
        select(BaseAlias.alias).where(BaseAlias.alias.in_([base_id, *aliases]), BaseAlias.base_id != base_id)
    ).all()
    taken += session.scalars(select(RegisteredBase.id).where(RegisteredBase.id.in_(aliases))).all()  # type: ignore[operator]
    if taken:
        raise BaseExists(f"The name {taken[0]!r} already means another base; leave it out, or remove it there first.")
    values = {
        "path": path,
        "upstream": upstream,
        "token": encryption.seal(session, token) if token else None,
        "revision": revision,
        "dtype": dtype,
        "licence": licence,
        "shapes": {module: list(shape) for module, shape in shapes.items()},
        "fingerprint": fingerprint,
    }
    statement = insert(RegisteredBase).values(id=base_id, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))
    base = session.get_one(RegisteredBase, base_id, populate_existing=True)
    base.aliases = [session.get(BaseAlias, alias) or BaseAlias(alias=alias) for alias in aliases]
    # Adapters may have been published before their base was registered, or before the name that they use.
    named = AdapterFacts.base_model.in_([base_id, *aliases])
    session.execute(update(AdapterFacts).where(named).values(base_id=base_id))
    session.execute(update(AdapterFacts).where(AdapterFacts.base_id == base_id, ~named).values(base_id=None))
    session.flush()
    return base


def remove(session: Session, base_id: str) -> None:
    """Remove a base and its aliases; adapters keep its name. Raises BaseNotFound, and BaseInUse while a job needs it."""
    base = session.get(RegisteredBase, base_id)
    if base is None:
        raise BaseNotFound(f"No base has the id {base_id!r} here; an alias goes by registering its base without it.")
    if base.path is None and base.upstream is None:
        raise BaseInUse("The built-in base stays: the starter library is made of it.")
    pinned = {"base": {"id": base_id}}
    needed = or_(Job.params.contains(pinned), Job.params.contains({"teachers": [pinned]}))
    # A job submitted at this moment may slip through. It still runs, because it has pinned where its base is.
    live = select(func.count()).select_from(Job).where(Job.state.in_(("queued", "running")), needed)
    if jobs := session.scalar(live):
        raise BaseInUse(f"{jobs} jobs that wait or run need {base_id!r}; cancel them, or wait for their end.")
    session.delete(base)
    session.flush()


def names(session: Session) -> dict[str, str]:
    """Every name of every base -> the base's id."""
    own = {base_id: base_id for base_id in session.scalars(select(RegisteredBase.id))}
    return own | dict(iter(session.execute(select(BaseAlias.alias, BaseAlias.base_id))))


def find(session: Session, name: str) -> RegisteredBase:
    base = session.get(RegisteredBase, names(session).get(name, name))
    if base is None:
        known = ", ".join(session.scalars(select(RegisteredBase.id).order_by(RegisteredBase.id))) or "none yet"
        raise BaseNotFound(f"No base {name!r} is registered here (registered: {known}); register it, or name another.")
    return base


def token(session: Session, base_id: str) -> str | None:
    """The token sent to the upstream for this base, if it is not the hub's own."""
    sealed = session.scalar(select(RegisteredBase.token).where(RegisteredBase.id == base_id))
    return encryption.unseal(session, sealed) if sealed else None


def listing(session: Session) -> Sequence[RegisteredBase]:
    return session.scalars(select(RegisteredBase).order_by(RegisteredBase.id)).all()


def known(session: Session) -> list[KnownBase]:
    """The bases as inspection needs them to compare an adapter with."""
    return [
        KnownBase(
            id=base.id,
            aliases=tuple(alias.alias for alias in base.aliases),
            shapes={module: (shape[0], shape[1]) for module, shape in base.shapes.items()},
        )
        for base in listing(session)
    ]
