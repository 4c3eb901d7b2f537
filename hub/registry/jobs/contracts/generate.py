"""The kind `generate`: what a worker reads and what the job keeps for a day. It publishes nothing, so it has no manifest."""

from hub.formats.report import Absent
from hub.registry.jobs.contracts.common import BaseParams, Contract, PinnedModule, Result
from hub.vocabulary import Template


class GenerateParams(BaseParams):
    prompt: str
    module: PinnedModule | None = None
    max_new_tokens: int = 64


class Answers(Contract):
    """Of the base alone and, where an adapter was named, of the base with it."""

    base: str
    adapter: Absent[str] = None


class GenerateResult(Result):
    answers: Answers
    template: Template
