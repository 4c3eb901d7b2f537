"""Job kind `reduce`: a base with the cuts that suit a task, as an adapter; or a module made smaller. Measured before and after."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from hub.drawing import svg
from hub.lora.compose.report import SLACK, check_held_out, longest_target
from hub.lora.core import adapter
from hub.lora.core.adapter import Adapter, applied
from hub.lora.core.bases import as_stored
from hub.lora.core.evaluate import Scores, evaluate
from hub.lora.core.examples import Example
from hub.lora.core.provenance import surroundings
from hub.lora.reduce import factored
from hub.lora.reduce.as_adapter import as_adapter, merged_into_base
from hub.lora.reduce.gains import edited, matrices
from hub.lora.reduce.objective import has_choices
from hub.lora.reduce.scan import VARIANTS, Reduction, Scan, scan
from hub.lora.reduce.shrink import Shrink, shrink
from hub.registry.content.history import Parent
from hub.vocabulary import Metric
from workers.kinds.compose import dataset_template, input_of
from workers.results.cards import reduction_card
from workers.results.report import METRICS, paired_report, registered
from workers.runtime.work import Outcome, Work

SERVED = 512  # the largest rank that vLLM can be told to serve
FEW = 100
PER_TOKEN, PER_QUESTION = "nats per target token", "nats per choice between answers"
WORDS = {"base": "the base as it is", "module": "the module as it is"}


@dataclass(frozen=True)
class Made:
    """`rank` is the adapter's largest, None where no adapter was made; `found` is what the manifest says of the result, which is None
    where nothing helped; `scores` are those on the held-out examples; `spectra` are the singular values of each matrix that was cut,
    for the job's page."""

    written: bool
    found: dict[str, Any]
    scores: dict[str, Scores]
    rank: int | None = None
    spectra: Sequence[Mapping[str, Any]] = ()


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
    if made.written:
        text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        (work.out / "loraloom.json").write_text(text, encoding="utf-8")
        (work.out / "README.md").write_text(reduction_card(params, manifest), encoding="utf-8")
    datasets = {params[role]["commit"] for role in ("examples", "held_out") if role in params}
    modules = [Parent(params["module"]["commit"], "module")] if "module" in params else []
    return Outcome(
        result={
            **{key: manifest[key] for key in ("settings", "report", "warnings", *made.found)},
            "spectra": list(made.spectra),
        },
        folder=work.out if made.written else None,
        adapter=made.rank is not None,
        parents=modules + [Parent(commit, "dataset") for commit in sorted(datasets)],
        scores=registered(work, made.scores, "reduction"),
        message=f"Reduce {params['module']['repo'] if params['subject'] == 'module' else work.base.id}",
    )


def _reduced(
    work: Work, module: Adapter | None, examples: Sequence[Example], held_out: Sequence[Example] | None
) -> Made:
    params = work.params
    work.progress.enter("scan")
    with merged_into_base(work.base, module):
        settings = Scan(
            template=params["template"],
            variant=VARIANTS[params["variant"]],
            score=params["score"],
            top=params["top"],
            budget=params["budget"],
            seed=params["seed"],
        )
        reduction = scan(
            work.base,
            examples,
            settings,
            decompose=work.decompose,
            on_progress=work.progress,
        )
    found: dict[str, Any] = {
        "cuts": [asdict(cut) for cut in reduction.cuts],
        "loss": {
            "before": reduction.before,
            "after": reduction.loss,
            "unit": PER_QUESTION if has_choices(examples) else PER_TOKEN,
        },
        "trials": [asdict(trial) for trial in reduction.trials],
        "matrices": reduction.matrices,
    }
    if not reduction.cuts:
        return Made(False, found, {})
    work.progress.enter("write")
    rank = _write(work, reduction, module, found)
    spectra = _draw(work, reduction)
    scores = {}
    if held_out is not None:
        scores["base"] = _measured(work, "base", held_out)
        if module is not None:
            with applied(work.base.model, module):
                scores["module"] = _measured(work, "module", held_out)
        with merged_into_base(work.base, module), edited(matrices(work.base), reduction.cuts, work.decompose):
            scores["reduction"] = _measured(work, "reduction", held_out)
    return Made(True, found, scores, rank, spectra)


