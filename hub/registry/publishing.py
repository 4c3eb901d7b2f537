"""Strict publishing, as `POST /v1` and the forms do it: one whole, sound thing, or nothing at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from hub.registry import bases, blobs, repos, similar
from hub.registry.blobs import Incoming
from hub.registry.db import transaction
from hub.registry.errors import Conflict, InvalidInput
from hub.registry.findings import Finding
from hub.registry.inspect import Inspection, inspect, require_adapter
from hub.registry.models import Commit, Repo
from hub.registry.repos import VISIBILITIES, Entry, RepoType, Visibility
from hub.registry.services import Services
from hub.registry.teams import Viewer


class NoExamples(InvalidInput):
    code = "no_examples"


class MoreVisible(Conflict):
    """The repo is there already and more people see it than the upload asks for."""

    code = "more_visible"


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
        _check_target(session, viewer, "model", name, visibility)
        known = bases.known(session)
        names = bases.names(session)
    inspection = inspect({file.path: file for file in files}, known)
    require_adapter(inspection)
    blobs.store(services.sessions, services.storage, repos.split_name(name)[0], files)
    with transaction(services.sessions) as session:
        repo = repos.ensure(session, viewer, "model", name, visibility)
        commit = repos.publish(
            session, repo, entries(files), author_id=viewer.id, message=message, inspection=inspection
        )
        version = repos.version_of(session, commit)
        duplicates = similar.duplicate_findings(session, viewer, repo, commit)
    base_ids = {facts.folder: names.get(facts.base_model or "") for facts in inspection.adapters}
    return PublishedAdapter(repo, commit, version, inspection, base_ids, duplicates)


def publish_model(
    services: Services,
    viewer: Viewer,
    name: str,
    files: Sequence[Incoming],
    *,
    visibility: Visibility | None,
    message: str,
) -> tuple[Repo, Commit]:
    """A model repo of any content, such as a whole base model; adapters in it get their facts."""
    with transaction(services.sessions) as session:
        _check_target(session, viewer, "model", name, visibility)
        known = bases.known(session)
    inspection = inspect({file.path: file for file in files}, known)
    blobs.store(services.sessions, services.storage, repos.split_name(name)[0], files)
    with transaction(services.sessions) as session:
        repo = repos.ensure(session, viewer, "model", name, visibility)
        return repo, repos.publish(
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
    """A data set of JSONL files (and whatever lies beside them). Raises NoExamples if there is none."""
    if not any(file.path.endswith(".jsonl") and file.size for file in files):
        raise NoExamples('The upload has no .jsonl file; send rows such as {"input": ..., "target": ...}, one a line.')
    with transaction(services.sessions) as session:
        _check_target(session, viewer, "dataset", name, visibility)
    blobs.store(services.sessions, services.storage, repos.split_name(name)[0], files)
    with transaction(services.sessions) as session:
        repo = repos.ensure(session, viewer, "dataset", name, visibility)
        return repo, repos.publish(session, repo, entries(files), author_id=viewer.id, message=message)


def _check_target(
    session: Session, viewer: Viewer, repo_type: RepoType, name: str, visibility: Visibility | None
) -> None:
    repo = repos.check_target(session, viewer, repo_type, name)
    if repo and visibility and VISIBILITIES.index(repo.visibility) > VISIBILITIES.index(visibility):
        raise MoreVisible(
            f"{name} is {repo.visibility} already, so what goes into it cannot be {visibility}: "
            "change its visibility first, or choose another name."
        )


def entries(files: Sequence[Incoming]) -> list[Entry]:
    return [Entry(file.path, file.sha256, file.size, file.git_oid) for file in files]
