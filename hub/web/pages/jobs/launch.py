"""The forms that start jobs: they offer what fits, show what is wrong beside its field, and lead to the job."""

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from sqlalchemy.orm import Session

from hub.http.identity import ServicesDep, SignedIn
from hub.registry.access import permissions
from hub.registry.access.viewer import Viewer
from hub.registry.content import repos
from hub.registry.datasets import preview
from hub.registry.datasets.preview import Preview
from hub.registry.jobs import eligibility, job_queries
from hub.registry.jobs.estimates import Estimate, estimate
from hub.registry.jobs.requests import Examples
from hub.registry.jobs.requests.common import Module
from hub.registry.jobs.requests.compose import ComposeRequest
from hub.registry.jobs.submit import submit
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import HubError, NotFound
from hub.registry.platform.services import Services
from hub.vocabulary import Reward
from hub.web.model_forms import problems_of, widgets
from hub.web.pages.jobs.launch_forms import FORMS, LABELS, Form, Unreadable, module_of, one, typed_again
from hub.web.render import page

router = APIRouter(include_in_schema=False)

MOST_DATASETS = 500  # that are suggested; any other can be typed
SOURCES = ("examples", "held_out", "gold")

Fields = dict[str, list[str]]


async def typed_fields(request: Request) -> Fields:
    """Everything typed in a form, which the routes below read as their kind of job has it."""
    async with request.form() as form:
        fields: Fields = {}
        for name, value in form.multi_items():
            if isinstance(value, str):
                fields.setdefault(name, []).append(value)
        return fields


TypedDep = Annotated[Fields, Depends(typed_fields)]


@dataclass(frozen=True)
class Look:
    """What one source of examples holds, or why that cannot be said."""

    source: str
    preview: Preview | None = None
    problem: str = ""
    files: tuple[str, ...] = ()


@router.post("/new/preview")
def preview_examples(services: ServicesDep, viewer: SignedIn, typed: TypedDep) -> Response:
    """The first rows of one source, counted, as a part of the form it was asked from."""
    source = one(typed, "act").partition(":")[2]
    with transaction(services.sessions) as session:
        look = _look(services, session, viewer, typed, source, one(typed, "base"))
    return page("new/preview.html", viewer, look=look or Look(source))


@router.post("/new/{kind}/estimate")
def estimate_time(services: ServicesDep, viewer: SignedIn, kind: str, typed: TypedDep) -> Response:
    """How long it would take as the form stands, as a part of the form."""
    form = _form(kind)
    with transaction(services.sessions) as session:
        base = one(typed, "base")
        looks = {name: _look(services, session, viewer, typed, name, base) for name in form.sources}
        about = _about(session, viewer, form, typed, base, looks)
    return page("new/estimate.html", viewer, about=about, form=form)


@router.get("/new/{kind}")
def new_job(
    request: Request, services: ServicesDep, viewer: SignedIn, kind: str, again: uuid.UUID | None = None
) -> Response:
    """The form, empty, or filled from the address, or as an earlier job was asked for."""
    form = _form(kind)
    typed = _linked(form, {name: request.query_params.getlist(name) for name in request.query_params})
    if again is None:
        return _page(services, viewer, form, typed)
    with transaction(services.sessions) as session:
        job = job_queries.find(session, viewer, again)
    if job.kind != kind and job.kind in FORMS:
        return RedirectResponse(f"/new/{job.kind}?again={again}", status_code=303)
    if job.request is None or job.kind != kind:
        return _page(services, viewer, form, typed, notice="How that job was asked for is not known; start anew here.")
    return _page(services, viewer, form, typed_again(form, job.request))


@router.post("/new/{kind}")
def start_job(services: ServicesDep, viewer: SignedIn, kind: str, typed: TypedDep) -> Response:
    """Queue the job, or show the form again with what is wrong. Any other button only shows it again."""
    form = _form(kind)
    if one(typed, "act") != "start":
        return _page(services, viewer, form, typed)
    try:
        body = form.body(typed)
        request = form.model.model_validate(body)
        job = submit(services, viewer, request, idempotency_key=_key(typed, body))
    except Unreadable as error:
        return _page(services, viewer, form, typed, problems=error.problems, status=422)
    except ValidationError as error:
        problems = problems_of(error, [*form.names, *SOURCES, "modules", "datasets", "name", "split", "grpo"])
        return _page(services, viewer, form, typed, problems=problems, status=422)
    except HubError as error:
        return _page(services, viewer, form, typed, problems={"": error.message}, status=error.status)
    return RedirectResponse(f"/jobs/{job.id}", status_code=303)


def _form(kind: str) -> Form:
    if kind not in FORMS:
        raise NotFound(f"There is no kind of job {kind!r}; there are {', '.join(FORMS)}.")
    return FORMS[kind]


def _linked(form: Form, typed: Fields) -> Fields:
    """What other pages' links say: a data set to take examples from, a module to train from."""
    if "dataset" in typed and form.kind != "evaluate":  # whose fields have that name
        typed |= {"examples.from": ["dataset"], "examples.dataset": typed.pop("dataset")}
    if "from" in typed and form.kind == "train":
        typed["module"] = typed.pop("from")
    return typed