def _write(work: Work, reduction: Reduction, module: Adapter | None, found: dict[str, Any]) -> int | None:
    """Write the result in the form that was asked for; an adapter's largest rank."""
    # Of weights that were rounded to compute faster, the tails would be others than those of the base that users load.
    base, cuts = as_stored(work.base), reduction.cuts
    rank = None
    if work.params["form"] == "adapter":
        made = as_adapter(base, cuts, module, work.decompose)
        adapter.write(made, work.out, dtype=torch.float32)
        for cut in found["cuts"]:
            cut["adapter_rank"] = made.pairs[cut["path"]].rank
        rank = max(pair.rank for pair in made.pairs.values())
    elif work.params["form"] == "model":
        with merged_into_base(base, module), edited(matrices(base), cuts, work.decompose):
            base.model.save_pretrained(work.out)
        base.tokenizer.save_pretrained(work.out)
    else:
        found["size"] = asdict(factored.write(base, cuts, work.out, work.decompose))
    return rank


def _draw(work: Work, reduction: Reduction) -> list[dict[str, Any]]:
    """Pictures beside the card, and the spectra that they are drawn from."""
    layers, spectra = matrices(work.base), []
    for number, cut in enumerate(reduction.cuts, 1):
        sigma = work.decompose(layers[cut.path].weight).sigma.tolist()
        kept = max(1, int(cut.share * len(sigma)))
        spectra.append({"path": cut.path, "kept": kept, "values": [float(f"{value:.4g}") for value in sigma]})
        picture = svg.spectrum(cut.path, sigma, kept)
        (work.out / f"spectrum{number}.svg").write_text(svg.standalone(picture), encoding="utf-8")
    if reduction.matrices:
        drawn = svg.gains(reduction.matrices, [cut.path for cut in reduction.cuts])
        (work.out / "gains.svg").write_text(svg.standalone(drawn), encoding="utf-8")
    return spectra


def _smaller(work: Work, module: Adapter, examples: Sequence[Example], held_out: Sequence[Example] | None) -> Made:
    params = work.params
    work.progress.enter("drop components")
    result = shrink(
        work.base,
        module,
        examples,
        Shrink(template=params["template"], order=params["score"], loss_budget=params["loss_budget"]),
        on_progress=work.progress,
    )
    adapter.write(result.adapter, work.out, dtype=torch.float32)
    scores = {}
    if held_out is not None:
        for name, each in (("base", None), ("module", module), ("reduction", result.adapter)):
            with applied(work.base.model, each):
                scores[name] = _measured(work, name, held_out)
    ranks = {path: pair.rank for path, pair in result.adapter.pairs.items()}
    found: dict[str, Any] = {
        "components": {"given": result.given, "kept": result.components},
        "parameters": {"given": _parameters(module), "kept": _parameters(result.adapter)},
        "loss": {"before": result.before, "after": result.loss, "unit": PER_TOKEN},
        "trials": [asdict(trial) for trial in result.trials],
        "ranks": ranks,
    }
    return Made(True, found, scores, max(ranks.values()))


def _parameters(given: Adapter) -> int:
    return sum(pair.a.numel() + pair.b.numel() for pair in given.pairs.values())


def _measured(work: Work, name: str, held_out: Sequence[Example]) -> Scores:
    work.progress.enter(f"measure {name}")
    return evaluate(
        work.base,
        None,
        held_out,
        template=work.params["template"],
        metrics=_metrics(held_out),
        max_new_tokens=longest_target(work.base, held_out) + SLACK,
        seed=work.params["seed"],
        on_progress=work.progress,
    )


def _metrics(held_out: Sequence[Example]) -> tuple[Metric, ...]:
    """What is measured; a verdict is of the first. A question with choices is answered by the likeliest of them."""
    return ("choice", *METRICS) if has_choices(held_out) else METRICS


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
    if not made.written:
        found.append("No cut that was tried lowers the loss, so there is no result: it is best as it is.")
    if made.rank is not None and made.rank > SERVED:
        found.append(
            f"The adapter's rank is {made.rank}; serving engines refuse more than {SERVED}. Merge it into the base, or ask for "
            "the form model."
        )
    if "held_out" not in params:
        found.append("No held-out examples were given, so nothing is known of how good the result is.")
    return found


def _manifest(work: Work, made: Made, examples: int, warnings: Sequence[str]) -> dict[str, Any]:
    """Everything that made this adapter, so that the same manifest gives the same bytes. No times, no job ids."""
    params = work.params
    settings = {
        key: params[key]
        for key in ("subject", "form", "variant", "score", "top", "budget", "loss_budget", "seed")
        if key in params
    }
    report: Mapping[str, Any] | None = None
    if made.scores:
        metrics = tuple(made.scores["reduction"].values)
        report = paired_report(made.scores, "reduction", WORDS, {}, seed=params["seed"], metrics=metrics)
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
