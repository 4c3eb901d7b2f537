"""What a commit's loraloom.json says that was measured. Anybody may upload such a file, so it is read as a stranger's."""

from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, ValidationError, model_validator
from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.formats.errors import FormatError
from hub.formats.strict_json import load_json
from hub.registry.inspection.folder import MAX_SIDECAR_BYTES, SIDECAR
from hub.registry.models.content import Commit, TreeEntry
from hub.registry.platform.storage import Storage

Number = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=1_000)]


class _Estimate(BaseModel):
    mean: Number
    low: Number
    high: Number


class _Figures(BaseModel):
    exact_match: _Estimate | None = None
    contains: _Estimate | None = None
    numeric: _Estimate | None = None
    choice: _Estimate | None = None
    target_loss: _Estimate | None = None

    def measured(self) -> set[str]:
        return {name for name in _Figures.model_fields if getattr(self, name)}


class _MadeBy(BaseModel):
    module: Text | None = None


class _Arm(_Figures):
    name: Text
    made_by: _MadeBy = _MadeBy()


class _Comparison(_Figures):
    against: Text


class _Report(BaseModel):
    held_out: int
    verdict: Text
    arms: list[_Arm] = Field(min_length=1, max_length=50)
    comparisons: list[_Comparison] = Field(max_length=50)

    @model_validator(mode="after")
    def alike(self) -> Self:
        metrics = self.arms[0].measured()
        if not metrics or any(arm.measured() != metrics for arm in self.arms):
            raise ValueError("every arm must be measured, and by the same metrics")
        return self


@dataclass(frozen=True)
class Told:
    """`report` as a job's result has it. `measured_here`: a job of this hub wrote that very file for this repo."""

    report: dict[str, Any]
    measured_here: bool


def report(session: Session, storage: Storage, commit: Commit) -> Told | None:
    """The report in the commit's loraloom.json; None where there is none, or none that can be read."""
    entry = session.get(TreeEntry, (commit.tree, SIDECAR))
    if entry is None or entry.size > MAX_SIDECAR_BYTES:
        return None
    try:
        told = load_json(storage.read(entry.sha256, 0, entry.size), SIDECAR, "bad_sidecar").get("report")
        found = _Report.model_validate(told).model_dump(exclude_none=True)
    except (FormatError, ValidationError):
        return None
    return Told(found, _written_here(session, commit, entry.sha256))


def _written_here(session: Session, commit: Commit, sha256: str) -> bool:
    """A repair or an edit of the card makes a commit of its own, which keeps what the job wrote."""
    made = (
        select(Commit.id)
        .join(TreeEntry, TreeEntry.tree == Commit.tree)
        .where(Commit.repo_id == commit.repo_id, Commit.job_id.is_not(None))
        .where(TreeEntry.path == SIDECAR, TreeEntry.sha256 == sha256)
    )
    return session.scalar(made.limit(1)) is not None
