"""Job kind `reduce`: a base with the cuts that suit a task, as an adapter; or a module made smaller. Measured before and after."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from hub.lora import adapter
from hub.lora.adapter import Adapter, applied
from hub.lora.bases import as_stored
from hub.lora.evaluate import Scores, evaluate
from hub.lora.examples import Example
from hub.lora.provenance import surroundings
from hub.lora.reduce import edited, matrices
from hub.lora.reduced import as_adapter, merged
from hub.lora.report import SLACK, check_held_out, longest_target
from hub.lora.scan import VARIANTS, scan
from hub.lora.smaller import smaller
from hub.registry.repos import Parent
from workers.card import reduction_card
from workers.compose import dataset_template, input_of
from workers.paired import METRICS, paired_report, registered
from workers.work import Outcome, Work

SERVED = 512  # the largest rank that vLLM can be told to serve
FEW = 100
WORDS = {"base": "the base as it is", "module": "the module as it is"}


@dataclass(frozen=True)
class Made:
    """`adapter` is None where nothing helped; `found` is what the manifest says of it, `scores` are those on the held-out examples."""

    adapter: Adapter | None
    found: dict[str, Any]
    scores: dict[str, Scores]


def run(work: Work) -> Outcome:
    params = work.params
    examples = work.examples(params["examples"])
    held_out = work.examples(params["held_out"]) if "held_out" in params else None
    if held_out is not None:
        check_held_out(examples, held_out)
    module = work.module(params["module"]) if "module" in params else None
    if params["subject"] == "module" and module is not None:
        made = _smaller(work, module, examples, held_out)
    else:
        made = _reduced(work, module, examples, held_out)
    manifest = _manifest(work, made, len(examples), _warnings(work, made, len(examples)))
    if made.adapter is not None:
        adapter.write(made.adapter, work.out, dtype=torch.float32)
        text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        (work.out / "loraloom.json").write_text(text, encoding="utf-8")
        (work.out / "README.md").write_text(reduction_card(params, manifest), encoding="utf-8")
    datasets = {params[role]["commit"] for role in ("examples", "held_out") if role in params}
    modules = [Parent(params["module"]["commit"], "module")] if "module" in params else []
    return Outcome(
        result={key: manifest[key] for key in ("settings", "report", "warnings", *made.found)},
        folder=work.out if made.adapter is not None else None,
        parents=modules + [Parent(commit, "dataset") for commit in sorted(datasets)],
        scores=registered(work, made.scores, "reduction") if made.adapter is not None else [],
        message=f"Reduce {params['module']['repo'] if params['subject'] == 'module' else work.base.id}",
    )


def _reduced(
    work: Work, module: Adapter | None, examples: Sequence[Example], held_out: Sequence[Example] | None
) -> Made:
    params = work.params
    work.progress.enter("scan")
    with merged(work.base, module):
        reduction = scan(
            work.base,
            examples,
            template=params["template"],
            variant=VARIANTS[params["variant"]],
            score=params["score"],
            top=params["top"],
            budget=params["budget"],
            seed=params["seed"],
            decompose=work.decompose,
            on_progress=work.progress,
        )
    # Of weights that were rounded to compute faster, the tails would be others than those of the base that users load.
    made = as_adapter(as_stored(work.base), reduction.cuts, module, work.decompose) if reduction.cuts else None
    scores = {}
    if made is not None and held_out is not None:
        scores["base"] = _measured(work, "base", held_out)
        if module is not None:
            with applied(work.base.model, module):
                scores["module"] = _measured(work, "module", held_out)
        with merged(work.base, module), edited(matrices(work.base), reduction.cuts, work.decompose):
            scores["reduction"] = _measured(work, "reduction", held_out)
    ranks = {path: pair.rank for path, pair in made.pairs.items()} if made else {}
    found = {
        "cuts": [{**asdict(cut), "adapter_rank": ranks[cut.path]} for cut in reduction.cuts],
        "loss": {"before": reduction.before, "after": reduction.loss},
        "trials": [asdict(trial) for trial in reduction.trials],
        "matrices": reduction.matrices,
    }
    return Made(made, found, scores)


def _smaller(work: Work, module: Adapter, examples: Sequence[Example], held_out: Sequence[Example] | None) -> Made:
    params = work.params
    work.progress.enter("drop components")
    result = smaller(
        work.base,
        module,
        examples,
        template=params["template"],
        order=params["score"],
        loss_budget=params["loss_budget"],
        on_progress=work.progress,
    )
    scores = {}
    if held_out is not None:
        for name, each in (("base", None), ("module", module), ("reduction", result.adapter)):
            with applied(work.base.model, each):
                scores[name] = _measured(work, name, held_out)
    found = {
        "components": {"given": result.given, "kept": result.components},
        "parameters": {"given": _parameters(module), "kept": _parameters(result.adapter)},
        "loss": {"before": result.before, "after": result.loss},
        "trials": [asdict(trial) for trial in result.trials],
        "ranks": {path: pair.rank for path, pair in result.adapter.pairs.items()},
    }
    return Made(result.adapter, found, scores)


def _parameters(given: Adapter) -> int:
    return sum(pair.a.numel() + pair.b.numel() for pair in given.pairs.values())


def _measured(work: Work, name: str, held_out: Sequence[Example]) -> Scores:
    work.progress.enter(f"measure {name}")
    return evaluate(
        work.base,
        None,
        held_out,
        template=work.params["template"],
        metrics=METRICS,
        max_new_tokens=longest_target(work.base, held_out) + SLACK,
        seed=work.params["seed"],
        on_progress=work.progress,
    )


def _warnings(work: Work, made: Made, examples: int) -> list[str]:
    params, found = work.params, []
    for role in ("examples", "held_out"):
        made_with = dataset_template(work, params[role]) if role in params else None
        if made_with not in (None, params["template"]):
            found.append(
                f"{params[role]['repo']} was made with the prompt template {made_with!r}, not {params['template']!r}."
            )
    if examples < FEW:
        found.append(f"Only {examples} examples decide what goes; the paper takes {FEW}.")
    if made.adapter is None:
        found.append("No cut that was tried lowers the loss, so there is no adapter: it is best as it is.")
    else:
        rank = max(pair.rank for pair in made.adapter.pairs.values())
        if rank > SERVED:
            found.append(
                f"The adapter's rank is {rank}; serving engines refuse more than {SERVED}. Merge it into the base."
            )
    if "held_out" not in params:
        found.append("No held-out examples were given, so nothing is known of how good the result is.")
    return found


def _manifest(work: Work, made: Made, examples: int, warnings: Sequence[str]) -> dict[str, Any]:
    """Everything that made this adapter, so that the same manifest gives the same bytes. No times, no job ids."""
    params = work.params
    settings = {
        key: params[key]
        for key in ("subject", "variant", "score", "top", "budget", "loss_budget", "seed")
        if key in params
    }
    report: Mapping[str, Any] | None = None
    if made.scores:
        report = paired_report(made.scores, "reduction", WORDS, {}, seed=params["seed"])
    return {
        "method": "reduction",
        "template": params["template"],
        **surroundings(work.base),
        "inputs": {role: input_of(work, params[role]) for role in ("module", "examples", "held_out") if role in params},
        "settings": {**settings, "examples": examples},
        **made.found,
        "report": report,
        "warnings": list(warnings),
    }
