"""Git LFS: the batch, which lists missing files with signed addresses, and the routes behind these addresses."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from api.huggingface.common import FullName, pieces, repo_url
from hub.http.addresses import root_url
from hub.http.identity import ServicesDep, SessionDep
from hub.http.permissions import CanWriteAdapter, CanWriteDataset, CanWriteSomewhere, public
from hub.registry.access import instance_keys, quota
from hub.registry.access.viewer import Viewer
from hub.registry.content import lfs, refs
from hub.registry.content.lfs import Grant
from hub.registry.content.repos import WriteRepo
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import HubError, InvalidInput
from hub.registry.platform.services import Services
from hub.registry.platform.storage import MAX_OBJECT_BYTES
from hub.vocabulary import RepoType

router = APIRouter()

MEDIA_TYPE = "application/vnd.git-lfs+json"


class Object(BaseModel):
    oid: str = Field(pattern=r"^[!-~]*$")  # the answer repeats it
    size: int


class Batch(BaseModel):
    operation: Literal["upload"]  # files are downloaded by /resolve/
    objects: list[Object] = Field(max_length=1_000)


@router.post("/datasets/{namespace}/{name}.git/info/lfs/objects/batch")
def batch_dataset(
    request: Request, services: ServicesDep, session: SessionDep, writer: CanWriteDataset, batch: Batch
) -> Response:
    return _batch(request, services, session, writer, batch)


@router.post("/{namespace}/{name}.git/info/lfs/objects/batch")
def batch_model(
    request: Request, services: ServicesDep, session: SessionDep, writer: CanWriteAdapter, batch: Batch
) -> Response:
    return _batch(request, services, session, writer, batch)


def _batch(
    request: Request,
    services: Services,
    session: Session,
    writer: WriteRepo,
    batch: Batch,
) -> Response:
    """Answer a batch. Files that the namespace holds get no actions, as they need not be sent."""
    namespace = writer.namespace
    held = lfs.sizes_held(session, namespace, [requested.oid for requested in batch.objects])
    quota.require_room(session, namespace, sum(item.size for item in batch.objects if item.oid not in held))
    verify = {"href": f"{repo_url(request, writer.repo.type, writer.repo.full_name)}.git/info/lfs/verify"}
    answers: list[dict[str, object]] = []
    transfer = "basic"
    for requested in batch.objects:
        answer: dict[str, object] = {"oid": requested.oid, "size": requested.size}
        answers.append(answer)
        try:
            lfs.check_object(requested.oid, requested.size)
        except HubError as error:
            answer["error"] = {"code": error.status, "message": error.message}
            continue
        if requested.oid not in held:
            part_bytes = services.settings.lfs_part_bytes
            upload = lfs.upload(session, root_url(request), namespace, requested.oid, requested.size, part_bytes)
            transfer = "multipart" if upload.header else transfer
            answer["actions"] = {"upload": {"href": upload.href, "header": upload.header}, "verify": verify}
        elif held[requested.oid] != requested.size:
            answer["error"] = {"code": 422, "message": f"The file of this hash has {held[requested.oid]:,} bytes."}
    return JSONResponse({"transfer": transfer, "objects": answers, "hash_algo": "sha256"}, media_type=MEDIA_TYPE)


class Verify(BaseModel):
    oid: str
    size: int


@router.post("/datasets/{namespace}/{name}.git/info/lfs/verify")
def verify_dataset(services: ServicesDep, writer: CanWriteSomewhere, full_name: FullName, body: Verify) -> None:
    _verify(services, writer.viewer, "dataset", full_name, body)


@router.post("/{namespace}/{name}.git/info/lfs/verify")
def verify_model(services: ServicesDep, writer: CanWriteSomewhere, full_name: FullName, body: Verify) -> None:
    _verify(services, writer.viewer, "model", full_name, body)


def _verify(services: Services, viewer: Viewer, repo_type: RepoType, full_name: str, body: Verify) -> None:
    with transaction(services.sessions) as session:
        namespace = refs.writable(session, viewer, repo_type, full_name).namespace
    lfs.verify(services, namespace, body.oid, body.size)


# Addresses that the batch contains. Clients send no token to them: the signature states the file, the namespace and the expiry.


SIGNED = [public("the signature in the address is the permission")]
Expires = Annotated[int, Query(ge=0)]
Size = Annotated[int, Query(ge=1, le=MAX_OBJECT_BYTES)]


@router.put("/api/lfs/{namespace}/{oid}/content", dependencies=SIGNED)
async def put_content(
    request: Request, services: ServicesDep, namespace: str, oid: str, size: Size, expires: Expires, signature: str
) -> None:
    grant = Grant(namespace, oid, size, expires)
    _check_length(request, size)

    def receive() -> None:
        _check(services, grant, "content", signature)
        lfs.receive(services, grant, pieces(request))

    await run_in_threadpool(receive)


@router.put("/api/lfs/{namespace}/{oid}/part-{number}-{part_bytes}", dependencies=SIGNED)
async def put_part(
    request: Request,
    response: Response,
    services: ServicesDep,
    namespace: str,
    oid: str,
    number: int,
    part_bytes: int,
    size: Size,
    expires: Expires,
    signature: str,
) -> None:
    grant = Grant(namespace, oid, size, expires)

    def receive() -> str:
        _check(services, grant, f"part-{number}-{part_bytes}", signature)
        return lfs.receive_part(services, grant, number, part_bytes, pieces(request))

    response.headers["ETag"] = await run_in_threadpool(receive)


@router.post("/api/lfs/{namespace}/{oid}/complete-{count}", dependencies=SIGNED)
def complete(
    services: ServicesDep, namespace: str, oid: str, count: int, size: Size, expires: Expires, signature: str
) -> None:
    grant = Grant(namespace, oid, size, expires)
    _check(services, grant, f"complete-{count}", signature)
    lfs.complete(services, grant, count)


def _check(services: Services, grant: Grant, action: str, signature: str) -> None:
    with transaction(services.sessions) as session:
        key = instance_keys.key(session)
    grant.check(key, action, signature)


def _check_length(request: Request, size: int) -> None:
    """Refuse a wrong length before any of it is read."""
    announced = request.headers.get("Content-Length", str(size))
    if announced != str(size):
        raise InvalidInput(f"The address is for a file of {size:,} bytes, and {announced} were announced; start again.")
