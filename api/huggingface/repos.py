"""Whole repos: create, delete, move, duplicate, settings, and checks of access."""

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.huggingface.common import CanWriteRepo, FullName, RepoTypeDep, repo_url, time, visibility
from api.huggingface.errors import NotOffered
from hub.http.identity import ServicesDep, SessionDep, SignedIn, ViewerDep
from hub.http.permissions import CanWriteSomewhere
from hub.registry.access.permissions import Write, authorize_in
from hub.registry.access.viewer import Viewer
from hub.registry.content import refs, rename_copy, repo_visibility, repos
from hub.registry.library import hub_listing
from hub.vocabulary import RepoType

router = APIRouter(prefix="/api")


class Named(BaseModel):
    """A repo as create and delete name it. `name` may start with its namespace; else it is in `organization` or the user's own."""

    name: str
    organization: str | None = None
    type: RepoType | None = None

    def full_name(self, viewer: Viewer) -> str:
        return self.name if "/" in self.name else f"{self.organization or viewer.namespace}/{self.name}"

    @property
    def repo_type(self) -> RepoType:
        return self.type or "model"


class NewRepo(Named):
    visibility: str | None = None
    private: bool | None = None


@router.post("/repos/create")
def create(request: Request, session: SessionDep, writer: CanWriteSomewhere, body: NewRepo) -> dict[str, object]:
    viewer = writer.viewer
    requested = visibility(body.visibility, body.private)
    repo = rename_copy.create(session, viewer, body.repo_type, body.full_name(viewer), requested)
    return {"url": repo_url(request, body.repo_type, repo.full_name), "name": repo.full_name, "id": str(repo.id)}


@router.delete("/repos/delete")
def delete(session: SessionDep, writer: CanWriteSomewhere, body: Named) -> None:
    full_name = body.full_name(writer.viewer)
    repos.delete(session, repos.writable(session, writer.viewer, body.repo_type, full_name))


class Move(BaseModel):
    fromRepo: str
    toRepo: str
    type: RepoType = "model"


@router.post("/repos/move")
def move(session: SessionDep, writer: CanWriteSomewhere, body: Move) -> None:
    source = refs.writable(session, writer.viewer, body.type, body.fromRepo)
    rename_copy.move(session, source, body.toRepo)


class Duplicate(BaseModel):
    repository: str
    visibility: str | None = None
    private: bool | None = None


@router.post("/{kind}/{namespace}/{name}/duplicate")
def duplicate(
    request: Request,
    services: ServicesDep,
    session: SessionDep,
    writer: CanWriteSomewhere,
    repo_type: RepoTypeDep,
    full_name: FullName,
    body: Duplicate,
) -> dict[str, object]:
    source = refs.find_revision(session, writer.viewer, repo_type, full_name)
    requested = visibility(body.visibility, body.private)
    repo = rename_copy.duplicate(session, writer.viewer, services.storage, source, body.repository, requested)
    return {"url": repo_url(request, repo_type, repo.full_name), "filesCopyPending": False}


class Settings(BaseModel):
    visibility: str | None = None
    private: bool | None = None
    gated: Literal["auto", "manual"] | bool | None = None


@router.put("/{kind}/{namespace}/{name}/settings")
def settings(session: SessionDep, writer: CanWriteRepo, body: Settings) -> dict[str, object]:
    if body.gated:
        raise NotOffered(
            "This hub has no gated repos: make the repo private, or put it where those may read who should."
        )
    repo = writer.repo
    requested = visibility(body.visibility, body.private)
    if requested is not None:
        repo = repo_visibility.change_visibility(session, writer, requested, reveal=False)
    return {"private": repo.visibility != "public", "visibility": repo.visibility, "gated": False}


@router.get("/{kind}/{namespace}/{name}/auth-check")
def may_read(session: SessionDep, viewer: ViewerDep, repo_type: RepoTypeDep, full_name: FullName) -> None:
    refs.find_revision(session, viewer, repo_type, full_name)


@router.get("/{kind}/{namespace}/{name}/auth-check/write")
def may_write(session: SessionDep, viewer: ViewerDep, repo_type: RepoTypeDep, full_name: FullName) -> None:
    refs.writable(session, viewer, repo_type, full_name)


@router.get("/settings/repositories")
def own_repos(session: SessionDep, viewer: SignedIn) -> list[dict[str, object]]:
    return _owned(session, viewer, viewer.namespace)


@router.get("/organizations/{namespace}/settings/repositories")
def repos_of(session: SessionDep, viewer: SignedIn, namespace: str) -> list[dict[str, object]]:
    authorize_in(session, viewer, Write, namespace)
    return _owned(session, viewer, namespace)


def _owned(session: Session, viewer: Viewer, namespace: str) -> list[dict[str, object]]:
    usage = hub_listing.owned(session, viewer, namespace)
    total = sum(used for _, used in usage) or 1
    return [
        {
            "id": repo.full_name,
            "type": repo.type,
            "updatedAt": time(repo.updated_at),
            "visibility": repo.visibility,
            "storage": used,
            "storagePercent": used / total,
        }
        for repo, used in usage
    ]
