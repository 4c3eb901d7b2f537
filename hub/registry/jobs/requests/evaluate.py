"""The kind `evaluate`: modules by data sets."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field
from sqlalchemy.orm import Session

from hub.registry.access.viewer import Viewer
from hub.registry.datasets.examples import Examples, pin_examples
from hub.registry.jobs.queueing import Input, Submission
from hub.registry.jobs.requests.common import Module, Request, agree, common_template, pin_module, without_facts
from hub.vocabulary import Metric, Template


class EvaluateRequest(Request):
    """Score modules on data sets; the figures are kept with the commits."""

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
    template: Template | None = Field(None, description="left out: the one the modules were trained with, else chat")

    def named_modules(self) -> Sequence[Module]:
        return self.modules

    def sources(self) -> Mapping[str, Examples]:
        return {f"examples_{index}.jsonl": source for index, source in enumerate(self.datasets)}

    def with_sources(self, sources: Mapping[str, Examples]) -> Self:
        return self.model_copy(update={"datasets": list(sources.values())})

    def resolve(self, session: Session, viewer: Viewer) -> Submission:
        modules = [pin_module(session, viewer, module) for module in self.modules]
        datasets = [pin_examples(session, viewer, source) for source in self.datasets]
        inputs = [Input(module["commit"], "module") for module in modules]
        inputs += [Input(source["commit"], "dataset") for source in datasets]
        settings = self.model_dump(include={"metrics", "limit", "max_new_tokens", "include_base", "seed"})
        return Submission(
            kind=self.kind,
            queue="interactive",
            params={
                "base": agree(session, modules, self.base),
                "modules": [without_facts(module) for module in modules],
                "datasets": datasets,
                **settings,
                "template": self.template or common_template(modules),
            },
            inputs=inputs,
            namespace=viewer.namespace,
            visibility="private",
        )
