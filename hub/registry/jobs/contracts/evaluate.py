"""The kind `evaluate`: what a worker reads and what the job keeps. It publishes nothing, so it has no manifest."""

from collections.abc import Sequence

from hub.registry.datasets.examples import PinnedExamples
from hub.registry.jobs.contracts.common import BaseParams, PinnedModule, Result, ScoreRow
from hub.vocabulary import Metric


class EvaluateParams(BaseParams):
    modules: list[PinnedModule]
    datasets: list[PinnedExamples]
    include_base: bool = True
    metrics: list[Metric]
    limit: int = 500
    max_new_tokens: int = 32
    seed: int = 0

    @property
    def learnt(self) -> Sequence[PinnedExamples]:
        return self.datasets


class EvaluateResult(Result):
    scores: list[ScoreRow] = []
