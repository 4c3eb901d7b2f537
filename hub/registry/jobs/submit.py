"""From a request to a queued job: inline examples become a data set, inputs are pinned, the row is written, a worker is woken."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from hub.registry.access.permissions import UseJobs
from hub.registry.access.viewer import Viewer
from hub.registry.content import blobs, history, repos
from hub.registry.content.blobs import Incoming
from hub.registry.content.repo_visibility import check_not_wider
from hub.registry.datasets.examples import Examples, ExampleText
from hub.registry.jobs import queueing
from hub.registry.jobs.requests.common import Request
from hub.registry.models.jobs import Job
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.vocabulary import Visibility


def submit(services: Services, permit: UseJobs, request: Request, *, idempotency_key: str | None = None) -> Job:
    """Queue the job that a request asks for. No database session is open while inline examples travel to storage."""
    viewer = permit.viewer
    body = request.model_dump(mode="json")
    inline = {path: _jsonl(path, source.inline) for path, source in request.sources().items() if source.inline}
    repo_name = request.examples_repo(viewer)
    with transaction(services.sessions) as session:
        made_before = queueing.existing(session, viewer, idempotency_key, body) if idempotency_key else None
        if made_before:
            return made_before
        if inline:  # before any bytes are stored for it, and by the name that was given before the one made from it
            request.check_name(session, viewer)
            repos.check_target(session, viewer, "dataset", repo_name)
    blobs.store(services.sessions, services.storage, repo_name.partition("/")[0], list(inline.values()))
    with transaction(services.sessions) as session:
        modules = request.pin_modules(session, viewer)
        if inline:
            visibility = request.examples_visibility(session, viewer, modules)
            _publish_inline(session, viewer, request, repo_name, visibility, inline)
            stored = {path: Examples(dataset=repo_name, path=path) for path in inline}
            request = request.with_sources({**request.sources(), **stored})
        asked = 60 * (request.time_limit_minutes or math.inf)
        limit = min(asked, 3_600 * services.settings.job_hours)
        submission = replace(request.resolve(session, viewer, modules), time_limit=limit)
        job = queueing.submit(
            session, services.queue, viewer, submission, idempotency_key=idempotency_key, request=body
        )
        job.request = request.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return job


def _jsonl(path: str, examples: Sequence[ExampleText]) -> Incoming:
    rows = (json.dumps(example.model_dump(exclude_defaults=True), ensure_ascii=False) for example in examples)
    return blobs.hash_file(path, io.BytesIO("".join(row + "\n" for row in rows).encode()))


def _publish_inline(
    session: Session,
    viewer: Viewer,
    request: Request,
    repo_name: str,
    visibility: Visibility,
    files: Mapping[str, Incoming],
) -> None:
    repo = repos.ensure(session, viewer, "dataset", repo_name, visibility)
    check_not_wider(repo, visibility)
    entries = [history.Entry(file.path, file.sha256, file.size, file.git_oid) for file in files.values()]
    history.publish(session, repo, entries, author_id=viewer.id, message=f"Examples of a {request.kind} job")
