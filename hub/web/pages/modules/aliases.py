"""Forms on a module's versions tab: what an alias stands for, back in one press, and the gate before it. What is refused is told there."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Form, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from hub.http.identity import SessionDep
from hub.http.permissions import CanWriteAdapter
from hub.registry.content import aliases, repos
from hub.registry.content.aliases import Gate
from hub.registry.content.repos import WriteRepo
from hub.registry.platform.errors import Forbidden, HubError
from hub.vocabulary import Metric, Template
from hub.web.pages.modules.overview import open_module, versions_tab

router = APIRouter(prefix="/adapters/{namespace}/{name}/aliases", include_in_schema=False)

# In the body, as an alias may have a "/" in it.
Alias = Annotated[str, Form(max_length=255)]
Name = Annotated[str, Form(max_length=255)]


@router.post("")
def move(session: SessionDep, writer: CanWriteAdapter, alias: Alias, revision: Name) -> Response:
    def act() -> None:
        aliases.move(session, writer, alias.strip(), revision.strip())

    return _then(session, writer, act, {"alias": alias, "revision": revision})


@router.post("/rollback")
def roll_back(session: SessionDep, writer: CanWriteAdapter, alias: Alias) -> Response:
    def act() -> None:
        aliases.roll_back(session, writer, alias)

    return _then(session, writer, act, {})


@router.post("/gate")
def set_gate(
    session: SessionDep,
    writer: CanWriteAdapter,
    alias: Alias,
    dataset: Name,
    path: Annotated[str, Form(max_length=1_000)],
    metric: Annotated[Metric, Form()] = "exact_match",
    template: Annotated[Template, Form()] = "chat",
    tolerance: Annotated[float, Form(ge=0, le=1_000, allow_inf_nan=False)] = 0.02,
) -> Response:
    def act() -> None:
        commit = repos.resolve(session, repos.find(session, writer.viewer, "dataset", dataset.strip()))
        file = repos.file(session, commit, path.strip()).path
        aliases.set_gate(session, writer, alias, Gate(metric, commit.id, file, template, tolerance))

    typed = {"gate": alias, "dataset": dataset, "path": path, "metric": metric, "template": template}
    return _then(session, writer, act, {**typed, "tolerance": f"{tolerance:g}"})


@router.post("/ungate")
def remove_gate(session: SessionDep, writer: CanWriteAdapter, alias: Alias) -> Response:
    def act() -> None:
        aliases.set_gate(session, writer, alias, None)

    return _then(session, writer, act, {})


@router.post("/remove")
def remove(session: SessionDep, writer: CanWriteAdapter, alias: Alias) -> Response:
    def act() -> None:
        aliases.remove(session, writer, alias)

    return _then(session, writer, act, {})


def _then(
    session: Session,
    writer: WriteRepo,
    act: Callable[[], None],
    typed: dict[str, str],
) -> Response:
    """Back to the tab; or the tab with why not, what was typed, and nothing changed."""
    viewer = writer.viewer
    opened = open_module(session, viewer, writer.namespace, writer.repo.name)
    try:
        with session.begin_nested():
            act()
    except Forbidden:
        raise
    except HubError as error:
        return versions_tab(session, viewer, opened, problem=error.message, typed=typed, status=error.status)
    return RedirectResponse(f"{opened.address}/versions#aliases", status_code=303)
