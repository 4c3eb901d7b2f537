"""The report in a commit's loraloom.json. Anybody may upload such a file, so its content is not trusted."""

from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.formats.errors import FormatError
from hub.formats.report import Report
from hub.formats.strict_json import load_json
from hub.registry.inspection.folder import MAX_SIDECAR_BYTES, SIDECAR
from hub.registry.models.content import Commit, TreeEntry
from hub.registry.platform.storage import Storage


@dataclass(frozen=True)
class StatedReport:
    """A report as the file states it. `measured_here`: a job of this hub wrote exactly this file for this repo."""

    report: Report
    measured_here: bool


def report(session: Session, storage: Storage, commit: Commit) -> StatedReport | None:
    """The report in the commit's loraloom.json; None where there is none, or none that can be read."""
    entry = session.get(TreeEntry, (commit.tree, SIDECAR))
    if entry is None or entry.size > MAX_SIDECAR_BYTES:
        return None
    try:
        sidecar = load_json(storage.read(entry.sha256, 0, entry.size), SIDECAR, "bad_sidecar")
        stated = Report.model_validate(sidecar.get("report"))
    except (FormatError, ValidationError):
        return None
    return StatedReport(stated, _written_here(session, commit, entry.sha256))


def _written_here(session: Session, commit: Commit, sha256: str) -> bool:
    """Whether a job wrote the file in any commit of the repo: a repair or an edit of the card makes a commit without a job."""
    job_commits = (
        select(Commit.id)
        .join(TreeEntry, TreeEntry.tree == Commit.tree)
        .where(Commit.repo_id == commit.repo_id, Commit.job_id.is_not(None))
        .where(TreeEntry.path == SIDECAR, TreeEntry.sha256 == sha256)
    )
    return session.scalar(job_commits.limit(1)) is not None
