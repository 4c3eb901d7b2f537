"""Forms on an adapter's versions tab: what an alias stands for, roll-back in one press, and the gate before it."""

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
from hub.vocabulary import Metric, Template
from hub.web.forms import RefusedForm, run_form
from hub.web.pages.modules.frame import open_module
from hub.web.pages.modules.tabs import show_versions

router = APIRouter(prefix="/adapters/{namespace}/{name}/aliases", include_in_schema=False)

# In the body, as an alias may have a "/" in it.
Alias = Annotated[str, Form(max_length=255)]
Name = Annotated[str, Form(max_length=255)]


@router.post("")
def move(session: SessionDep, writer: CanWriteAdapter, alias: Alias, revision: Name) -> Response:
    def change() -> None:
        aliases.move(session, writer, alias.strip(), revision.strip())

    return _run(session, writer, change, "move", {"alias": alias, "revision": revision})


@router.post("/rollback")
def roll_back(session: SessionDep, writer: CanWriteAdapter, alias: Alias) -> Response:
    def change() -> None:
        aliases.roll_back(session, writer, alias)

    return _run(session, writer, change, "rollback")


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
    def change() -> None:
        commit = repos.resolve(session, repos.find(session, writer.viewer, "dataset", dataset.strip()))
        file = repos.file(session, commit, path.strip()).path
        aliases.set_gate(session, writer, alias, Gate(metric, commit.id, file, template, tolerance))

    typed = {"alias": alias, "dataset": dataset, "path": path, "metric": metric, "template": template}
    return _run(session, writer, change, "gate", {**typed, "tolerance": f"{tolerance:g}"})


@router.post("/ungate")
def remove_gate(session: SessionDep, writer: CanWriteAdapter, alias: Alias) -> Response:
    def change() -> None:
        aliases.set_gate(session, writer, alias, None)

    return _run(session, writer, change, "ungate")


@router.post("/remove")
def remove(session: SessionDep, writer: CanWriteAdapter, alias: Alias) -> Response:
    def change() -> None:
        aliases.remove(session, writer, alias)

    return _run(session, writer, change, "remove")


def _run(
    session: Session,
    writer: WriteRepo,
    change: Callable[[], None],
    form_name: str,
    typed: dict[str, str] | None = None,
) -> Response:
    """Change an alias and lead back to the tab; or show the tab with the problem and what was typed."""
    module = open_module(session, writer.viewer, writer.repo.namespace, writer.repo.name)

    def change_and_redirect() -> Response:
        change()
        return RedirectResponse(f"{module.address}/versions#aliases", status_code=303)

    def show_again(form: RefusedForm) -> Response:
        return show_versions(session, writer.viewer, module, form)

    return run_form(change_and_redirect, show_again, name=form_name, typed=typed, session=session)
