"""/v1/adapters/.../aliases: names that move with a record, roll back in one call, and may be gated."""

from fastapi import APIRouter
from sqlalchemy.orm import Session

from api.v1.aliases import schemas
from hub.http.identity import SessionDep, ViewerDep
from hub.http.permissions import CanWriteAdapter
from hub.registry.access.viewer import Viewer
from hub.registry.content import aliases, repos
from hub.registry.content.aliases import AliasInfo, Gate
from hub.registry.content.repos import WriteRepo
from hub.registry.models.content import Repo

router = APIRouter(prefix="/v1/adapters/{namespace}/{name}/aliases", tags=["aliases"])


@router.get("")
def list_aliases(session: SessionDep, viewer: ViewerDep, namespace: str, name: str) -> list[schemas.Alias]:
    """Every alias: what it stands for, its gate, and who moved it when, newest first."""
    return _listing(session, viewer, repos.find(session, viewer, "model", f"{namespace}/{name}"))


@router.put("/{alias}")
def move_alias(session: SessionDep, writer: CanWriteAdapter, alias: str, body: schemas.MoveAlias) -> schemas.Alias:
    """Point an alias at a revision. Refused with the figures if the version does not pass the gate."""
    aliases.move(session, writer, alias, body.revision)
    return _get_alias(session, writer, alias)


@router.post("/{alias}/rollback")
def roll_back_alias(session: SessionDep, writer: CanWriteAdapter, alias: str) -> schemas.Alias:
    """Undo the last move of an alias; no gate applies."""
    aliases.roll_back(session, writer, alias)
    return _get_alias(session, writer, alias)


@router.put("/{alias}/gate")
def gate_alias(session: SessionDep, writer: CanWriteAdapter, alias: str, body: schemas.NewGate) -> schemas.Alias:
    """Set a gate: from now on the alias moves only to versions whose evaluation is not worse than the holder's."""
    dataset = repos.find(session, writer.viewer, "dataset", body.dataset)
    commit = repos.resolve(session, dataset, body.revision)
    path = repos.file(session, commit, body.path).path
    aliases.set_gate(session, writer, alias, Gate(body.metric, commit.id, path, body.template, body.tolerance))
    return _get_alias(session, writer, alias)


@router.delete("/{alias}/gate", status_code=204)
def ungate_alias(session: SessionDep, writer: CanWriteAdapter, alias: str) -> None:
    aliases.set_gate(session, writer, alias, None)


@router.delete("/{alias}", status_code=204)
def remove_alias(session: SessionDep, writer: CanWriteAdapter, alias: str) -> None:
    """Remove an alias; its record stays."""
    aliases.remove(session, writer, alias)


def _listing(session: Session, viewer: Viewer | None, repo: Repo) -> list[schemas.Alias]:
    return [_alias(alias) for alias in aliases.listing(session, viewer, repo)]


def _get_alias(session: Session, writer: WriteRepo, name: str) -> schemas.Alias:
    return next(alias for alias in _listing(session, writer.viewer, writer.repo) if alias.name == name)


def _alias(alias: AliasInfo) -> schemas.Alias:
    return schemas.Alias.model_validate(alias, from_attributes=True)
