"""/v1/adapters/.../aliases: names that move with a record, roll back in one call, and may be gated."""

from fastapi import APIRouter
from sqlalchemy.orm import Session

from api.v1.aliases import schemas
from hub.http.identity import SessionDep, SignedIn, ViewerDep
from hub.registry.access.viewer import Viewer
from hub.registry.content import aliases, repos
from hub.registry.content.aliases import AliasInfo, Gate
from hub.registry.models.content import Repo

router = APIRouter(prefix="/v1/adapters/{namespace}/{name}/aliases", tags=["aliases"])


@router.get("")
def list_aliases(session: SessionDep, viewer: ViewerDep, namespace: str, name: str) -> list[schemas.Alias]:
    """Every alias: what it stands for, its gate, and who moved it when, newest first."""
    return _listing(session, viewer, repos.find(session, viewer, "model", f"{namespace}/{name}"))


@router.put("/{alias}")
def move_alias(
    session: SessionDep, viewer: SignedIn, namespace: str, name: str, alias: str, body: schemas.MoveAlias
) -> schemas.Alias:
    """Let an alias stand for a revision. A gate that the version does not pass refuses it with the figures."""
    repo = repos.find(session, viewer, "model", f"{namespace}/{name}")
    aliases.move(session, viewer, repo, alias, body.revision)
    return _one(session, viewer, repo, alias)


@router.post("/{alias}/rollback")
def roll_back_alias(session: SessionDep, viewer: SignedIn, namespace: str, name: str, alias: str) -> schemas.Alias:
    """Back to what it stood for before its last move; no gate is asked."""
    repo = repos.find(session, viewer, "model", f"{namespace}/{name}")
    aliases.roll_back(session, viewer, repo, alias)
    return _one(session, viewer, repo, alias)


@router.put("/{alias}/gate")
def gate_alias(
    session: SessionDep, viewer: SignedIn, namespace: str, name: str, alias: str, body: schemas.NewGate
) -> schemas.Alias:
    """From now on it moves only to versions whose evaluation is not worse than the holder's."""
    repo = repos.find(session, viewer, "model", f"{namespace}/{name}")
    dataset = repos.find(session, viewer, "dataset", body.dataset)
    commit = repos.resolve(session, dataset, body.revision)
    path = repos.file(session, commit, body.path).path
    aliases.set_gate(session, viewer, repo, alias, Gate(body.metric, commit.id, path, body.template, body.tolerance))
    return _one(session, viewer, repo, alias)


@router.delete("/{alias}/gate", status_code=204)
def ungate_alias(session: SessionDep, viewer: SignedIn, namespace: str, name: str, alias: str) -> None:
    aliases.set_gate(session, viewer, repos.find(session, viewer, "model", f"{namespace}/{name}"), alias, None)


@router.delete("/{alias}", status_code=204)
def remove_alias(session: SessionDep, viewer: SignedIn, namespace: str, name: str, alias: str) -> None:
    """The name goes, its record stays."""
    aliases.remove(session, viewer, repos.find(session, viewer, "model", f"{namespace}/{name}"), alias)


def _listing(session: Session, viewer: Viewer | None, repo: Repo) -> list[schemas.Alias]:
    return [_shown(alias) for alias in aliases.listing(session, viewer, repo)]


def _one(session: Session, viewer: Viewer, repo: Repo, name: str) -> schemas.Alias:
    return next(alias for alias in _listing(session, viewer, repo) if alias.name == name)


def _shown(alias: AliasInfo) -> schemas.Alias:
    return schemas.Alias.model_validate(alias, from_attributes=True)
