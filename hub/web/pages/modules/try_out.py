"""Try an adapter: a `generate` job answers a prompt by the base alone and with the adapter, and the same page shows both answers.

The page is whole without scripts: it then loads itself again until the answers are there. With them htmx puts in only what changed.
"""

import uuid
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Form, Query, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from hub.http.identity import ServicesDep, SessionDep, ViewerDep
from hub.http.permissions import CanUseJobs
from hub.registry.access.permissions import UseJobs
from hub.registry.access.viewer import Viewer
from hub.registry.jobs import job_queries
from hub.registry.jobs.contracts.common import PinnedModule
from hub.registry.jobs.contracts.generate import GenerateParams, GenerateResult
from hub.registry.jobs.kinds import params_of, result_of
from hub.registry.jobs.requests.common import Module
from hub.registry.jobs.requests.generate import GenerateRequest
from hub.registry.jobs.submit import submit
from hub.registry.models.jobs import Job
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import InvalidInput
from hub.registry.platform.services import Services
from hub.vocabulary import FINISHED, MAIN
from hub.web.forms import NO_FORM, RefusedForm, run_form
from hub.web.pages.modules.frame import ModulePage, ModuleRevision, open_module
from hub.web.render import query_string, render

router = APIRouter(prefix="/adapters/{namespace}/{name}/try", include_in_schema=False)

TOKENS = 64


@dataclass(frozen=True)
class Prompt:
    """What the form holds."""

    text: str = ""
    tokens: int = TOKENS  # the most that an answer has
    folder: str = ""  # of the adapter


@dataclass(frozen=True)
class Answers:
    """What a finished job answered."""

    base: str  # by the base alone
    adapter: str
    template: str
    commit: str
    seconds: float  # that the job took


@dataclass(frozen=True, kw_only=True)
class TryPage(ModulePage, template="modules/try.html"):
    """A prompt, and the answers of the base alone and with the adapter."""

    tab: str = "try"
    prompt: Prompt
    job: Job | None
    waiting: bool  # for the job to end
    answers: Answers | None  # None until then, and when they have expired
    problem: str  # why the prompt was refused


@router.get("")
def form(
    session: SessionDep,
    viewer: ViewerDep,
    namespace: str,
    name: str,
    revision: str = MAIN,
    job: Annotated[uuid.UUID | None, Query()] = None,
) -> Response:
    module = open_module(session, viewer, namespace, name, revision)
    if job is None:
        return _page(module, viewer, Prompt())
    generation = job_queries.find(session, viewer, job)
    params = params_of(generation)
    if not isinstance(params, GenerateParams) or not params.module or params.module.repo != module.repo.full_name:
        raise job_queries.JobNotFound(f"The job {job} does not try {module.repo.full_name}.")
    prompt = Prompt(params.prompt, params.max_new_tokens, params.module.folder)
    return _page(module, viewer, prompt, generation, _answers(generation, params.module))


@router.post("")
def ask(
    services: ServicesDep,
    permit: CanUseJobs,
    namespace: str,
    name: str,
    prompt: Annotated[str, Form(max_length=100_000)] = "",
    tokens: Annotated[int, Form()] = TOKENS,
    folder: Annotated[str, Form(max_length=500)] = "",
    revision: Annotated[str, Form(max_length=255)] = MAIN,
) -> Response:
    full_name = f"{namespace}/{name}"

    def change() -> Response:
        module = Module(repo=full_name, revision=revision, folder=folder)
        job_id = _submit(services, permit, module, prompt, tokens)
        pinned = {} if revision == MAIN else {"revision": revision}
        return RedirectResponse(f"/adapters/{full_name}/try?{query_string({**pinned, 'job': job_id})}", status_code=303)

    def show_again(form: RefusedForm) -> Response:
        with transaction(services.sessions) as session:
            module = open_module(session, permit.viewer, namespace, name, revision)
            return _page(module, permit.viewer, Prompt(prompt, tokens, folder), form=form)

    return run_form(change, show_again, name="prompt")


def _submit(services: Services, permit: UseJobs, module: Module, prompt: str, tokens: int) -> uuid.UUID:
    try:
        request = GenerateRequest(kind="generate", prompt=prompt, module=module, max_new_tokens=tokens)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(f"The {first['loc'][-1]} cannot be used: {first['msg']}.") from error
    return submit(services, permit, request).id


def _page(
    module: ModuleRevision,
    viewer: Viewer | None,
    prompt: Prompt,
    job: Job | None = None,
    answers: Answers | None = None,
    form: RefusedForm = NO_FORM,
) -> Response:
    page = TryPage(
        module=module,
        prompt=prompt,
        job=job,
        waiting=job is not None and job.state not in FINISHED,
        answers=answers,
        problem=form.problem,
    )
    return render(page, viewer, status=form.status)


def _answers(job: Job, module: PinnedModule) -> Answers | None:
    result = result_of(job)
    if not isinstance(result, GenerateResult) or job.started_at is None or job.finished_at is None:
        return None
    return Answers(
        base=result.answers.base,
        adapter=result.answers.adapter or "",
        template=result.template,
        commit=module.commit,
        seconds=(job.finished_at - job.started_at).total_seconds(),
    )