def _key(typed: Fields, body: Mapping[str, Any]) -> str | None:
    """The same form sent twice, as by a double click, is one job; changed and sent again it is another."""
    shown = one(typed, "key")[:64]
    said = json.dumps(body, sort_keys=True)
    return f"form-{shown}-{hashlib.sha256(said.encode()).hexdigest()[:32]}" if shown else None


def _page(
    services: Services,
    viewer: Viewer,
    form: Form,
    typed: Fields,
    *,
    problems: Mapping[str, str] = {},
    notice: str = "",
    status: int = 200,
) -> Response:
    with transaction(services.sessions) as session:
        bases = eligibility.bases_with_modules(session, viewer)
        base = _base(session, viewer, typed, bases)
        looks = {name: _look(services, session, viewer, typed, name, base) for name in SOURCES}
        offers = _offers(session, viewer, form, typed, base)
        datasets, _ = repos.listing(session, viewer, "dataset", limit=MOST_DATASETS, cursor=None)
        namespaces = permissions.writable(session, viewer)
        about = _about(session, viewer, form, typed, base, looks)
    shown = {name: widgets(form.model, names, typed, problems, LABELS) for name, names in form.more.items()}
    return page(
        f"new/{form.kind}.html",
        viewer,
        status=status,
        form=form,
        fields={each.name: each for each in widgets(form.model, form.fields, typed, problems, LABELS)},
        more=shown,
        opened={name for name, each in shown.items() if any(one.problem or one.changed for one in each)},
        typed=typed,
        one=lambda name, default="": one(typed, name, default),
        problems=problems,
        labels=LABELS,
        notice=notice,
        bases=bases,
        base=base,
        looks=looks,
        about=about,
        offers=offers,
        chosen=[reference.strip() for reference in typed.get("module", ()) if reference.strip()],
        datasets=[repo.full_name for repo, _ in datasets],
        namespaces=namespaces,
        rewards=get_args(Reward),
        key=one(typed, "key") or uuid.uuid4().hex,
    )


def _base(session: Session, viewer: Viewer, typed: Fields, bases: list[tuple[str, int]]) -> str:
    """The base that the form is about: the one named, that of the first module named, or the one with the most modules."""
    if named := one(typed, "base"):
        return named
    for reference in typed.get("module", ()):
        found = (
            eligibility.base_of(session, viewer, Module.model_validate(module_of(reference)))
            if reference.strip()
            else None
        )
        if found:
            return found
    return bases[0][0] if bases else ""


def _offers(session: Session, viewer: Viewer, form: Form, typed: Fields, base: str) -> eligibility.Offers:
    if form.kind != "compose":
        return eligibility.offers(session, viewer, base)
    way = one(typed, "form") or str(ComposeRequest.model_fields["form"].default)
    return eligibility.offers(session, viewer, base, form=way, chosen=typed.get("module", ()))


@dataclass(frozen=True)
class About:
    """What the form can say of the time. `sized`: there are examples, without which nothing can be said."""

    sized: bool
    estimate: Estimate | None = None


def _about(
    session: Session, viewer: Viewer, form: Form, typed: Fields, base: str, looks: Mapping[str, Look | None]
) -> About:
    sizes = {name: look.preview.size if look and look.preview else 0 for name, look in looks.items()}
    examples, held_out = sizes.get("examples", 0), sizes.get("held_out", 0)
    for name, path in zip(typed.get("dataset", ()), typed.get("path", ()), strict=False):
        if name.strip():
            examples += preview.size_of(session, viewer, Examples(dataset=name.strip(), path=path.strip() or None))
    share = one(typed, "held_out.share", "20")
    if one(typed, "held_out.from") == "share" and share.isdigit():
        held_out = examples * min(int(share), 99) // 100
        examples -= held_out
    if not examples:
        return About(sized=False)
    found = estimate(session, form.kind, base, form.asked(typed), examples=examples, held_out=held_out)
    return About(True, found)


def _look(services: Services, session: Session, viewer: Viewer, typed: Fields, source: str, base: str) -> Look | None:
    """None where nothing is given yet."""
    kind = one(typed, f"{source}.from", "paste")
    text = "".join(typed.get(f"{source}.text", ())[-1:])
    if kind == "paste" and text.strip():
        return Look(source, preview.of_text(session, services.storage, base, text))
    dataset = one(typed, f"{source}.dataset")
    if kind != "dataset" or not dataset:
        return None
    named = {key: one(typed, f"{source}.{key}") for key in ("revision", "path")}
    wanted = Examples(dataset=dataset, **{key: value for key, value in named.items() if value})
    try:
        files = tuple(preview.files(session, viewer, dataset))
        if len(files) != 1 and not named["path"]:
            return Look(source, files=files, problem=f"Choose a file of it: {', '.join(files) or 'there is none'}.")
        return Look(source, preview.of_dataset(session, services.storage, viewer, base, wanted), files=files)
    except HubError as error:
        return Look(source, problem=error.message)
