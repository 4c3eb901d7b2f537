"""Registering and removing base models, for administrators."""

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.orm import Session

from hub.registry.access.permissions import AdministerHub
from hub.registry.bases import base_folder, base_models, upstream_bases
from hub.registry.models.bases import RegisteredBase
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services


def register(
    services: Services,
    hub: AdministerHub,
    base_id: str,
    *,
    path: str | None,
    upstream: str | None,
    token: str | None,
    revision: str | None,
    dtype: str,
    licence: str | None,
    aliases: Sequence[str],
) -> RegisteredBase:
    """Read the headers of a folder, or of a repo of the upstream hub, and add or update the base.

    Raises BadBase if it cannot be read, and BaseExists if one of its names belongs to another base.
    """
    if upstream:
        upstream_base = upstream_bases.read(services.upstream, upstream, revision or "main", token)
        revision, licence, headers = upstream_base.commit, licence or upstream_base.licence, upstream_base.read
    else:
        headers = base_folder.read(Path(path or ""))
    with transaction(services.sessions) as session:
        base = base_models.register(
            session,
            base_id,
            path=path,
            upstream=upstream,
            token=token,
            revision=revision,
            dtype=dtype,
            licence=licence,
            aliases=aliases,
            shapes=headers.shapes,
            fingerprint=headers.fingerprint,
        )
        hub.record(session, "base.registered", base.id)
        return base


def remove(session: Session, hub: AdministerHub, base_id: str) -> None:
    """Remove a base. Raises BaseNotFound, and BaseInUse while a job needs it."""
    base_models.remove(session, base_id)
    hub.record(session, "base.removed", base_id)
