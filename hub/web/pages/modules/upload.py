"""Publishing a module: the first request stores the bytes and shows what they are, the second publishes what was shown."""

import json
import re
import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from hub.http.identity import ServicesDep, SessionDep, SignedIn
from hub.http.permissions import CanWriteSomewhere
from hub.http.uploads import Upload, read_upload
from hub.registry.access import instance_keys, permissions, signing
from hub.registry.access.viewer import Viewer
from hub.registry.content.history import Entry
from hub.registry.content.repo_visibility import parse_visibility
from hub.registry.library import publishing
from hub.registry.library.publishing import UploadPreview
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import HubError
from hub.registry.platform.services import Services
from hub.web.render import page

router = APIRouter(include_in_schema=False)

SHOWN_SECONDS = 6 * 3_600  # the bytes of what nobody publishes are collected after two days


@router.get("/upload")
def upload_form(services: ServicesDep, session: SessionDep, viewer: SignedIn) -> Response:
    return _form(services, permissions.writable(session, viewer), viewer)


def _form(
    services: Services, namespaces: Sequence[str], viewer: Viewer, *, chosen: str = "", error: HubError | None = None
) -> Response:
    return page(
        "modules/upload.html",
        viewer,
        status=error.status if error else 200,
        namespaces=namespaces,
        chosen=chosen,
        problem=error.message if error else "",
        limit=services.settings.max_upload_bytes,
    )


@router.post("/upload")
async def show(request: Request, services: ServicesDep, writer: CanWriteSomewhere) -> Response:
    """Store what was sent for the namespace, and show what it is."""
    try:
        async with read_upload(request, services.settings.max_upload_bytes) as upload:
            return await run_in_threadpool(_show, services, writer.viewer, upload)
    except HubError as error:
        return await run_in_threadpool(_refused, services, writer.viewer, error)


def _show(services: Services, viewer: Viewer, upload: Upload) -> Response:
    namespace = upload.fields.get("namespace", "")
    shown = publishing.preview_upload(services, viewer, namespace, upload.files)
    tops = {file.path.partition("/")[0] for file in upload.files if "/" in file.path}
    suggested = upload.fields.get("suggested", "") or (tops.pop() if len(tops) == 1 else "")
    name = re.sub(r"[^A-Za-z0-9_.]+|--+|\.\.+", "-", suggested).strip("-._")[:96]
    return _review(services, viewer, shown, typed={"name": name, "visibility": "internal", "message": "Upload"})


def _refused(services: Services, viewer: Viewer, error: HubError) -> Response:
    with transaction(services.sessions) as session:
        return _form(services, permissions.writable(session, viewer), viewer, error=error)


def _review(
    services: Services, viewer: Viewer, shown: UploadPreview, *, typed: dict[str, str], error: HubError | None = None
) -> Response:
    """What the upload is, and a form that publishes these very bytes: their list is signed, so nobody can put in others."""
    kept = json.dumps([[entry.path, entry.sha256, entry.size, entry.git_oid] for entry in shown.entries])
    expires = int(time.time()) + SHOWN_SECONDS
    with transaction(services.sessions) as session:
        signature = signing.sign(instance_keys.key(session), expires, *_signed(viewer, shown.namespace, kept))
    status = error.status if error else 200 if shown.sound else 422
    return page(
        "modules/upload_review.html",
        viewer,
        status=status,
        shown=shown,
        facts=shown.inspection.adapters[0].to_dict() if shown.sound else None,
        findings=[*shown.inspection.findings, *shown.duplicates],
        kept=kept,
        expires=expires,
        signature=signature,
        typed=typed,
        problem=error.message if error else "",
    )


def _signed(viewer: Viewer, namespace: str, kept: str) -> tuple[Any, ...]:
    return ("publish", viewer.id, namespace, kept)


@router.post("/upload/publish")
def publish(
    services: ServicesDep,
    writer: CanWriteSomewhere,
    namespace: Annotated[str, Form(max_length=96)],
    kept: Annotated[str, Form(max_length=1_000_000)],
    expires: Annotated[int, Form()],
    signature: Annotated[str, Form(max_length=64)],
    name: Annotated[str, Form(max_length=200)] = "",
    visibility: Annotated[str, Form(max_length=20)] = "internal",
    message: Annotated[str, Form(max_length=1_000)] = "",
) -> Response:
    """Publish what was shown, for nobody else than the person to whom it was shown."""
    viewer = writer.viewer
    with transaction(services.sessions) as session:
        signing.check(instance_keys.key(session), signature, expires, *_signed(viewer, namespace, kept))
    entries = [Entry(*entry) for entry in json.loads(kept)]
    shown = publishing.reload_preview(services, viewer, namespace, entries)
    try:
        repo = publishing.publish_preview(
            services,
            viewer,
            f"{namespace}/{name.strip()}",
            shown,
            visibility=parse_visibility(visibility),
            message=message.strip() or "Upload",
        )
    except HubError as error:
        typed = {"name": name, "visibility": visibility, "message": message}
        return _review(services, viewer, shown, typed=typed, error=error)
    return RedirectResponse(f"/adapters/{repo.full_name}", status_code=303)
