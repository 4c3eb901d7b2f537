"""Examples by name: a file of a data set at a revision, or rows written out in a request; pinned to a commit."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from sqlalchemy.orm import Session

from hub.registry.access.viewer import Viewer
from hub.registry.content import repos
from hub.registry.platform.errors import InvalidInput
from hub.vocabulary import System


class AmbiguousFile(InvalidInput):
    code = "ambiguous_file"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*")
    @classmethod
    def storable(cls, value: Any) -> Any:
        if isinstance(value, str) and "\0" in value:
            raise ValueError("a NUL character cannot be kept; leave it out")
        return value


class ExampleText(Strict):
    input: str = Field(min_length=1, max_length=20_000)
    target: str = Field(min_length=1, max_length=20_000)
    choices: list[str] = Field(default=[], max_length=50)
    system: System | None = Field(None, description="fast (1) or slow (2) thinking, for jobs of the kind par")


class Examples(Strict):
    """Examples: either written out here, or a JSONL file of a data set at a revision, which is pinned to its commit."""

    inline: list[ExampleText] | None = Field(None, min_length=1, max_length=5_000)
    dataset: str | None = Field(None, description="namespace/name of a data set repo")
    revision: str = "main"
    path: str | None = Field(None, description="the .jsonl file; may be left out where there is only one")

    @model_validator(mode="after")
    def one_source(self) -> "Examples":
        if (self.inline is None) == (self.dataset is None):
            raise ValueError("give either inline examples or a data set, not both and not neither")
        return self


class PinnedExamples(BaseModel):
    """A JSONL file of a data set at a commit, as a job keeps it."""

    model_config = ConfigDict(frozen=True)

    repo: str
    commit: str
    path: str


def pin_examples(session: Session, viewer: Viewer, source: Examples) -> PinnedExamples:
    repo = repos.find(session, viewer, "dataset", source.dataset or "")
    commit = repos.resolve(session, repo, source.revision)
    names = [entry.path for entry in repos.files(session, commit) if entry.path.endswith(".jsonl")]
    if source.path is None and len(names) != 1:
        raise AmbiguousFile(
            f"{repo.full_name} has {len(names)} .jsonl files ({', '.join(names) or 'none'}); name one as `path`."
        )
    path = source.path or names[0]
    repos.file(session, commit, path)
    return PinnedExamples(repo=repo.full_name, commit=commit.id, path=path)
