"""/v1/bases: the base models that workers can load."""

from fastapi import APIRouter

from api.v1.bases import schemas
from hub.http.identity import ServicesDep, SessionDep, SignedIn
from hub.http.permissions import CanAdministerHub
from hub.registry.bases import base_models, registration
from hub.registry.models.bases import RegisteredBase

router = APIRouter(prefix="/v1/bases", tags=["bases"])


@router.get("")
def list_bases(session: SessionDep, viewer: SignedIn) -> list[schemas.Base]:
    return [_base(base) for base in base_models.listing(session)]


@router.post("", status_code=201)
def register_base(services: ServicesDep, hub: CanAdministerHub, body: schemas.NewBase) -> schemas.Base:
    """Register a folder on the workers' machines, or a repo of the upstream hub (administrators). Only headers are read.

    Registering a base again under the same id replaces what was registered.
    """
    token = body.token.get_secret_value() if body.token else None
    base = registration.register(
        services,
        hub,
        body.id,
        path=body.path,
        upstream=body.upstream,
        token=token,
        revision=body.revision,
        dtype=body.dtype,
        licence=body.licence,
        aliases=body.aliases,
    )
    return _base(base)


@router.delete("/{base_id:path}", status_code=204)
def remove_base(session: SessionDep, hub: CanAdministerHub, base_id: str) -> None:
    """Remove a base (administrators). Its files stay where they are, and its adapters keep its name."""
    registration.remove(session, hub, base_id)


def _base(base: RegisteredBase) -> schemas.Base:
    return schemas.Base(
        id=base.id,
        path=base.path,
        upstream=base.upstream,
        revision=base.revision,
        dtype=base.dtype,
        licence=base.licence,
        aliases=[alias.alias for alias in base.aliases],
        layers=len(base.shapes),
        fingerprint=base.fingerprint,
    )
