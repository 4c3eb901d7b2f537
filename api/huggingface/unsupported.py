"""Features of the Hugging Face Hub that this hub lacks. Their answers say so, and what to do instead."""

from fastapi import APIRouter, Response

from api.huggingface.errors import NotOffered
from hub.http.permissions import public

router = APIRouter(prefix="/api/{kind}/{namespace}/{name}")

NOT_OFFERED = [public("changes nothing: refused to all")]


@router.post("/super-squash/{branch:path}", dependencies=NOT_OFFERED)
@router.get("/lfs-files")
@router.post("/lfs-files/{rest:path}", dependencies=NOT_OFFERED)
def rewrite_history() -> Response:
    raise NotOffered(
        "Commits of this hub stay as long as their repo, as versions and results rely on them: to remove some files, "
        "duplicate what shall stay into a new repo and delete this one."
    )


@router.get("/discussions")
@router.post("/discussions", dependencies=NOT_OFFERED)
@router.get("/discussions/{rest:path}")
@router.post("/discussions/{rest:path}", dependencies=NOT_OFFERED)
def discuss() -> Response:
    raise NotOffered("This hub has no discussions and no pull requests.")
