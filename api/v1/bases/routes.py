"""/v1/bases: the base models that workers can load."""

from pathlib import Path

from fastapi import APIRouter

from api.v1.bases import schemas
from hub.http.identity import Admin, ServicesDep, SessionDep, SignedIn
from hub.registry.access import audit
from hub.registry.bases import base_folder, base_models, upstream_bases
from hub.registry.models.bases import RegisteredBase
from hub.registry.platform.db import transaction

router = APIRouter(prefix="/v1/bases", tags=["bases"])


@router.get("")
def list_bases(session: SessionDep, viewer: SignedIn) -> list[schemas.Base]:
    return [_base(base) for base in base_models.listing(session)]


@router.post("", status_code=201)
def register_base(services: ServicesDep, viewer: Admin, body: schemas.NewBase) -> schemas.Base:
    """Register a folder on the workers' machines, or a repo of the upstream hub (administrators). Headers are read here, nothing is copied.

    What was said before of a base of this id is replaced.
    """
    commit, licence, token = body.revision, body.licence, body.token.get_secret_value() if body.token else None
    if body.upstream:
        found = upstream_bases.read(services.upstream, body.upstream, body.revision or "main", token)
        commit, licence, read = found.commit, licence or found.licence, found.read
    else:
        read = base_folder.read(Path(body.path or ""))
    with transaction(services.sessions) as session:
        base = base_models.register(
            session,
            body.id,
            path=body.path,
            upstream=body.upstream,
            token=token,
            revision=commit,
            dtype=body.dtype,
            licence=licence,
            aliases=body.aliases,
            shapes=read.shapes,
            fingerprint=read.fingerprint,
        )
        audit.record(session, viewer, "base.registered", base.id)
        return _base(base)


@router.delete("/{base_id:path}", status_code=204)
def remove_base(session: SessionDep, viewer: Admin, base_id: str) -> None:
    """Forget a base (administrators). Its files stay where they are, and adapters of it keep their names for it."""
    base_models.remove(session, base_id)
    audit.record(session, viewer, "base.removed", base_id)


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
