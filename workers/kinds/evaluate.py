"""Job kind `evaluate`: modules by data sets, each figure kept with the commits it was measured on."""

from collections.abc import Mapping
from typing import Any

from hub.lora.core.evaluate import evaluate
from workers.runtime.work import Outcome, Work, module_name


def run(work: Work) -> Outcome:
    params = work.params
    arms: list[Mapping[str, Any] | None] = [*params["modules"]]
    if params["include_base"] or not arms:
        arms.insert(0, None)
    scores: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for source in params["datasets"]:
        examples = work.examples(source)[: params["limit"]]
        for arm in arms:
            name = module_name(arm) if arm else work.base.id
            work.progress.enter(f"{name} on {source['repo']}"[:40])
            measured = evaluate(
                work.base,
                work.module(arm) if arm else None,
                examples,
                template=params["template"],
                metrics=params["metrics"],
                max_new_tokens=params["max_new_tokens"],
                batch_size=16,
                seed=params["seed"],
                on_progress=work.progress,
            )
            for metric, estimate in measured.estimates.items():
                figures = {"metric": metric, "value": estimate.mean, "low": estimate.low, "high": estimate.high}
                where = {"dataset_path": source["path"], "template": params["template"], "examples": len(examples)}
                rows.append({"module": name, "dataset": source["repo"], **where, **figures})
                pins = {"commit_id": arm["commit"] if arm else None, "dataset_commit": source["commit"]}
                scores.append(
                    {"base_id": work.base.id, **pins, **where, **figures, "per_example": measured.values[metric]}
                )
    return Outcome(result={"scores": rows}, scores=scores)
