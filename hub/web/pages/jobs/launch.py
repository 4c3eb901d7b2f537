"""Start a job by its form: the form offers what fits, shows what is wrong beside its field, and leads to the job."""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from hub.http.identity import ServicesDep, SignedIn
from hub.http.permissions import CanUseJobs, public
from hub.registry.access.viewer import Viewer
from hub.registry.jobs import job_queries
from hub.registry.jobs.requests.generate import GenerateRequest
from hub.registry.jobs.submit import submit
from hub.registry.models.jobs import Job
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import HubError, NotFound
from hub.registry.platform.services import Services
from hub.vocabulary import JOB_KINDS
from hub.web.model_forms import JsonObject, Typed, problems_of
from hub.web.pages.jobs.form_page import (
    EstimatePart,
    PreviewPart,
    SourcePreview,
    form_estimate,
    form_page,
    source_preview,
)
from hub.web.pages.jobs.forms.controls import Unreadable
from hub.web.pages.jobs.forms.form import JobForm
from hub.web.pages.jobs.forms.kinds import FORMS, STARTED_ELSEWHERE
from hub.web.render import Page, query_string, render

router = APIRouter(include_in_schema=False)

BASE_ALONE = (
    "That job was sent through the API and asked the base alone. In the browser, a prompt is tried with an adapter."
)
UNKNOWN_REQUEST = "How that job was requested is not known; start anew here."


async def typed_fields(request: Request) -> Typed:
    """Everything typed in a form. Its inputs differ by kind of job, so they are no parameters of the routes."""
    async with request.form() as form:
        return _typed((name, value) for name, value in form.multi_items() if isinstance(value, str))


TypedDep = Annotated[Typed, Depends(typed_fields)]


@dataclass(frozen=True)
class GeneratePage(Page, template="new/generate.html"):
    """Where a prompt is tried: on the page of an adapter."""

    notice: str = ""


@router.post("/new/preview", dependencies=[public("changes nothing")])
def preview_examples(services: ServicesDep, viewer: SignedIn, typed: TypedDep) -> Response:
    """The first rows of one source, counted, as a part of its form."""
    source = typed.one("act").partition(":")[2]
    with transaction(services.sessions) as session:
        preview = source_preview(services, session, viewer, typed, source, typed.one("base"))
    return render(PreviewPart(preview or SourcePreview(source)), viewer)


@router.post("/new/{kind}/estimate", dependencies=[public("changes nothing")])
def estimate_time(services: ServicesDep, viewer: SignedIn, kind: str, typed: TypedDep) -> Response:
    """How long it would take as the form stands, as a part of the form."""
    form, base = _form(kind), typed.one("base")
    with transaction(services.sessions) as session:
        previews = {name: source_preview(services, session, viewer, typed, name, base) for name in form.sources}
        estimate = form_estimate(session, viewer, form, typed, base, previews)
    return render(EstimatePart(estimate), viewer)


@router.get("/new/generate")
def try_a_prompt(services: ServicesDep, viewer: SignedIn, module: str = "", again: uuid.UUID | None = None) -> Response:
    """A prompt has its form on the page of an adapter: go there, or say so where no adapter is named."""
    if again is None:
        address = f"/adapters/{quote(module.strip())}/try" if module.strip() else ""
        return RedirectResponse(address, status_code=303) if address else render(GeneratePage(), viewer)
    with transaction(services.sessions) as session:
        job = job_queries.find(session, viewer, again)
    if job.kind != "generate":
        return RedirectResponse(f"/new/{job.kind}?again={again}", status_code=303)
    request = GenerateRequest.model_validate(job.request) if job.request else None
    if request and request.module:
        query = query_string({"revision": request.module.revision, "job": again})
        return RedirectResponse(f"/adapters/{request.module.repo}/try?{query}", status_code=303)
    return render(GeneratePage(notice=UNKNOWN_REQUEST if request is None else BASE_ALONE), viewer)


