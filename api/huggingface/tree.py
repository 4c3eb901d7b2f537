"""Listings: a tree in pages, single paths, the commits of a branch."""

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response
from sqlalchemy.orm import Session

from api.huggingface.common import FullName, RepoTypeDep, link_next, revision_and_path, time
from api.huggingface.upstream_proxy import UpstreamFallbackRoute
from hub.http.identity import SessionDep, ViewerDep
from hub.http.permissions import public
from hub.registry.access import users
from hub.registry.content import refs, trees
from hub.registry.content.trees import Item, is_lfs
from hub.registry.models.content import Commit

router = APIRouter(prefix="/api/{kind}/{namespace}/{name}", route_class=UpstreamFallbackRoute)

POINTER_BYTES = 134  # of the small file that stands for an LFS file in git; clients want a number
PAGE = 1_000
EXPANDED_PAGE = 100
COMMITS_PAGE = 100


@router.get("/tree/{rest:path}")
def list_tree(
    request: Request,
    response: Response,
    session: SessionDep,
    viewer: ViewerDep,
    repo_type: RepoTypeDep,
    full_name: FullName,
    recursive: bool = False,
    expand: bool = False,
    limit: Annotated[int, Query(ge=1, le=PAGE)] = PAGE,
    cursor: str | None = None,
) -> list[dict[str, object]]:
    revision, folder = revision_and_path(request, "tree")
    commit = refs.find_revision(session, viewer, repo_type, full_name, revision).commit
    size = min(limit, EXPANDED_PAGE) if expand else limit
    page = trees.recursive if recursive else trees.children
    items, following = page(session, commit, folder, after=cursor, limit=size)
    link_next(request, response, following)
    return _describe(session, commit, items, expand=expand)


@router.post("/paths-info/{revision:path}", dependencies=[public("changes nothing")])
def paths_info(
    session: SessionDep,
    viewer: ViewerDep,
    repo_type: RepoTypeDep,
    full_name: FullName,
    revision: str,
    paths: Annotated[list[str], Form(max_length=10_000)],
    expand: Annotated[bool, Form()] = False,
) -> list[dict[str, object]]:
    commit = refs.find_revision(session, viewer, repo_type, full_name, revision).commit
    return _describe(session, commit, trees.paths_info(session, commit, paths), expand=expand)


def _describe(session: Session, commit: Commit, items: list[Item], *, expand: bool) -> list[dict[str, object]]:
    entries = [item.entry for item in items if item.entry is not None]
    changes = trees.last_changes(session, commit, entries) if expand else {}
    described: list[dict[str, object]] = []
    for item in items:
        if item.entry is None:
            described.append({"type": "directory", "path": item.path, "oid": item.oid, "size": 0})
            continue
        entry = item.entry
        file: dict[str, object] = {"type": "file", "path": entry.path, "oid": entry.git_oid, "size": entry.size}
        if is_lfs(entry.path, entry.size):
            file["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": POINTER_BYTES}
        if expand:
            last = changes[entry.path]
            file["lastCommit"] = {"id": last.id, "title": title(last), "date": time(last.created_at)}
        described.append(file)
    return described


@router.get("/commits/{revision:path}")
def list_commits(
    request: Request,
    response: Response,
    session: SessionDep,
    viewer: ViewerDep,
    repo_type: RepoTypeDep,
    full_name: FullName,
    revision: str,
    limit: Annotated[int, Query(ge=1, le=1_000)] = COMMITS_PAGE,
    cursor: str | None = None,
) -> list[dict[str, object]]:
    revision_ref = refs.find_revision(session, viewer, repo_type, full_name, revision)
    first = (
        refs.find_revision(session, viewer, repo_type, revision_ref.repo.full_name, cursor).commit
        if cursor
        else revision_ref.commit
    )
    commits = trees.history(session, first, limit + 1)
    link_next(request, response, commits[limit].id if len(commits) > limit else None)
    names = users.names_of(session, {commit.author_id for commit in commits})
    return [
        {
            "id": commit.id,
            "title": title(commit),
            "message": commit.message.partition("\n")[2].strip(),
            "date": time(commit.created_at),
            "authors": [{"user": names[commit.author_id]}],
        }
        for commit in commits[:limit]
    ]


def title(commit: Commit) -> str:
    return commit.message.partition("\n")[0]
