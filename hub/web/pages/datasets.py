"""Data sets: the list, one with a look at its examples, and a form for a new one."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Form, Query, Response, UploadFile
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from hub.http.identity import ServicesDep, SessionDep, SignedIn, ViewerDep
from hub.http.permissions import CanWriteDataset, CanWriteSomewhere
from hub.registry.access import permissions
from hub.registry.access.viewer import Viewer
from hub.registry.content import blobs, repo_visibility, repos
from hub.registry.datasets import peek
from hub.registry.datasets.peek import Look
from hub.registry.inspection import archive
from hub.registry.library import hub_listing, provenance
from hub.registry.library.hub_listing import Row
from hub.registry.library.provenance import Measured, Relative
from hub.registry.library.publishing import publish_dataset
from hub.registry.models.content import Commit, Ref, Repo, TreeEntry
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.vocabulary import MAIN, VISIBILITIES, Visibility
from hub.web.forms import NO_FORM, RefusedForm, run_form
from hub.web.render import Page, render

router = APIRouter(include_in_schema=False)

LISTED = 50
SHOWN_FILES = 6
SHOWN_SCORES = 100


@dataclass(frozen=True, kw_only=True)
class DatasetsPage(Page, template="datasets/list.html"):
    """One page of the data sets that match."""

    rows: Sequence[Row]
    sizes: Mapping[str, tuple[int, int]]  # commit -> number of files, bytes
    q: str  # words of the name
    owner: str
    following: str | None  # cursor of the next page


@dataclass(frozen=True, kw_only=True)
class NewDatasetPage(Page, template="datasets/new.html"):
    """The form "new" for a data set."""

    namespaces: Sequence[str]  # in which the viewer may write
    form: RefusedForm
    visibilities: Sequence[Visibility] = VISIBILITIES


@dataclass(frozen=True, kw_only=True)
class DatasetPage(Page, template="datasets/dataset.html"):
    """A data set at a revision, with its first examples."""

    repo: Repo
    commit: Commit
    revision: str  # as the address names it
    files: Sequence[TreeEntry]
    refs: Sequence[Ref]
    looks: Sequence[Look]  # into the first files of examples
    not_shown: Sequence[TreeEntry]  # the other files of examples
    children: Sequence[Relative]  # what was made from this commit
    scores: Sequence[Measured]
    writable: bool
    visibilities: Sequence[Visibility] = VISIBILITIES


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
    return render(DatasetsPage(rows=rows, sizes=sizes, q=q, owner=owner, following=following), viewer)


@router.get("/datasets/new")
def new_dataset(session: SessionDep, viewer: SignedIn) -> Response:
    return _new(session, viewer)


def _new(session: Session, viewer: Viewer, form: RefusedForm = NO_FORM) -> Response:
    page = NewDatasetPage(namespaces=permissions.writable(session, viewer), form=form)
    return render(page, viewer, status=form.status)


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
    full_name = f"{namespace}/{name.strip()}"

    def change() -> Response:
        _publish(services, writer.viewer, full_name, visibility, examples, files)
        return RedirectResponse(f"/datasets/{full_name}", status_code=303)

    def show_again(form: RefusedForm) -> Response:
        with transaction(services.sessions) as session:
            return _new(session, writer.viewer, form)

    typed = {"namespace": namespace, "name": name, "visibility": visibility, "examples": examples}
    return run_form(change, show_again, name="new", typed=typed)


def _publish(
    services: Services,
    viewer: Viewer,
    name: str,
    visibility: Visibility,
    examples: str,
    files: list[UploadFile],
) -> None:
    chosen = [file for file in files if file.filename]  # a browser sends an empty part where no file was chosen
    incoming = [blobs.hash_file(archive.safe_path(file.filename or ""), file.file) for file in chosen]
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
    page = DatasetPage(
        repo=repo,
        commit=commit,
        revision=revision,
        files=files,
        refs=repos.refs(session, repo),
        looks=[peek.look(services.storage, file) for file in jsonl[:SHOWN_FILES]],
        not_shown=jsonl[SHOWN_FILES:],
        children=provenance.children(session, viewer, commit),
        scores=provenance.scores(session, viewer, dataset_commit=commit.id, limit=SHOWN_SCORES),
        writable=viewer is not None and permissions.may_write(session, viewer, repo.namespace, repo.name),
    )
    return render(page, viewer)


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
