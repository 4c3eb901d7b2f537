"""Publishing an adapter: the first request stores the bytes and shows what they are, the second publishes what was shown."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from hub.http.identity import ServicesDep, SignedIn
from hub.http.permissions import CanWriteSomewhere
from hub.http.uploads import Upload, read_upload
from hub.registry.access import instance_keys, permissions, signing
from hub.registry.access.viewer import Viewer
from hub.registry.content.history import Entry
from hub.registry.content.repo_visibility import parse_visibility
from hub.registry.inspection.facts import InspectedAdapter
from hub.registry.inspection.findings import Finding
from hub.registry.library import publishing
from hub.registry.library.publishing import UploadPreview
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import HubError
from hub.registry.platform.services import Services
from hub.vocabulary import VISIBILITIES, Visibility
from hub.web.forms import NO_FORM, RefusedForm, run_form
from hub.web.render import Page, render

router = APIRouter(include_in_schema=False)

PREVIEW_SECONDS = 6 * 3_600  # the bytes of what nobody publishes are collected after two days


@dataclass(frozen=True, kw_only=True)
class UploadPage(Page, template="modules/upload.html"):
    """The form that sends a folder or an archive."""

    namespaces: Sequence[str]  # in which the viewer may write
    problem: str  # why the upload was refused
    limit: int  # bytes of one upload


@dataclass(frozen=True, kw_only=True)
class UploadReviewPage(Page, template="modules/upload_review.html"):
    """What an upload is, and the form "publish" for these very bytes: their list is signed, so nobody can put in others."""

    preview: UploadPreview
    facts: InspectedAdapter | None  # None where it cannot be published
    findings: Sequence[Finding]
    signed_entries: str  # JSON: path, SHA-256, size and git id of each file
    expires: int  # seconds of the epoch, when the signature does
    signature: str
    name: str  # suggested, or typed before
    visibility: str
    message: str
    problem: str  # why publishing was refused
    visibilities: Sequence[Visibility] = VISIBILITIES


@dataclass(frozen=True)
class Publication:
    """What the person types beside the files."""

    name: str
    visibility: str = "internal"
    message: str = "Upload"


@router.get("/upload")
def upload_form(services: ServicesDep, viewer: SignedIn) -> Response:
    return _form(services, viewer)


def _form(services: Services, viewer: Viewer, error: HubError | None = None) -> Response:
    with transaction(services.sessions) as session:
        namespaces = permissions.writable(session, viewer)
    page = UploadPage(
        namespaces=namespaces, problem=error.message if error else "", limit=services.settings.max_upload_bytes
    )
    return render(page, viewer, status=error.status if error else 200)


@router.post("/upload")
async def preview(request: Request, services: ServicesDep, writer: CanWriteSomewhere) -> Response:
    """Store the upload for the namespace, and show what it is."""
    try:
        async with read_upload(request, services.settings.max_upload_bytes) as upload:
            return await run_in_threadpool(_preview, services, writer.viewer, upload)
    except HubError as error:
        return await run_in_threadpool(_form, services, writer.viewer, error)


def _preview(services: Services, viewer: Viewer, upload: Upload) -> Response:
    namespace = upload.fields.get("namespace", "")
    preview = publishing.preview_upload(services, viewer, namespace, upload.files)
    tops = {file.path.partition("/")[0] for file in upload.files if "/" in file.path}
    suggested = upload.fields.get("suggested", "") or (tops.pop() if len(tops) == 1 else "")
    name = re.sub(r"[^A-Za-z0-9_.]+|--+|\.\.+", "-", suggested).strip("-._")[:96]
    return _review(services, viewer, preview, Publication(name))


def _review(
    services: Services,
    viewer: Viewer,
    preview: UploadPreview,
    publication: Publication,
    form: RefusedForm = NO_FORM,
) -> Response:
    entries = json.dumps([[entry.path, entry.sha256, entry.size, entry.git_oid] for entry in preview.entries])
    expires = int(time.time()) + PREVIEW_SECONDS
    with transaction(services.sessions) as session:
        key = instance_keys.key(session)
    page = UploadReviewPage(
        preview=preview,
        facts=preview.inspection.adapters[0] if preview.sound else None,
        findings=[*preview.inspection.findings, *preview.duplicates],
        signed_entries=entries,
        expires=expires,
        signature=signing.sign(key, expires, *_signed(viewer, preview.namespace, entries)),
        name=publication.name,
        visibility=publication.visibility,
        message=publication.message,
        problem=form.problem,
    )
    return render(page, viewer, status=form.status if form.error or preview.sound else 422)


def _signed(viewer: Viewer, namespace: str, entries: str) -> tuple[object, ...]:
    return ("publish", viewer.id, namespace, entries)


@router.post("/upload/publish")
def publish(
    services: ServicesDep,
    writer: CanWriteSomewhere,
    namespace: Annotated[str, Form(max_length=96)],
    entries: Annotated[str, Form(max_length=1_000_000)],
    expires: Annotated[int, Form()],
    signature: Annotated[str, Form(max_length=64)],
    name: Annotated[str, Form(max_length=200)] = "",
    visibility: Annotated[str, Form(max_length=20)] = "internal",
    message: Annotated[str, Form(max_length=1_000)] = "",
) -> Response:
    """Publish what was shown, for nobody else than the person to whom it was shown."""
    viewer = writer.viewer
    with transaction(services.sessions) as session:
        signing.check(instance_keys.key(session), signature, expires, *_signed(viewer, namespace, entries))
    signed = [Entry(*entry) for entry in json.loads(entries)]
    preview = publishing.reload_preview(services, viewer, namespace, signed)

    def change() -> Response:
        repo = publishing.publish_preview(
            services,
            viewer,
            f"{namespace}/{name.strip()}",
            preview,
            visibility=parse_visibility(visibility),
            message=message.strip() or "Upload",
        )
        return RedirectResponse(f"/adapters/{repo.full_name}", status_code=303)

    def show_again(form: RefusedForm) -> Response:
        return _review(services, viewer, preview, Publication(name, visibility, message), form)

    return run_form(change, show_again, name="publish")
