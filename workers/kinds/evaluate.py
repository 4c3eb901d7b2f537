"""Job kind `evaluate`: adapters by data sets, each figure kept with the commits it was measured on."""

from hub.lora.core.evaluate import evaluate
from hub.registry.jobs.contracts.common import PinnedModule, ScoreRow
from hub.registry.jobs.contracts.evaluate import EvaluateParams, EvaluateResult
from hub.registry.library.scores import Measurement
from workers.results.steps import measurements
from workers.runtime.work import BaseWork, Outcome


def run(work: BaseWork[EvaluateParams]) -> Outcome[EvaluateResult]:
    params = work.params
    arms: list[PinnedModule | None] = [*params.modules]
    if params.include_base or not arms:
        arms.insert(0, None)
    scores: list[tuple[str | None, Measurement]] = []
    rows: list[ScoreRow] = []
    for source in params.datasets:
        examples = work.examples(source)[: params.limit]
        for arm in arms:
            name = arm.name if arm else work.base.id
            work.progress.enter(f"{name} on {source.repo}"[:40])
            measured = evaluate(
                work.base,
                work.module(arm) if arm else None,
                examples,
                template=params.template,
                metrics=params.metrics,
                max_new_tokens=params.max_new_tokens,
                batch_size=16,
                seed=params.seed,
                on_progress=work.progress,
            )
            for figure in measurements(measured, base_id=work.base.id, source=source, template=params.template):
                scores.append((arm.commit if arm else None, figure))
                rows.append(ScoreRow.model_validate({**vars(figure), "module": name, "dataset": source.repo}))
    return Outcome(EvaluateResult(scores=rows), other_scores=scores)
