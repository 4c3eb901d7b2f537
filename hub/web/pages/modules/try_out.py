"""Try a module: a prompt goes to a `generate` job, and its answers, of the base alone and with the module, come back to the same page.

The page is whole without scripts: it then asks for itself again until the answers are there. With them htmx puts in only what changed.
"""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from hub.http.identity import ServicesDep, SessionDep, ViewerDep
from hub.http.permissions import CanUseJobs
from hub.registry.access.viewer import Viewer
from hub.registry.jobs import job_queries
from hub.registry.jobs.requests.common import Module
from hub.registry.jobs.requests.generate import GenerateRequest
from hub.registry.jobs.submit import submit
from hub.registry.models.jobs import Job
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import HubError, InvalidInput
from hub.registry.platform.services import Services
from hub.vocabulary import FINISHED, MAIN
from hub.web.pages.modules.overview import Opened, open_module, tab
from hub.web.render import query

router = APIRouter(prefix="/adapters/{namespace}/{name}/try", include_in_schema=False)

TOKENS = 64


@router.get("")
def form(
    session: SessionDep,
    viewer: ViewerDep,
    namespace: str,
    name: str,
    revision: str = MAIN,
    job: Annotated[uuid.UUID | None, Query()] = None,
) -> Response:
    opened = open_module(session, viewer, namespace, name, revision)
    if job is None:
        return _tab(opened, viewer, {})
    found = job_queries.find(session, viewer, job)
    asked = found.params.get("module") if found.kind == "generate" else None
    if not asked or asked["repo"] != opened.repo.full_name:
        raise job_queries.JobNotFound(f"There is no try of {opened.repo.full_name} in the job {job}.")
    typed = {"prompt": found.params["prompt"], "tokens": found.params["max_new_tokens"], "folder": asked["folder"]}
    return _tab(opened, viewer, typed, found)


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
    viewer = permit.viewer
    full_name = f"{namespace}/{name}"
    try:
        job_id = _submit(services, viewer, full_name, revision, folder, prompt, tokens)
    except HubError as error:
        if error.status == 403:
            raise
        with transaction(services.sessions) as session:
            opened = open_module(session, viewer, namespace, name, revision)
            typed = {"prompt": prompt, "tokens": tokens, "folder": folder}
            return _tab(opened, viewer, typed, problem=error)
    kept = {} if revision == MAIN else {"revision": revision}
    return RedirectResponse(f"/adapters/{full_name}/try?{query({**kept, 'job': job_id})}", status_code=303)


def _submit(
    services: Services, viewer: Viewer, full_name: str, revision: str, folder: str, prompt: str, tokens: int
) -> uuid.UUID:
    module = Module(repo=full_name, revision=revision, folder=folder)
    try:
        request = GenerateRequest(kind="generate", prompt=prompt, module=module, max_new_tokens=tokens)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(f"The {first['loc'][-1]} cannot be used: {first['msg']}.") from error
    return submit(services, viewer, request).id


def _tab(
    opened: Opened,
    viewer: Viewer | None,
    typed: dict[str, Any],
    job: Job | None = None,
    problem: HubError | None = None,
) -> Response:
    return tab(
        "try",
        opened,
        viewer,
        status=problem.status if problem else 200,
        typed={"prompt": "", "tokens": TOKENS, "folder": "", **typed},
        job=job,
        waiting=job is not None and job.state not in FINISHED,
        answers=(job.result or {}).get("answers") if job else None,
        problem=problem.message if problem else "",
    )
