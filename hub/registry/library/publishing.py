"""Strict publishing, for `POST /v1` and the forms: one complete, sound repo, or nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from hub.formats.ranged_file import RangedFile
from hub.registry.access import permissions
from hub.registry.access.viewer import Viewer
from hub.registry.bases import base_models
from hub.registry.content import blobs, history, repos
from hub.registry.content.blobs import Incoming
from hub.registry.content.history import Entry
from hub.registry.content.repo_visibility import check_not_wider
from hub.registry.content.repos import StoredFile, Target
from hub.registry.inspection.archive import MAC_EXTRAS, without_top
from hub.registry.inspection.findings import Finding
from hub.registry.inspection.inspect import Inspection, inspect, require_adapter
from hub.registry.library import similar
from hub.registry.models.content import Commit, Repo
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import InvalidInput
from hub.registry.platform.services import Services
from hub.vocabulary import RepoType, Visibility


class NoExamples(InvalidInput):
    code = "no_examples"


@dataclass(frozen=True)
class PublishedAdapter:
    repo: Repo
    commit: Commit
    version: str | None
    inspection: Inspection
    base_ids: Mapping[str, str | None]  # folder -> the registered base that it means
    duplicates: Sequence[Finding]  # among what the uploader may see; not kept


def publish_adapter(
    services: Services,
    viewer: Viewer,
    name: str,
    files: Sequence[Incoming],
    *,
    visibility: Visibility | None,
    message: str,
) -> PublishedAdapter:
    """Inspect, store the bytes, write the rows. Raises BadAdapter with every finding before anything is stored."""
    with transaction(services.sessions) as session:
        target = _check_target(session, viewer, "model", name, visibility)
        known = base_models.known(session)
        names = base_models.names(session)
    inspection = inspect({file.path: file for file in files}, known)
    require_adapter(inspection)
    blobs.store(services.sessions, services.storage, target.namespace, files)
    with transaction(services.sessions) as session:
        repo = _open_target(session, target, visibility)
        commit = history.publish(
            session, repo, entries(files), author_id=viewer.id, message=message, inspection=inspection
        )
        version = repos.version_of(session, commit)
        duplicates = similar.duplicate_findings(session, viewer, repo, commit)
    base_ids = {facts.folder: names.get(facts.base_model or "") for facts in inspection.adapters}
    return PublishedAdapter(repo, commit, version, inspection, base_ids, duplicates)


@dataclass(frozen=True)
class UploadPreview:
    """An unpublished upload that its namespace holds, with its inspection and its near duplicates."""

    namespace: str
    entries: Sequence[Entry]
    inspection: Inspection
    duplicates: Sequence[Finding]

    @property
    def sound(self) -> bool:
        return len(self.inspection.adapters) == 1 and not self.inspection.errors


def preview_upload(services: Services, viewer: Viewer, namespace: str, files: Sequence[Incoming]) -> UploadPreview:
    """Inspect an upload, and store its bytes if it is sound. Raises Forbidden and QuotaExceeded."""
    with transaction(services.sessions) as session:
        permissions.authorize_in(session, viewer, permissions.Write, namespace)
    sent = {file.path: file for file in files if not MAC_EXTRAS.search(file.path)}
    named = without_top(sent)
    preview = _preview(services, viewer, namespace, named, [replace(file, path=path) for path, file in named.items()])
    if preview.sound:
        blobs.store(services.sessions, services.storage, namespace, list(named.values()))
    return preview


def reload_preview(services: Services, viewer: Viewer, namespace: str, stored: Sequence[Entry]) -> UploadPreview:
    """Rebuild the preview from bytes that are stored already."""
    named = {entry.path: StoredFile(services.storage, entry.sha256, entry.size) for entry in stored}
    return _preview(services, viewer, namespace, named, stored)


def _preview(
    services: Services,
    viewer: Viewer,
    namespace: str,
    files: Mapping[str, RangedFile],
    named: Sequence[Incoming | Entry],
) -> UploadPreview:
    with transaction(services.sessions) as session:
        known = base_models.known(session)
    inspection = inspect(files, known)
    with transaction(services.sessions) as session:
        duplicates = similar.duplicates_of(session, viewer, inspection)
    stored = [Entry(file.path, file.sha256, file.size, file.git_oid) for file in named]
    return UploadPreview(namespace, stored, inspection, duplicates)


def publish_preview(
    services: Services,
    viewer: Viewer,
    name: str,
    preview: UploadPreview,
    *,
    visibility: Visibility | None,
    message: str,
) -> Repo:
    """Publish exactly what was previewed. Raises BadAdapter with every finding, and BytesMissing if the bytes have been removed since."""
    require_adapter(preview.inspection)
    with transaction(services.sessions) as session:
        target = _check_target(session, viewer, "model", name, visibility)
        repo = _open_target(session, target, visibility)
        history.publish(
            session, repo, preview.entries, author_id=viewer.id, message=message, inspection=preview.inspection
        )
        return repo


def publish_model(
    services: Services,
    viewer: Viewer,
    name: str,
    files: Sequence[Incoming],
    *,
    visibility: Visibility | None,
    message: str,
) -> tuple[Repo, Commit]:
    """Publish a model repo of any content, such as a whole base model. Adapters in it get their facts."""
    with transaction(services.sessions) as session:
        target = _check_target(session, viewer, "model", name, visibility)
        known = base_models.known(session)
    inspection = inspect({file.path: file for file in files}, known)
    blobs.store(services.sessions, services.storage, target.namespace, files)
    with transaction(services.sessions) as session:
        repo = _open_target(session, target, visibility)
        return repo, history.publish(
            session, repo, entries(files), author_id=viewer.id, message=message, inspection=inspection
        )


def publish_dataset(
    services: Services,
    viewer: Viewer,
    name: str,
    files: Sequence[Incoming],
    *,
    visibility: Visibility | None,
    message: str,
) -> tuple[Repo, Commit]:
    """Publish a data set of JSONL files (and any files beside them). Raises NoExamples if it has no JSONL file."""
    if not any(file.path.endswith(".jsonl") and file.size for file in files):
        raise NoExamples('The upload has no .jsonl file; send rows such as {"input": ..., "target": ...}, one a line.')
    with transaction(services.sessions) as session:
        target = _check_target(session, viewer, "dataset", name, visibility)
    blobs.store(services.sessions, services.storage, target.namespace, files)
    with transaction(services.sessions) as session:
        repo = _open_target(session, target, visibility)
        return repo, history.publish(session, repo, entries(files), author_id=viewer.id, message=message)


def _check_target(
    session: Session, viewer: Viewer, repo_type: RepoType, name: str, visibility: Visibility | None
) -> Target:
    target = repos.check_target(session, viewer, repo_type, name)
    check_not_wider(target.repo, visibility)
    return target


def _open_target(session: Session, target: Target, visibility: Visibility | None) -> Repo:
    """The target's repo. Another request may have created it with a wider visibility since the check."""
    repo = repos.open_target(session, target, visibility)
    check_not_wider(repo, visibility)
    return repo


def entries(files: Sequence[Incoming]) -> list[Entry]:
    return [Entry(file.path, file.sha256, file.size, file.git_oid) for file in files]