@router.get("/new/{kind}")
def new_job(
    request: Request, services: ServicesDep, viewer: SignedIn, kind: str, again: uuid.UUID | None = None
) -> Response:
    """The form, empty, or filled from the address, or with the request of an earlier job."""
    form = _form(kind)
    linked = _linked(form, _typed(request.query_params.multi_items()))
    if again is None:
        return _page(services, viewer, form, linked)
    with transaction(services.sessions) as session:
        job = job_queries.find(session, viewer, again)
    if job.kind != kind:
        return RedirectResponse(f"/new/{job.kind}?again={again}", status_code=303)
    typed = _typed_again(form, job)
    return _page(services, viewer, form, typed or linked, notice="" if typed else UNKNOWN_REQUEST)


@router.post("/new/{kind}")
def start_job(services: ServicesDep, permit: CanUseJobs, kind: str, typed: TypedDep) -> Response:
    """Queue the job, or show the form again with what is wrong. Any other button only shows it again."""
    form, viewer = _form(kind), permit.viewer
    if typed.one("act") != "start":
        return _page(services, viewer, form, typed)
    try:
        body = form.to_json(typed)
        request = form.model.model_validate(body)
        job = submit(services, permit, request, idempotency_key=_key(typed, body))
    except Unreadable as error:
        return _page(services, viewer, form, typed, problems=error.problems, status=422)
    except ValidationError as error:
        return _page(services, viewer, form, typed, problems=problems_of(error, form.problem_names), status=422)
    except HubError as error:
        return _page(services, viewer, form, typed, problems={"": error.message}, status=error.status)
    return RedirectResponse(f"/jobs/{job.id}", status_code=303)


def _form(kind: str) -> JobForm:
    for name, form in FORMS.items():
        if name == kind:
            return form
    for name, place in STARTED_ELSEWHERE.items():
        if name == kind:
            raise NotFound(f"A job of the kind {kind} is started {place}, not by this form.")
    raise NotFound(f"There is no kind of job {kind!r}; there are {', '.join(JOB_KINDS)}.")


def _typed(items: Iterable[tuple[str, str]]) -> Typed:
    """Without NUL characters, which no request may hold and no browser sends."""
    values: dict[str, list[str]] = {}
    for name, value in items:
        values.setdefault(name, []).append(value.replace("\0", ""))
    return Typed(values)


def _linked(form: JobForm, linked: Typed) -> Typed:
    """What links of other pages fill in: a data set to take examples from, an adapter to train from or to convert."""
    values = dict(linked.values)
    if "dataset" in values and "datasets" not in form.problem_names:  # a form of many data sets has inputs of that name
        values |= {"examples.from": ["dataset"], "examples.dataset": values.pop("dataset")}
    values = {form.links.get(name, name): value for name, value in values.items()}
    if "source.repo" in values:  # by default the result is a new commit of what is converted
        namespace, _, name = values["source.repo"][-1].partition("/")
        values = {"namespace": [namespace], "result": [name], **values}
    return Typed(values)


def _typed_again(form: JobForm, job: Job) -> Typed | None:
    """What would have been typed for a job. None where its request is not stored, or its fields are not today's."""
    if job.request is None:
        return None
    try:
        return form.to_typed(form.model.model_validate(job.request))
    except ValidationError:
        return None


def _key(typed: Typed, body: JsonObject) -> str | None:
    """The same form sent twice, as by a double click, is one job; changed and sent again it is another."""
    form_key = typed.one("key")[:64]
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return f"form-{form_key}-{digest[:32]}" if form_key else None


def _page(
    services: Services,
    viewer: Viewer,
    form: JobForm,
    typed: Typed,
    *,
    problems: Mapping[str, str] = {},
    notice: str = "",
    status: int = 200,
) -> Response:
    return render(form_page(services, viewer, form, typed, problems, notice), viewer, status=status)
