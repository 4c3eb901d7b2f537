"""Forms on a module's versions tab: what an alias stands for, back in one press, and the gate before it. What is refused is told there."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Form, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from hub.http.identity import SessionDep, ViewerDep
from hub.registry.access.viewer import Viewer
from hub.registry.content import aliases, repos
from hub.registry.content.aliases import Gate
from hub.registry.models.content import Repo
from hub.registry.platform.errors import Forbidden, HubError, NotSignedIn
from hub.vocabulary import Metric, Template
from hub.web.pages.modules.overview import open_module, versions_tab

router = APIRouter(prefix="/adapters/{namespace}/{name}/aliases", include_in_schema=False)

# In the body, as an alias may have a "/" in it.
Alias = Annotated[str, Form(max_length=255)]
Name = Annotated[str, Form(max_length=255)]


@router.post("")
def move(session: SessionDep, viewer: ViewerDep, namespace: str, name: str, alias: Alias, revision: Name) -> Response:
    def act(viewer: Viewer, repo: Repo) -> None:
        aliases.move(session, viewer, repo, alias.strip(), revision.strip())

    return _then(session, viewer, namespace, name, act, {"alias": alias, "revision": revision})


@router.post("/rollback")
def roll_back(session: SessionDep, viewer: ViewerDep, namespace: str, name: str, alias: Alias) -> Response:
    def act(viewer: Viewer, repo: Repo) -> None:
        aliases.roll_back(session, viewer, repo, alias)

    return _then(session, viewer, namespace, name, act, {})


@router.post("/gate")
def set_gate(
    session: SessionDep,
    viewer: ViewerDep,
    namespace: str,
    name: str,
    alias: Alias,
    dataset: Name,
    path: Annotated[str, Form(max_length=1_000)],
    metric: Annotated[Metric, Form()] = "exact_match",
    template: Annotated[Template, Form()] = "chat",
    tolerance: Annotated[float, Form(ge=0, le=1_000, allow_inf_nan=False)] = 0.02,
) -> Response:
    def act(viewer: Viewer, repo: Repo) -> None:
        commit = repos.resolve(session, repos.find(session, viewer, "dataset", dataset.strip()))
        file = repos.file(session, commit, path.strip()).path
        aliases.set_gate(session, viewer, repo, alias, Gate(metric, commit.id, file, template, tolerance))

    typed = {"gate": alias, "dataset": dataset, "path": path, "metric": metric, "template": template}
    return _then(session, viewer, namespace, name, act, {**typed, "tolerance": f"{tolerance:g}"})


@router.post("/ungate")
def remove_gate(session: SessionDep, viewer: ViewerDep, namespace: str, name: str, alias: Alias) -> Response:
    def act(viewer: Viewer, repo: Repo) -> None:
        aliases.set_gate(session, viewer, repo, alias, None)

    return _then(session, viewer, namespace, name, act, {})


@router.post("/remove")
def remove(session: SessionDep, viewer: ViewerDep, namespace: str, name: str, alias: Alias) -> Response:
    def act(viewer: Viewer, repo: Repo) -> None:
        aliases.remove(session, viewer, repo, alias)

    return _then(session, viewer, namespace, name, act, {})


def _then(
    session: Session,
    viewer: Viewer | None,
    namespace: str,
    name: str,
    act: Callable[[Viewer, Repo], None],
    typed: dict[str, str],
) -> Response:
    """Back to the tab; or the tab with why not, what was typed, and nothing changed."""
    if viewer is None:
        raise NotSignedIn("Sign in to change an alias.")
    opened = open_module(session, viewer, namespace, name)
    try:
        with session.begin_nested():
            act(viewer, opened.repo)
    except Forbidden:
        raise
    except HubError as error:
        return versions_tab(session, viewer, opened, problem=error.message, typed=typed, status=error.status)
    return RedirectResponse(f"{opened.address}/versions#aliases", status_code=303)
