"""Routes common to /v1/adapters and /v1/datasets: files at a revision, visibility, deletion and restoration."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Response
from sqlalchemy.orm import Session

from api.streaming import send_file, send_zip
from api.v1.repos import schemas
from hub.http.identity import ServicesDep, SessionDep, SignedIn, ViewerDep
from hub.http.permissions import CanAdministerHub
from hub.registry.access.viewer import Viewer
from hub.registry.content import repo_visibility, repos
from hub.registry.content.repos import WriteRepo
from hub.registry.models.content import Commit
from hub.vocabulary import MAIN, RepoType

router = APIRouter(prefix="/v1/{kind}/{namespace}/{name}", tags=["repos"])

Kind = Literal["adapters", "datasets"]
Revision = Annotated[str, Query(description="branch, tag, version (v2) or commit")]

TYPES: dict[Kind, RepoType] = {"adapters": "model", "datasets": "dataset"}


def write_repo(session: SessionDep, viewer: SignedIn, kind: Kind, namespace: str, name: str) -> WriteRepo:
    return repos.writable(session, viewer, TYPES[kind], f"{namespace}/{name}")


CanWriteRepo = Annotated[WriteRepo, Depends(write_repo)]


def commit_of(session: Session, viewer: Viewer | None, kind: Kind, namespace: str, name: str, revision: str) -> Commit:
    repo = repos.find(session, viewer, TYPES[kind], f"{namespace}/{name}")
    return repos.resolve(session, repo, revision)


@router.get("/files/{path:path}", response_class=Response)
def get_file(
    services: ServicesDep,
    session: SessionDep,
    viewer: ViewerDep,
    kind: Kind,
    namespace: str,
    name: str,
    path: str,
    revision: Revision = MAIN,
    range_header: Annotated[str | None, Header(alias="Range")] = None,
) -> Response:
    """The bytes of one file. Ranges are honoured; the ETag is the SHA-256 of the whole file."""
    commit = commit_of(session, viewer, kind, namespace, name, revision)
    return send_file(services.storage, repos.file(session, commit, path), commit, range_header)


@router.get("/archive", response_class=Response)
def get_archive(
    services: ServicesDep,
    session: SessionDep,
    viewer: ViewerDep,
    kind: Kind,
    namespace: str,
    name: str,
    revision: Revision = MAIN,
) -> Response:
    """All files as a .zip; an adapter's is the folder that stock PEFT loads once unpacked."""
    commit = commit_of(session, viewer, kind, namespace, name, revision)
    return send_zip(services.storage, f"{name}-{commit.id[:12]}", repos.files(session, commit))


@router.patch("")
def change_visibility(session: SessionDep, writer: CanWriteRepo, change: schemas.ChangeVisibility) -> schemas.Repo:
    """Make a repo more or less visible. Widening past its inputs must be confirmed: the error lists what it reveals."""
    repo = repo_visibility.change_visibility(session, writer, change.visibility, reveal=change.reveal)
    return schemas.Repo(repo=repo.full_name, visibility=repo.visibility)


@router.delete("", status_code=204)
def delete(session: SessionDep, writer: CanWriteRepo) -> None:
    """Delete a repo at once. An administrator can restore it for seven days, and the name is held that long."""
    repos.delete(session, writer)


@router.post("/restore")
def restore(
    services: ServicesDep, session: SessionDep, hub: CanAdministerHub, kind: Kind, namespace: str, name: str
) -> schemas.Repo:
    """Undo a deletion (administrators)."""
    full_name = f"{namespace}/{name}"
    repo = repos.restore(session, hub, TYPES[kind], full_name, services.settings.restore_days)
    return schemas.Repo(repo=repo.full_name, visibility=repo.visibility)
