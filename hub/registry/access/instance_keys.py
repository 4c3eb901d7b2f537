"""Secret keys of the instance: generated once, stored in the database, the same in every process."""

import secrets

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from hub.registry.models.instance import Secret

KEY = "signing"


def key(session: Session, name: str = KEY) -> bytes:
    """The instance's key of this name: the same in every process, whichever comes first."""
    session.execute(insert(Secret).values(name=name, value=secrets.token_bytes(32)).on_conflict_do_nothing())
    return session.scalars(select(Secret.value).where(Secret.name == name)).one()
