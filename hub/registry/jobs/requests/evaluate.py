"""The kind `evaluate`: adapters by data sets."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field
from sqlalchemy.orm import Session

from hub.registry.access.viewer import Viewer
from hub.registry.datasets.examples import Examples, pin_examples
from hub.registry.jobs.contracts.evaluate import EvaluateParams
from hub.registry.jobs.queueing import Submission
from hub.registry.jobs.requests.common import (
    Adapter,
    Module,
    Request,
    common_template,
    inputs,
    resolve_base,
)
from hub.vocabulary import Metric, Template


class EvaluateRequest(Request):
    """Score adapters on data sets; the figures are kept with the commits."""

    kind: Literal["evaluate"]
    modules: list[Module] = Field(default=[], max_length=100)
    datasets: list[Examples] = Field(min_length=1, max_length=20)
    base: str | None = None
    include_base: bool = Field(True, description="also score the base alone")
    metrics: list[Metric] = Field(
        default=["exact_match", "target_loss"], min_length=1, description="what is measured of each answer"
    )
    limit: int = Field(500, ge=1, le=10_000, description="the first so many examples of each data set")
    max_new_tokens: int = Field(32, ge=1, le=1_024, description="where an answer ends at the latest")
    seed: int = Field(0, ge=0, lt=2**32, description="of the bootstrap")
    template: Template | None = Field(None, description="left out: the one the adapters were trained with, else chat")

    def named_modules(self) -> Sequence[Module]:
        return self.modules

    def sources(self) -> Mapping[str, Examples]:
        return {f"examples_{index}.jsonl": source for index, source in enumerate(self.datasets)}

    def with_sources(self, sources: Mapping[str, Examples]) -> Self:
        return self.model_copy(update={"datasets": list(sources.values())})

    def resolve(self, session: Session, viewer: Viewer, modules: Sequence[Adapter]) -> Submission:
        datasets = [pin_examples(session, viewer, source) for source in self.datasets]
        params = EvaluateParams(
            base=resolve_base(session, modules, self.base),
            modules=[module.pinned for module in modules],
            datasets=datasets,
            include_base=self.include_base,
            metrics=self.metrics,
            limit=self.limit,
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
            template=self.template or common_template(modules),
        )
        return Submission(self.kind, "interactive", params, inputs(modules, *datasets), viewer.namespace, "private")
