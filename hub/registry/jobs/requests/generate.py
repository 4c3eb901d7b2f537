"""The kind `generate`: one prompt, with and without an adapter."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field
from sqlalchemy.orm import Session

from hub.registry.access.viewer import Viewer
from hub.registry.datasets.examples import Examples
from hub.registry.jobs.contracts.generate import GenerateParams
from hub.registry.jobs.queueing import Submission
from hub.registry.jobs.requests.common import (
    Adapter,
    Module,
    Request,
    common_template,
    inputs,
    resolve_base,
)
from hub.vocabulary import Template


class GenerateRequest(Request):
    """Answer a prompt with the base alone and with an adapter, side by side. The answer is kept for 24 hours."""

    kind: Literal["generate"]
    prompt: str = Field(min_length=1, max_length=20_000)
    module: Module | None = None
    base: str | None = None
    max_new_tokens: int = Field(64, ge=1, le=1_024)
    template: Template | None = None

    def named_modules(self) -> Sequence[Module]:
        return [self.module] if self.module else []

    def sources(self) -> Mapping[str, Examples]:
        return {}

    def with_sources(self, sources: Mapping[str, Examples]) -> Self:
        return self

    def resolve(self, session: Session, viewer: Viewer, modules: Sequence[Adapter]) -> Submission:
        params = GenerateParams(
            base=resolve_base(session, modules, self.base),
            module=modules[0].pinned if modules else None,
            prompt=self.prompt,
            max_new_tokens=self.max_new_tokens,
            template=self.template or common_template(modules),
        )
        return Submission(self.kind, "interactive", params, inputs(modules), viewer.namespace, "private")
