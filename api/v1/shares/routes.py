"""/v1: share links. Users who may write create them; anybody with the link sees the version that it shows."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from api.streaming import send_file, send_zip
from api.v1.adapters.routes import file_infos, folder_info
from api.v1.shares import schemas
from hub.http.addresses import root_url
from hub.http.identity import ServicesDep, SessionDep
from hub.http.permissions import CanWriteAdapter
from hub.registry.content import repos, share_links
from hub.registry.models.content import ShareLink
from hub.registry.platform.db import transaction

router = APIRouter(prefix="/v1", tags=["shares"])


@router.get("/adapters/{namespace}/{name}/shares")
def list_shares(session: SessionDep, writer: CanWriteAdapter) -> list[schemas.ShareInfo]:
    """The unexpired links to versions of an adapter."""
    return [_share(share) for share in share_links.listing(session, writer)]


@router.post("/adapters/{namespace}/{name}/shares", status_code=201)
def create_share(
    request: Request, session: SessionDep, writer: CanWriteAdapter, body: schemas.NewShare
) -> schemas.ShareSecret:
    """Create an address that shows one version and serves its files to anybody who has it."""
    share, secret = share_links.create(session, writer, body.revision, body.days, reveal=body.reveal)
    address = f"{root_url(request)}/v1/shares/{secret}"
    return schemas.ShareSecret(**_share(share).model_dump(), address=address)


@router.delete("/adapters/{namespace}/{name}/shares/{share_id}", status_code=204)
def revoke_share(session: SessionDep, writer: CanWriteAdapter, share_id: uuid.UUID) -> None:
    share_links.revoke(session, writer, share_id)


def _share(share: ShareLink) -> schemas.ShareInfo:
    return schemas.ShareInfo(
        id=share.id, commit=share.commit_id, created_at=share.created_at, expires_at=share.expires_at
    )


@router.get("/shares/{secret}")
def open_share(session: SessionDep, secret: str) -> schemas.Shared:
    """The version that a link shows; no sign-in is needed."""
    repo, commit, share = share_links.open_share_link(session, secret)
    return schemas.Shared(
        repo=repo.full_name,
        commit=commit.id,
        expires_at=share.expires_at,
        adapters=[folder_info(facts) for facts in repos.facts(session, commit)],
        files=file_infos(repos.files(session, commit)),
    )


@router.get("/shares/{secret}/files/{path:path}", response_class=Response)
def shared_file(
    services: ServicesDep, secret: str, path: str, range_header: Annotated[str | None, Header(alias="Range")] = None
) -> Response:
    """One of its files; ranges are honoured."""
    with transaction(services.sessions) as session:
        _, commit, _ = share_links.open_share_link(session, secret)
        entry = repos.file(session, commit, path)
    return send_file(services.storage, entry, commit, range_header)


@router.get("/shares/{secret}/archive", response_class=Response)
def shared_archive(services: ServicesDep, secret: str) -> Response:
    """All of them as a .zip."""
    with transaction(services.sessions) as session:
        repo, commit, _ = share_links.open_share_link(session, secret)
        entries = repos.files(session, commit)
    return send_zip(services.storage, repo.name, entries)
