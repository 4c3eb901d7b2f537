"""A module's page, and what its forms do: aliases and repair."""

from typing import Annotated

from fastapi import APIRouter, Form, Response
from fastapi.responses import RedirectResponse
from markupsafe import Markup
from sqlalchemy.orm import Session

from hub.http import ServicesDep, SessionDep, ViewerDep
from hub.registry import aliases, repair, repos, similar, teams, views
from hub.registry.card import MAX_CARD_BYTES, CardError, parse_card
from hub.registry.errors import NotSignedIn
from hub.registry.models import Commit, Repo
from hub.registry.storage import Storage
from hub.registry.teams import Viewer
from hub.web.render import markdown, page

router = APIRouter(include_in_schema=False)


@router.get("/adapters/{namespace}/{name}")
def adapter(
    services: ServicesDep,
    session: SessionDep,
    viewer: ViewerDep,
    namespace: str,
    name: str,
    revision: str = repos.MAIN,
) -> Response:
    repo = repos.find(session, viewer, "model", f"{namespace}/{name}")
    commit = repos.resolve(session, repo, revision)
    return page(
        "adapter.html",
        viewer,
        repo=repo,
        commit=commit,
        revision=revision,
        folders=repos.facts(session, commit),
        files=repos.files(session, commit),
        refs=repos.refs(session, repo),
        parents=views.parents(session, viewer, commit),
        lost_inputs=views.lost_inputs(session, commit),
        children=views.children(session, viewer, commit),
        scores=views.scores(session, viewer, commit_ids=[commit.id]),
        alike=_alike(session, viewer, repo, commit),
        aliases=aliases.listing(session, viewer, repo),
        writable=viewer is not None and teams.may_write(session, viewer, repo.namespace, repo.name),
        card=_card(session, services.storage, commit),
    )


def _alike(session: Session, viewer: Viewer | None, repo: Repo, commit: Commit) -> list[similar.Alike]:
    folders = repos.facts(session, commit)
    return [each for facts in folders for each in similar.alike(session, viewer, repo, facts, least=0.5, limit=5)]


@router.post("/adapters/{namespace}/{name}/aliases")
def move_alias(
    session: SessionDep,
    viewer: ViewerDep,
    namespace: str,
    name: str,
    alias: Annotated[str, Form(max_length=255)],
    revision: Annotated[str, Form(max_length=255)],
) -> Response:
    if viewer is None:
        raise NotSignedIn("Sign in to move an alias.")
    repo = repos.find(session, viewer, "model", f"{namespace}/{name}")
    aliases.move(session, viewer, repo, alias.strip(), revision.strip())
    return RedirectResponse(f"/adapters/{namespace}/{name}", status_code=303)


@router.post("/adapters/{namespace}/{name}/aliases/{alias}/rollback")
def roll_back_alias(session: SessionDep, viewer: ViewerDep, namespace: str, name: str, alias: str) -> Response:
    if viewer is None:
        raise NotSignedIn("Sign in to roll an alias back.")
    aliases.roll_back(session, viewer, repos.find(session, viewer, "model", f"{namespace}/{name}"), alias)
    return RedirectResponse(f"/adapters/{namespace}/{name}", status_code=303)


@router.post("/adapters/{namespace}/{name}/repair")
def repair_adapter(
    services: ServicesDep,
    viewer: ViewerDep,
    namespace: str,
    name: str,
    folder: Annotated[str, Form(max_length=500)] = "",
    base: Annotated[str, Form(max_length=500)] = "",
    licence: Annotated[str, Form(max_length=60)] = "",
) -> Response:
    if viewer is None:
        raise NotSignedIn("Sign in to repair a module.")
    full_name = f"{namespace}/{name}"
    repair.repair(
        services, viewer, full_name, folder=folder, base=base.strip() or None, licence=licence.strip() or None
    )
    return RedirectResponse(f"/adapters/{full_name}", status_code=303)


def _card(session: Session, storage: Storage, commit: Commit) -> Markup:
    """The model card as HTML: commonmark without raw HTML or images, so that nothing of it runs or is fetched."""
    for entry in repos.files(session, commit):
        if entry.path == "README.md" and entry.size <= MAX_CARD_BYTES:
            try:
                text = parse_card(storage.read(entry.sha256, 0, entry.size)).text
            except CardError:
                return Markup()
            return markdown(text)
    return Markup()
