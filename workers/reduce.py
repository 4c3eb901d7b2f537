"""Job kind `reduce`: score every cut from one gradient, try the best, measure before and after, hand back an adapter."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from hub.lora import adapter
from hub.lora.adapter import Adapter
from hub.lora.bases import as_stored
from hub.lora.evaluate import Scores, evaluate
from hub.lora.examples import Example
from hub.lora.provenance import surroundings
from hub.lora.reduce import Reduction, edited, matrices, scan
from hub.lora.reduced import as_adapter
from hub.lora.report import SLACK, check_held_out, longest_target
from hub.registry.repos import Parent
from workers.card import reduction_card
from workers.compose import dataset_template, input_of
from workers.paired import METRICS, paired_report
from workers.work import Outcome, Work

SERVED = 512  # the largest rank that vLLM can be told to serve


def run(work: Work) -> Outcome:
    params = work.params
    examples = work.examples(params["examples"])
    held_out = work.examples(params["held_out"]) if "held_out" in params else None
    if held_out is not None:
        check_held_out(examples, held_out)
    work.progress.enter("scan")
    reduction = scan(
        work.base,
        examples,
        template=params["template"],
        score=params["score"],
        top=params["top"],
        budget=params["budget"],
        on_progress=work.progress,
    )
    # Of weights that were rounded to compute faster, the tails would be others than those of the base that users load.
    made = as_adapter(as_stored(work.base), reduction.cuts) if reduction.cuts else None
    scores = _measured(work, reduction, held_out) if held_out is not None and made else {}
    warnings = _warnings(work, examples, made)
    manifest = _manifest(work, reduction, made, scores, warnings, len(examples))
    if made is not None:
        adapter.write(made, work.out, dtype=torch.float32)
        text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        (work.out / "loraloom.json").write_text(text, encoding="utf-8")
        (work.out / "README.md").write_text(reduction_card(params, manifest), encoding="utf-8")
    datasets = {params[role]["commit"] for role in ("examples", "held_out") if role in params}
    return Outcome(
        result={key: manifest[key] for key in ("settings", "cuts", "loss", "trials", "matrices", "report", "warnings")},
        folder=work.out if made is not None else None,
        parents=[Parent(commit, "dataset") for commit in sorted(datasets)],
        message=f"Reduce {len(reduction.cuts)} matrices of {work.base.id}",
    )


def _measured(work: Work, reduction: Reduction, held_out: Sequence[Example]) -> dict[str, Scores]:
    scores = {}
    for name, cuts in (("base", ()), ("reduction", reduction.cuts)):
        work.progress.enter(f"measure {name}")
        with edited(matrices(work.base), cuts):
            scores[name] = evaluate(
                work.base,
                None,
                held_out,
                template=work.params["template"],
                metrics=METRICS,
                max_new_tokens=longest_target(work.base, held_out) + SLACK,
                seed=work.params["seed"],
                on_progress=work.progress,
            )
    return scores


def _warnings(work: Work, examples: Sequence[Example], made: Adapter | None) -> list[str]:
    found = []
    for role in ("examples", "held_out"):
        made_with = dataset_template(work, work.params[role]) if role in work.params else None
        if made_with not in (None, work.params["template"]):
            found.append(
                f"{work.params[role]['repo']} was made with the prompt template {made_with!r}, not {work.params['template']!r}."
            )
    if len(examples) < 100:
        found.append(f"Only {len(examples)} examples decide the cuts; the paper takes 100.")
    if made is None:
        found.append("No cut that was tried lowers the loss, so there is no adapter: the base is best as it is.")
    else:
        rank = max(pair.rank for pair in made.pairs.values())
        if rank > SERVED:
            found.append(
                f"The adapter's rank is {rank}; serving engines refuse more than {SERVED}. Merge it into the base."
            )
    if "held_out" not in work.params:
        found.append("No held-out examples were given, so nothing is known of how good the result is.")
    return found


def _manifest(
    work: Work,
    reduction: Reduction,
    made: Adapter | None,
    scores: Mapping[str, Scores],
    warnings: Sequence[str],
    examples: int,
) -> dict[str, Any]:
    """Everything that made this adapter, so that the same manifest gives the same bytes. No times, no job ids."""
    params = work.params
    ranks = {path: pair.rank for path, pair in made.pairs.items()} if made else {}
    return {
        "method": "reduction",
        "template": params["template"],
        **surroundings(work.base),
        "inputs": {role: input_of(work, params[role]) for role in ("examples", "held_out") if role in params},
        "settings": {**{key: params[key] for key in ("score", "top", "budget", "seed")}, "examples": examples},
        "cuts": [{**asdict(cut), "adapter_rank": ranks[cut.path]} for cut in reduction.cuts],
        "loss": {"before": reduction.before, "after": reduction.loss},
        "trials": [asdict(trial) for trial in reduction.trials],
        "matrices": reduction.matrices,
        "report": paired_report(scores, "reduction", {"base": "the base as it is"}, {}, seed=params["seed"])
        if scores
        else None,
        "warnings": list(warnings),
    }
