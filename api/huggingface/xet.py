"""The upload half of Xet, which clients since huggingface_hub 1.20 send large files by. Downloads do not use Xet."""

import tempfile
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.huggingface.commit import refuse_pull_request
from api.huggingface.common import CanWriteRepo, pieces
from hub.formats.xet_format import MAX_SHARD_BYTES
from hub.http.addresses import root_url
from hub.http.identity import ServicesDep, SessionDep
from hub.http.permissions import public
from hub.registry.access import instance_keys
from hub.registry.content import xet
from hub.registry.content.xet import UploadEpoch
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import InvalidInput, TooLarge
from hub.registry.platform.services import Services

router = APIRouter()


class LengthRequired(InvalidInput):
    status, code = 411, "length_required"


@router.get("/api/{kind}/{namespace}/{name}/xet-write-token/{revision:path}")
def write_token(
    request: Request,
    response: Response,
    session: SessionDep,
    writer: CanWriteRepo,
    revision: str,
    create_pr: str | None = None,
) -> dict[str, object]:
    """The token of an upload. Only the commit checks the revision, because clients also send None."""
    refuse_pull_request(create_pr)
    namespace = writer.namespace
    access = xet.grant(instance_keys.key(session), namespace)
    address = f"{root_url(request)}/api/xet/{namespace}/{access.upload.epoch}"
    response.headers["X-Xet-Cas-Url"] = address
    response.headers["X-Xet-Access-Token"] = access.token
    response.headers["X-Xet-Token-Expiration"] = str(access.expires)
    return {"accessToken": access.token, "exp": access.expires, "casUrl": address}


def get_upload_epoch(request: Request, services: ServicesDep, namespace: str, epoch: str) -> UploadEpoch:
    """The upload that the request's token is for."""
    upload = UploadEpoch(namespace, epoch)
    with transaction(services.sessions) as session:
        key = instance_keys.key(session)
    xet.check(key, upload, request.headers.get("Authorization", "").removeprefix("Bearer "))
    return upload


UploadEpochDep = Annotated[UploadEpoch, Depends(get_upload_epoch)]
OWN_TOKEN = [public("the token of the upload, made by write_token, says where it may write")]
CAS = "/api/xet/{namespace}/{epoch}"


@router.post(f"{CAS}/v1/xorb-grants/default/{{xorb}}", dependencies=OWN_TOKEN)
def grant(services: ServicesDep, upload: UploadEpochDep, xorb: str) -> dict[str, object]:
    """Answer a client's request for an address to send a xorb to: 200 if the hub has it already, 404 to send it to the hub itself."""
    xet.find(services.storage, upload, xorb)
    return {}


@router.post(f"{CAS}/v1/xorbs/default/{{xorb}}", dependencies=OWN_TOKEN)
async def post_xorb(request: Request, services: ServicesDep, upload: UploadEpochDep, xorb: str) -> dict[str, object]:
    size = request.headers.get("Content-Length", "")
    if not size.isdecimal():
        raise LengthRequired("A xorb is sent with its Content-Length.")
    await run_in_threadpool(xet.receive_xorb, services, upload, xorb, int(size), pieces(request))
    return {"was_inserted": True}


@router.post(f"{CAS}/v1/shards", dependencies=OWN_TOKEN)
@router.post(f"{CAS}/shards", dependencies=OWN_TOKEN)  # hf_xet before 1.6
async def post_shard(request: Request, services: ServicesDep, upload: UploadEpochDep) -> dict[str, object]:
    await run_in_threadpool(_receive_shard, services, upload, request)
    return {"result": 1}


def _receive_shard(services: Services, upload: UploadEpoch, request: Request) -> None:
    with tempfile.TemporaryFile(prefix="loraloom-shard-") as shard:
        for piece in pieces(request):
            if shard.tell() + len(piece) > MAX_SHARD_BYTES:
                raise TooLarge(f"The list of files has more than {MAX_SHARD_BYTES:,} bytes; upload in several commits.")
            shard.write(piece)
        xet.receive_shard(services, upload, shard)
