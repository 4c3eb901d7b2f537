"""The browser's pages: lists, a module, a job, measured figures, signing in. Rendered here on the server; scripts only make them live."""

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import FileResponse, RedirectResponse
from markdown_it import MarkdownIt
from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.orm import Session

from hub import pictures
from hub.http import ServicesDep, SessionDep, ViewerDep
from hub.registry import aliases, devices, jobs, repair, repos, search, similar, teams, views
from hub.registry.card import MAX_CARD_BYTES, CardError, parse_card
from hub.registry.errors import NotFound, NotSignedIn
from hub.registry.models import BaseModel, Commit, Repo
from hub.registry.search import Filters
from hub.registry.storage import Storage
from hub.registry.teams import Viewer
from hub.web.plot import loss_trace, reward_curve, training_curve
from hub.web.render import page

router = APIRouter(include_in_schema=False)

HERE = Path(__file__).parent
STATIC = {"style.css": "text/css", "job.js": "text/javascript", "icon.svg": "image/svg+xml"}

_markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


@router.get("/")
def adapters(
    session: SessionDep,
    viewer: ViewerDep,
    q: Annotated[str, Query(max_length=200)] = "",
    base_model: str = "",
    method: str = "",
    owner: str = "",
    tag: str = "",
    rank: Annotated[str, Query(pattern=r"^\d{0,6}$")] = "",
    cursor: str | None = None,
) -> Response:
    filters = Filters(
        base_model=base_model or None,
        method=method or None,
        rank=int(rank) if rank else None,
        tag=[tag] if tag else (),
        text=q or None,
        owner=owner or None,
    )
    found = search.search(session, viewer, filters, limit=50, cursor=cursor)
    asked = {"q": q, "base_model": base_model, "method": method, "owner": owner, "tag": tag, "rank": rank}
    following = {**{key: value for key, value in asked.items() if value}, "cursor": found.cursor}
    return page("adapters.html", viewer, page=found, asked=asked, following=following)


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


@router.get("/map")
def library_map(session: SessionDep, viewer: ViewerDep, base_model: str = "") -> Response:
    """The modules of one base: what is nearly the same, what belongs together, and what was measured on each."""
    known = session.scalars(select(BaseModel.id).order_by(BaseModel.id)).all()
    found = similar.library_map(session, viewer, base_model) if base_model else None
    commits = [module.commit for module in [*found.modules, *found.unplaced]] if found else []
    scores = [score for score in views.scores(session, viewer, commit_ids=commits) if score.metric == "exact_match"]
    return page("map.html", viewer, base_model=base_model, known=known, map=found, table=_by_dataset(scores))


def _card(session: Session, storage: Storage, commit: Commit) -> Markup:
    """The model card as HTML: commonmark without raw HTML or images, so that nothing of it runs or is fetched."""
    for entry in repos.files(session, commit):
        if entry.path == "README.md" and entry.size <= MAX_CARD_BYTES:
            try:
                text = parse_card(storage.read(entry.sha256, 0, entry.size)).text
            except CardError:
                return Markup()
            return Markup(_markdown.render(text))  # noqa: S704 - the renderer escapes everything it does not make itself
    return Markup()


@router.get("/jobs")
def list_jobs(session: SessionDep, viewer: ViewerDep) -> Response:
    if viewer is None:
        raise NotSignedIn("Sign in to see your jobs.")
    return page("jobs.html", viewer, jobs=jobs.listing(session, viewer))


@router.get("/jobs/{job_id}")
def job(session: SessionDep, viewer: ViewerDep, job_id: uuid.UUID) -> Response:
    if viewer is None:
        raise NotSignedIn("Sign in to see your jobs.")
    found = jobs.find(session, viewer, job_id)
    result = jobs.result_commit(session, found)
    events = jobs.events(session, found.id)
    return page(
        "job.html",
        viewer,
        job=found,
        result_repo=result[0].full_name if result else None,
        last=events[-1] if events else None,
        plot=loss_trace((found.result or {}).get("trace", [])),
        curves={name: training_curve(curve) for name, curve in (found.result or {}).get("curve", {}).items()},
        rewards={name: reward_curve(curve) for name, curve in (found.result or {}).get("rewards", {}).items()},
        gains=_gains(found.result or {}),
        live=found.state not in jobs.FINISHED,
    )


def _gains(result: Mapping[str, Any]) -> Markup:
    """The picture of a reduction's predicted gains, whose text the drawing escapes."""
    if not result.get("matrices"):
        return Markup()
    return Markup(pictures.gains(result["matrices"], [cut["path"] for cut in result["cuts"]]))  # noqa: S704


@router.post("/jobs/{job_id}/cancel")
def cancel(session: SessionDep, viewer: ViewerDep, job_id: uuid.UUID) -> Response:
    if viewer is None:
        raise NotSignedIn("Sign in to cancel a job.")
    jobs.cancel(session, viewer, job_id)
    return RedirectResponse(f"/jobs/{job_id}", status_code=303)


@router.get("/scores")
def scores(session: SessionDep, viewer: ViewerDep, metric: str = "exact_match") -> Response:
    """Modules by data set: the newest figure of each pair."""
    found = views.scores(session, viewer)
    metrics = sorted({score.metric for score in found} | {metric})
    chosen = [score for score in found if score.metric == metric]
    return page("scores.html", viewer, metric=metric, metrics=metrics, table=_by_dataset(chosen))


def _by_dataset(scores: Sequence[views.Measured]) -> Mapping[str, Mapping[str, views.Measured]]:
    """module -> data set -> figure. Scores come newest first, so the first of a pair is the one to show."""
    table: dict[str, dict[str, views.Measured]] = {}
    for score in scores:
        module = score.repo or f"{score.base_id} (base alone)"
        table.setdefault(module, {}).setdefault(f"{score.dataset} · {score.dataset_path}", score)
    return dict(sorted(table.items()))


@router.get("/v1/docs")
def api(request: Request, viewer: ViewerDep) -> Response:
    """The API's description as a page of ours: FastAPI's own would fetch its scripts from another server."""
    return page("api.html", viewer, openapi=request.app.openapi())


@router.get("/device")
def device_form(viewer: ViewerDep, code: Annotated[str, Query(max_length=20)] = "") -> Response:
    """Where `hf auth login` sends a person: he compares the code with what his terminal shows."""
    if viewer is None:
        raise NotSignedIn("Sign in first, then open the address that your program shows again.")
    return page("device.html", viewer, code=code, done="")


@router.post("/device")
def answer_device(
    session: SessionDep,
    viewer: ViewerDep,
    code: Annotated[str, Form(max_length=20)],
    answer: Annotated[Literal["approve", "deny"], Form()],
) -> Response:
    if viewer is None:
        raise NotSignedIn("Sign in first, then open the address that your program shows again.")
    devices.decide(session, viewer, code, approve=answer == "approve")
    return page("device.html", viewer, code="", done=answer)


@router.get("/static/{name}")
def static(name: str) -> Response:
    if name not in STATIC:
        raise NotFound(f"There is no file {name!r}.")
    return FileResponse(HERE / "static" / name, media_type=STATIC[name], headers={"Cache-Control": "max-age=300"})
