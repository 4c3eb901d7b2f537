"""From a request to a queued job: inline examples become a data set, inputs are pinned, the row is written, a worker is woken."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence

from sqlalchemy.orm import Session

from hub.registry import blobs, jobs, kinds, repos
from hub.registry.blobs import Incoming
from hub.registry.db import transaction
from hub.registry.kinds import ComposeRequest, EvaluateRequest, Examples, ExampleText, GenerateRequest
from hub.registry.models import Job
from hub.registry.services import Services
from hub.registry.teams import Viewer

Request = ComposeRequest | EvaluateRequest | GenerateRequest


def submit(services: Services, viewer: Viewer, request: Request, *, idempotency_key: str | None = None) -> Job:
    """Queue the job that a request asks for. No database session is open while inline examples travel to storage."""
    body = request.model_dump(mode="json")
    inline = _inline_files(request)
    repo_name = _inline_repo(viewer, request)
    with transaction(services.sessions) as session:
        made_before = jobs.existing(session, viewer, idempotency_key, body) if idempotency_key else None
        if made_before:
            return made_before
        if inline:
            repos.check_target(session, viewer, "dataset", repo_name)  # before any bytes are stored for it
    blobs.store(services.sessions, services.storage, repo_name.partition("/")[0], list(inline.values()))
    with transaction(services.sessions) as session:
        if inline:
            _publish_inline(session, viewer, request, repo_name, inline)
            request = _refer(request, repo_name)
        submission = kinds.resolve(session, viewer, request)
        return jobs.submit(session, services.queue, viewer, submission, idempotency_key=idempotency_key, request=body)


def _inline_files(request: Request) -> dict[str, Incoming]:
    """The inline examples of a request as JSONL files, by name."""
    sources: dict[str, Examples | None] = {}
    if isinstance(request, ComposeRequest):
        sources = {"examples.jsonl": request.examples, "held_out.jsonl": request.held_out}
    elif isinstance(request, EvaluateRequest):
        sources = {f"examples_{index}.jsonl": source for index, source in enumerate(request.datasets)}
    return {path: _jsonl(path, source.inline) for path, source in sources.items() if source and source.inline}


def _jsonl(path: str, examples: Sequence[ExampleText]) -> Incoming:
    rows = (json.dumps(example.model_dump(exclude_defaults=True), ensure_ascii=False) for example in examples)
    return blobs.hash_file(path, io.BytesIO("".join(row + "\n" for row in rows).encode()))


def _inline_repo(viewer: Viewer, request: Request) -> str:
    """Where inline examples go: beside the result, or under a name made from what they are."""
    if isinstance(request, ComposeRequest):
        return f"{request.name}-examples"
    digest = hashlib.sha256(request.model_dump_json().encode()).hexdigest()
    return f"{viewer.name}/{request.kind}-{digest[:12]}"


def _publish_inline(
    session: Session, viewer: Viewer, request: Request, repo_name: str, files: Mapping[str, Incoming]
) -> None:
    wanted = request.visibility if isinstance(request, ComposeRequest) else "private"
    visibility = kinds.result_visibility(session, kinds.named_commits(session, viewer, request), wanted)
    repo = repos.ensure(session, viewer, "dataset", repo_name, visibility)
    kinds.check_not_wider(repo, visibility)
    entries = [repos.Entry(file.path, file.sha256, file.size, file.git_oid) for file in files.values()]
    repos.publish(session, repo, entries, author_id=viewer.id, message=f"Examples of a {request.kind} job")


def _refer(request: Request, repo_name: str) -> Request:
    """The same request with its inline examples named by the data set that now holds them."""

    def refer(source: Examples | None, path: str) -> Examples | None:
        return Examples(dataset=repo_name, path=path) if source and source.inline else source

    if isinstance(request, ComposeRequest):
        changed = {"examples": refer(request.examples, "examples.jsonl")}
        changed["held_out"] = refer(request.held_out, "held_out.jsonl")
        return request.model_copy(update=changed)
    if isinstance(request, EvaluateRequest):
        named = [refer(source, f"examples_{index}.jsonl") for index, source in enumerate(request.datasets)]
        return request.model_copy(update={"datasets": named})
    return request
