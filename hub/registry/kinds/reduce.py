"""The kind `reduce`: Compress to Impress."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field
from sqlalchemy.orm import Session

from hub.registry.jobs import Input, Submission
from hub.registry.kinds.common import Examples, Module, ResultRequest, Template, agree, pin_examples
from hub.registry.teams import Viewer


class ReduceRequest(ResultRequest):
    """Compress to Impress: make a base better at a task by cutting singular values of a few of its matrices (arXiv 2510.20800)."""

    kind: Literal["reduce"]
    base: str
    examples: Examples = Field(description="what the gradient and the trials are of; the paper takes 100")
    held_out: Examples | None = Field(None, description="what the report measures on; at least 100 for a claim")
    score: Literal["tail_taylor", "grad_sum", "neg_count"] = "tail_taylor"
    top: int = Field(5, ge=1, le=100, description="matrices that are tried")
    budget: int = Field(
        10, ge=1, le=1_000, description="cuts that are tried one by one; joining them may take as many trials again"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of the bootstrap; nothing else is drawn")
    template: Template = "chat"

    def named_modules(self) -> Sequence[Module]:
        return []

    def sources(self) -> Mapping[str, Examples]:
        held_out = {"held_out.jsonl": self.held_out} if self.held_out else {}
        return {"examples.jsonl": self.examples, **held_out}

    def with_sources(self, sources: Mapping[str, Examples]) -> Self:
        changed = {"examples": sources["examples.jsonl"], "held_out": sources.get("held_out.jsonl")}
        return self.model_copy(update=changed)

    def resolve(self, session: Session, viewer: Viewer) -> Submission:
        sources = {"examples": self.examples, "held_out": self.held_out}
        pinned = {role: pin_examples(session, viewer, source) for role, source in sources.items() if source}
        inputs = [Input(source["commit"], "dataset") for source in pinned.values()]
        namespace, visibility = self.target(session, viewer, [item.commit_id for item in inputs])
        return Submission(
            kind=self.kind,
            queue="gpu",
            params={
                "result": self.name,
                "base": agree(session, [], self.base),
                **pinned,
                **self.model_dump(include={"score", "top", "budget", "seed", "template"}),
            },
            inputs=inputs,
            namespace=namespace,
            visibility=visibility,
        )
