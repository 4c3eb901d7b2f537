"""/v1/datasets: examples, uploaded and pinned the same way as adapters."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from api.v1.adapters.routes import file_infos, visibility_field
from api.v1.datasets import schemas
from api.v1.repos.routes import Revision
from api.v1.upload import body_description
from hub.http.identity import ServicesDep, SessionDep, ViewerDep
from hub.http.permissions import CanWriteSomewhere
from hub.http.uploads import Upload, read_upload
from hub.registry.access.viewer import Viewer
from hub.registry.content import repos
from hub.registry.library.publishing import publish_dataset
from hub.registry.models.content import Commit, Repo
from hub.registry.platform.services import Services
from hub.vocabulary import MAIN

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


@router.post("", status_code=201, openapi_extra=body_description("JSONL files with input and target, or an archive"))
async def upload_dataset(request: Request, services: ServicesDep, writer: CanWriteSomewhere) -> schemas.Dataset:
    async with read_upload(request, services.settings.max_upload_bytes) as upload:
        return await run_in_threadpool(_publish, services, writer.viewer, upload)


def _publish(services: Services, viewer: Viewer, upload: Upload) -> schemas.Dataset:
    repo, commit = publish_dataset(
        services,
        viewer,
        upload.fields.get("name", ""),
        upload.files,
        visibility=visibility_field(upload),
        message=upload.fields.get("message", "Upload"),
    )
    with services.sessions() as session:
        return _dataset(session, repo, commit)


def _dataset(session: Session, repo: Repo, commit: Commit) -> schemas.Dataset:
    return schemas.Dataset(
        repo=repo.full_name,
        visibility=repo.visibility,
        commit=commit.id,
        files=file_infos(repos.files(session, commit)),
    )


@router.get("")
def list_datasets(
    session: SessionDep, viewer: ViewerDep, limit: Annotated[int, Query(ge=1, le=200)] = 50, cursor: str | None = None
) -> schemas.DatasetPage:
    """Data sets that you may see, by name."""
    rows, following = repos.listing(session, viewer, "dataset", limit=limit, cursor=cursor)
    return schemas.DatasetPage(items=[_dataset(session, repo, commit) for repo, commit in rows], cursor=following)


@router.get("/{namespace}/{name}")
def get_dataset(
    session: SessionDep, viewer: ViewerDep, namespace: str, name: str, revision: Revision = MAIN
) -> schemas.Dataset:
    repo = repos.find(session, viewer, "dataset", f"{namespace}/{name}")
    return _dataset(session, repo, repos.resolve(session, repo, revision))
