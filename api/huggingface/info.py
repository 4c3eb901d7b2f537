"""Information about a repo, and lists of repos."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from api.huggingface.common import FullName, RepoTypeDep, link_next, time, warn_text
from api.huggingface.tree import POINTER_BYTES
from api.huggingface.upstream_proxy import UpstreamFallbackRoute
from hub.http.identity import ServicesDep, SessionDep, ViewerDep
from hub.registry.content import refs, repos
from hub.registry.content.refs import RevisionRef
from hub.registry.content.trees import is_lfs
from hub.registry.inspection.model_card import MAX_CARD_BYTES, Card, CardError, parse_card
from hub.registry.library import hub_listing
from hub.registry.library.hub_listing import Filters, Sort
from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.content import TreeEntry
from hub.registry.platform.errors import RepoNotFound
from hub.registry.platform.storage import Storage

router = APIRouter(prefix="/api/{kind}", route_class=UpstreamFallbackRoute)

CARD = "README.md"
SORTS: dict[str, Sort] = {"createdAt": "created", "lastModified": "modified"}
NO_FILTERS = ("apps", "inference", "inference_provider", "num_parameters")  # that clients have and this hub has not


@router.get("")
def list_repos(
    request: Request,
    response: Response,
    session: SessionDep,
    viewer: ViewerDep,
    repo_type: RepoTypeDep,
    filter: Annotated[list[str] | None, Query(max_length=20)] = None,
    author: str | None = None,
    search: Annotated[str | None, Query(max_length=200)] = None,
    pipeline_tag: str | None = None,
    sort: str | None = None,
    limit: Annotated[int, Query(ge=1)] = 100,
    full: bool = False,
    gated: bool = False,
    cursor: str | None = None,
) -> list[dict[str, Any]]:
    """Repos that the viewer may read, newest first; `filter` names tags that must all apply."""
    if sort is not None and sort not in SORTS:
        warn_text(response, "sort", f"This hub does not count {sort}; the list is sorted by lastModified.")
    for name in NO_FILTERS:
        if name in request.query_params:
            warn_text(response, name, f"This hub does not filter by {name}; the list is as without it.")
    if gated:
        return []  # no repo of this hub is
    rows, following = hub_listing.listing(
        session,
        viewer,
        repo_type,
        Filters(tags=filter or (), author=author, text=search, pipeline=pipeline_tag),
        sort=SORTS.get(sort or "", "modified"),
        limit=min(limit, 500),
        cursor=cursor,
    )
    link_next(request, response, following)
    infos = []
    for row in rows:
        info = _info(RevisionRef(row.repo.full_name, row.repo, row.commit), row.facts)
        if full:
            info["siblings"] = _siblings(repos.files(session, row.commit), blobs=False)
        infos.append(info)
    return infos


@router.get("/{name}")
@router.get("/{name}/revision/{revision:path}")
def info_without_namespace(name: str) -> Response:
    raise RepoNotFound(f"There is no repo {name!r}: every repo of this hub has a namespace before its name.")


@router.get("/{namespace}/{name}")
def info(
    services: ServicesDep,
    session: SessionDep,
    viewer: ViewerDep,
    repo_type: RepoTypeDep,
    full_name: FullName,
    blobs: bool = False,
) -> dict[str, Any]:
    revision_ref = refs.find_revision(session, viewer, repo_type, full_name)
    return _whole_info(session, services.storage, revision_ref, blobs=blobs)


@router.get("/{namespace}/{name}/revision/{revision:path}")
def info_at(
    services: ServicesDep,
    session: SessionDep,
    viewer: ViewerDep,
    repo_type: RepoTypeDep,
    full_name: FullName,
    revision: str,
    blobs: bool = False,
) -> dict[str, Any]:
    revision_ref = refs.find_revision(session, viewer, repo_type, full_name, revision)
    return _whole_info(session, services.storage, revision_ref, blobs=blobs)


def _whole_info(session: Session, storage: Storage, revision_ref: RevisionRef, *, blobs: bool) -> dict[str, Any]:
    entries = repos.files(session, revision_ref.commit)
    card = _card(storage, entries)
    facts = repos.facts(session, revision_ref.commit)
    fields = _info(revision_ref, facts)
    fields["siblings"] = _siblings(entries, blobs=blobs)
    fields["usedStorage"] = sum(entry.size for entry in entries)
    fields["cardData"] = card.front or None
    fields["tags"] = list(dict.fromkeys([*fields["tags"], *card.values("tags")]))
    for key in ("library_name", "pipeline_tag"):
        fields[key] = next(iter(card.values(key)), fields.get(key))
    return fields


def _card(storage: Storage, entries: Sequence[TreeEntry]) -> Card:
    for entry in entries:
        if entry.path == CARD and entry.size <= MAX_CARD_BYTES:
            try:
                return parse_card(storage.read(entry.sha256, 0, entry.size))
            except CardError:
                return Card()  # a finding reported it when it was committed
    return Card()


def _info(revision_ref: RevisionRef, facts: Sequence[AdapterFacts]) -> dict[str, Any]:
    """A repo's fields for Hub clients. Downloads and likes are left out, as this hub does not count them. Internal repos are private."""
    repo = revision_ref.repo
    fields: dict[str, Any] = {
        "_id": repo.id.hex[-24:],
        "id": revision_ref.name,
        "author": repo.namespace,
        "sha": revision_ref.commit.id,
        "lastModified": time(revision_ref.commit.created_at),
        "createdAt": time(repo.created_at),
        "private": repo.visibility != "public",
        "visibility": repo.visibility,
        "gated": False,
        "disabled": False,
        "tags": hub_listing.tags(facts),
    }
    if repo.type == "model":
        bases = [adapter.base_id or adapter.base_model for adapter in facts if adapter.base_model]
        fields |= {
            "modelId": revision_ref.name,
            "library_name": "peft" if facts else None,
            "pipeline_tag": hub_listing.pipeline(facts),
            "baseModels": list(dict.fromkeys(bases)) or None,
        }
    return fields


def _siblings(entries: Sequence[TreeEntry], *, blobs: bool) -> list[dict[str, Any]]:
    siblings = []
    for entry in entries:
        sibling: dict[str, Any] = {"rfilename": entry.path}
        if blobs:
            sibling |= {"size": entry.size, "blobId": entry.git_oid}
            if is_lfs(entry.path, entry.size):
                sibling["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": POINTER_BYTES}
        siblings.append(sibling)
    return siblings
