"""Data sets: the list, one with a look at its examples, and a form for a new one."""

import io
from typing import Annotated

from fastapi import APIRouter, Form, Query, Response, UploadFile
from fastapi.responses import RedirectResponse

from hub.http.identity import ServicesDep, SessionDep, SignedIn, ViewerDep
from hub.http.permissions import CanWriteDataset, CanWriteSomewhere
from hub.registry.access import permissions
from hub.registry.access.viewer import Viewer
from hub.registry.content import blobs, repo_visibility, repos
from hub.registry.datasets import peek
from hub.registry.inspection import archive
from hub.registry.library import hub_listing, provenance
from hub.registry.library.publishing import publish_dataset
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import HubError
from hub.registry.platform.services import Services
from hub.vocabulary import MAIN, VISIBILITIES, Visibility
from hub.web.render import page

router = APIRouter(include_in_schema=False)

LISTED = 50
SHOWN_FILES = 6


@router.get("/datasets")
def list_datasets(
    session: SessionDep,
    viewer: ViewerDep,
    q: Annotated[str, Query(max_length=200)] = "",
    owner: Annotated[str, Query(max_length=96)] = "",
    cursor: str | None = None,
) -> Response:
    filters = hub_listing.Filters(author=owner.strip() or None, text=q or None)
    rows, following = hub_listing.listing(
        session, viewer, "dataset", filters, sort="modified", limit=LISTED, cursor=cursor or None
    )
    sizes = repos.sizes(session, [row.commit for row in rows])
    return page("datasets/list.html", viewer, rows=rows, sizes=sizes, q=q, owner=owner, cursor=following)


@router.get("/datasets/new")
def new_dataset(session: SessionDep, viewer: SignedIn) -> Response:
    return page("datasets/new.html", viewer, problem="", typed={}, namespaces=permissions.writable(session, viewer))


@router.post("/datasets/new")
def create_dataset(
    services: ServicesDep,
    writer: CanWriteSomewhere,
    namespace: Annotated[str, Form(max_length=96)],
    name: Annotated[str, Form(max_length=96)],
    visibility: Annotated[Visibility, Form()] = "internal",
    examples: Annotated[str, Form(max_length=5_000_000)] = "",
    files: list[UploadFile] = [],  # noqa: B006 - FastAPI copies it
) -> Response:
    viewer, full_name = writer.viewer, f"{namespace}/{name.strip()}"
    try:
        _publish(services, viewer, full_name, visibility, examples, files)
    except HubError as error:
        typed = {"namespace": namespace, "name": name, "visibility": visibility, "examples": examples}
        with transaction(services.sessions) as session:
            own = permissions.writable(session, viewer)
        return page(
            "datasets/new.html", viewer, status=error.status, problem=error.message, typed=typed, namespaces=own
        )
    return RedirectResponse(f"/datasets/{full_name}", status_code=303)


def _publish(
    services: Services,
    viewer: Viewer,
    name: str,
    visibility: Visibility,
    examples: str,
    files: list[UploadFile],
) -> None:
    named = [file for file in files if file.filename]  # a browser sends an empty part where none was chosen
    incoming = [blobs.hash_file(archive.safe_path(file.filename or ""), file.file) for file in named]
    if examples.strip():
        text = "".join(f"{line.strip()}\n" for line in examples.splitlines() if line.strip())
        incoming.append(blobs.hash_file("examples.jsonl", io.BytesIO(text.encode())))
    publish_dataset(services, viewer, name, incoming, visibility=visibility, message="Upload by form")


@router.get("/datasets/{namespace}/{name}")
def dataset(
    services: ServicesDep, session: SessionDep, viewer: ViewerDep, namespace: str, name: str, revision: str = MAIN
) -> Response:
    repo = repos.find(session, viewer, "dataset", f"{namespace}/{name}")
    commit = repos.resolve(session, repo, revision)
    files = repos.files(session, commit)
    jsonl = [file for file in files if file.path.endswith(".jsonl")]
    return page(
        "datasets/dataset.html",
        viewer,
        repo=repo,
        commit=commit,
        revision=revision,
        files=files,
        refs=repos.refs(session, repo),
        looks=[peek.look(services.storage, file) for file in jsonl[:SHOWN_FILES]],
        unseen=jsonl[SHOWN_FILES:],
        users=provenance.children(session, viewer, commit),
        scores=provenance.scores(session, viewer, dataset_commit=commit.id, limit=100),
        writable=viewer is not None and permissions.may_write(session, viewer, repo.namespace, repo.name),
        visibilities=VISIBILITIES,
    )


@router.post("/datasets/{namespace}/{name}/visibility")
def change_visibility(
    session: SessionDep, writer: CanWriteDataset, visibility: Annotated[Visibility, Form()]
) -> Response:
    repo_visibility.change_visibility(session, writer, visibility, reveal=False)
    return RedirectResponse(f"/datasets/{writer.repo.full_name}", status_code=303)


@router.post("/datasets/{namespace}/{name}/delete")
def delete(session: SessionDep, writer: CanWriteDataset) -> Response:
    repos.delete(session, writer)
    return RedirectResponse(f"/datasets?owner={writer.namespace}", status_code=303)
