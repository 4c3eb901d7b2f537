"""/v1/bases: the base models that workers can load."""

from pathlib import Path

from fastapi import APIRouter

from api import schemas
from hub.http import Admin, SessionDep, SignedIn
from hub.registry import audit, base_folder, bases
from hub.registry.models import BaseModel

router = APIRouter(prefix="/v1/bases", tags=["bases"])


@router.get("")
def list_bases(session: SessionDep, viewer: SignedIn) -> list[schemas.Base]:
    return [_base(base) for base in bases.listing(session)]


@router.post("", status_code=201)
def register_base(session: SessionDep, viewer: Admin, body: schemas.NewBase) -> schemas.Base:
    """Register a folder on the workers' machines (administrators). Its headers are read here; nothing is copied."""
    folder = base_folder.read(Path(body.path))
    base = bases.register(
        session,
        body.id,
        path=body.path,
        revision=body.revision,
        dtype=body.dtype,
        licence=body.licence,
        aliases=body.aliases,
        shapes=folder.shapes,
        fingerprint=folder.fingerprint,
    )
    audit.record(session, viewer, "base.registered", base.id)
    return _base(base)


@router.delete("/{base_id:path}", status_code=204)
def remove_base(session: SessionDep, viewer: Admin, base_id: str) -> None:
    """Forget a base (administrators). Its files stay where they are, and adapters of it keep their names for it."""
    bases.remove(session, base_id)
    audit.record(session, viewer, "base.removed", base_id)


def _base(base: BaseModel) -> schemas.Base:
    return schemas.Base(
        id=base.id,
        path=base.path,
        revision=base.revision,
        dtype=base.dtype,
        licence=base.licence,
        aliases=[alias.alias for alias in base.aliases],
        layers=len(base.shapes),
        fingerprint=base.fingerprint,
    )
