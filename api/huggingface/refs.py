"""Branches and tags."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from api.huggingface.common import CanWriteRepo, FullName, RepoTypeDep
from api.huggingface.upstream_proxy import UpstreamFallbackRoute
from hub.http.identity import SessionDep, ViewerDep
from hub.registry.content import refs, repos
from hub.vocabulary import MAIN

router = APIRouter(prefix="/api/{kind}/{namespace}/{name}", route_class=UpstreamFallbackRoute)


@router.get("/refs")
def list_refs(
    session: SessionDep, viewer: ViewerDep, repo_type: RepoTypeDep, full_name: FullName, include_prs: bool = False
) -> dict[str, Any]:
    """Branches and tags; versions appear as tags. A name that pins a version has only main, at that commit."""
    revision_ref = refs.find_revision(session, viewer, repo_type, full_name)
    answer: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": []}
    if include_prs:
        answer["pullRequests"] = []
    if revision_ref.pinned:
        answer["branches"].append(_ref_info("heads", MAIN, revision_ref.commit.id))
        return answer
    for ref in sorted(repos.refs(session, revision_ref.repo), key=lambda ref: ref.name):
        if ref.kind == "branch":
            answer["branches"].append(_ref_info("heads", ref.name, ref.commit_id))
        else:
            answer["tags"].append(_ref_info("tags", ref.name, ref.commit_id))
    return answer


def _ref_info(group: str, name: str, commit_id: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{group}/{name}", "targetCommit": commit_id}


class NewBranch(BaseModel):
    startingPoint: str = MAIN


@router.post("/branch/{branch:path}")
def create_branch(session: SessionDep, writer: CanWriteRepo, branch: str, body: NewBranch | None = None) -> None:
    start = repos.resolve(session, writer.repo, body.startingPoint if body else MAIN)
    refs.create(session, writer, branch, "branch", start)


@router.delete("/branch/{branch:path}")
def delete_branch(session: SessionDep, writer: CanWriteRepo, branch: str) -> None:
    refs.remove(session, writer, branch, "branch")


class NewTag(BaseModel):
    tag: str


@router.post("/tag/{revision:path}")
def create_tag(session: SessionDep, writer: CanWriteRepo, revision: str, body: NewTag) -> None:
    refs.create(session, writer, body.tag, "tag", repos.resolve(session, writer.repo, revision))


@router.delete("/tag/{tag:path}")
def delete_tag(session: SessionDep, writer: CanWriteRepo, tag: str) -> None:
    refs.remove(session, writer, tag, "tag")
