"""Job kind `compose`: weigh modules on the examples, measure the result beside its controls, write adapter, card and manifest."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from hub.lora.compose.composition import Composition, compose_at_weights
from hub.lora.compose.controls import Control, ControlSettings, full, quick
from hub.lora.compose.gradient import GradientSearch, compose_by_gradient
from hub.lora.compose.merges import merge_modules
from hub.lora.compose.report import Report, check_held_out, report
from hub.lora.compose.search import Search, compose
from hub.lora.compose.train_further import Fit, FurtherTraining, train_further
from hub.lora.core import adapter
from hub.lora.core.adapter import Adapter, applied, largest_rank
from hub.lora.core.examples import Example
from hub.lora.core.losses import encode_batches, mean_loss
from hub.lora.core.provenance import surroundings
from hub.registry.content.history import Parent
from hub.registry.inspection.model_card import parse_card
from hub.vocabulary import MERGES, ComposeArm
from workers.results.cards import composition_card
from workers.runtime.work import Outcome, Work, module_name


def run(work: Work) -> Outcome:
    params = work.params
    examples = work.examples(params["examples"]) if "examples" in params else []
    held_out = work.examples(params["held_out"]) if "held_out" in params else None
    if held_out is not None:
        check_held_out(examples, held_out)  # before the search, not after it
    pinned, others = _chosen(work, examples)
    modules = [work.module(each) for each in pinned]
    warnings = template_warnings(work, pinned)
    if examples:
        warnings += few_examples_warnings(len(examples))

    work.progress.enter("search")
    composition = _composed(work, modules, examples)
    if not any(composition.weights.values()):
        warnings.append("The search found nothing better than the base alone: all weights are zero.")
    fit = _tuned(work, modules, composition, examples) if params["tune"] else None
    measured = None
    if held_out is not None:
        arms = _arms(work, modules, others, composition, fit, examples)
        work.progress.enter("report")
        measured = report(
            work.base,
            arms,
            held_out,
            template=params["template"],
            examples=len(examples),
            seed=params["seed"],
            on_progress=work.progress,
        )
    else:
        warnings.append("No held-out examples were given, so nothing is known of how good the result is.")
    manifest = describe(work, pinned, composition, fit, measured, warnings)
    write(work, fit.adapter if fit else composition.adapter, manifest)
    return Outcome(
        result={
            "weights": manifest["weights"],
            "report": asdict(measured) if measured else None,
            "warnings": warnings,
            "trace": [asdict(evaluation) for evaluation in composition.trace],
            "evaluations": composition.evaluations,
            "search_seconds": composition.seconds,
            "by_layer": composition.by_layer,
            "truncation_error": composition.truncation_error,
            "tune": manifest["tune"],
        },
        folder=work.out,
        parents=parents(params, pinned, manifest["weights"]),
        scores=_scores(work, measured) if measured else (),
        message=f"Compose {len(modules)} modules",
    )


Pinned = Mapping[str, Any]


def _chosen(work: Work, examples: Sequence[Example]) -> tuple[list[Pinned], list[Pinned]]:
    """(the modules that take part, the rest of the pool): all of them, or the best ones where the request leaves the choice to us."""
    pool: list[Pinned] = work.params["modules"]
    count = work.params.get("choose")
    if count is None:
        return pool, []
    work.progress.enter("choose")
    batches = encode_batches(work.base, examples, work.params["template"])
    losses = []
    for pinned in pool:
        # One at a time, so that a pool of hundreds needs the memory of one.
        with applied(work.base.model, work.module(pinned)):
            losses.append(mean_loss(work.base, batches))
        work.progress(len(losses), len(pool), {"loss": losses[-1], "best": min(losses)})
    order = sorted(range(len(pool)), key=losses.__getitem__)
    best = sorted(order[:count])
    return [pool[index] for index in best], [pool[index] for index in sorted(order[count:])]


def _composed(work: Work, modules: Sequence[Adapter], examples: Sequence[Example]) -> Composition:
    params = work.params
    if params["search"] == "none":
        return _merged(work, modules)
    shared: dict[str, Any] = {
        name: params[name] for name in ("form", "template", "budget", "patience", "seconds", "bound", "l1", "rank")
    }
    if params["search"] == "gradient":
        gradient = GradientSearch(per_layer=params["per_layer"], **shared)
        return compose_by_gradient(work.base, modules, examples, gradient, on_progress=work.progress)
    search = Search(optimizer=params["optimizer"], population=params["population"], seed=params["seed"], **shared)
    return compose(work.base, modules, examples, search, on_progress=work.progress)


def _merged(work: Work, modules: Sequence[Adapter]) -> Composition:
    params = work.params
    if params["form"] not in MERGES:
        return compose_at_weights(work.base, modules, params["weights"], form=params["form"], rank=params["rank"])
    return merge_modules(
        work.base,
        modules,
        params["weights"],
        params["form"],
        density=params["density"],
        rank=params["rank"],
        seed=params["seed"],
    )


def _tuned(work: Work, modules: Sequence[Adapter], composition: Composition, examples: Sequence[Example]) -> Fit:
    work.progress.enter("tune")
    training = FurtherTraining(rank=largest_rank(modules), seed=work.params["seed"], **work.params["tune"])
    return train_further(
        work.base,
        composition.adapter,
        examples,
        training,
        template=work.params["template"],
        on_progress=work.progress,
    )


def _arms(
    work: Work,
    modules: Sequence[Adapter],
    others: Sequence[Pinned],
    composition: Composition,
    fit: Fit | None,
    examples: Sequence[Example],
) -> dict[ComposeArm, Control]:
    """What the report measures: the controls that were asked for, and the composition."""
    params, form = work.params, work.params["form"]
    work.progress.enter("controls")
    settings = ControlSettings(
        form="sum" if form in MERGES else form,
        template=params["template"],
        seed=params["seed"],
        bound=params["bound"],
    )
    if params["controls"] == "full":
        drawn = random.Random(params["seed"]).sample(others, min(len(modules), len(others)))  # noqa: S311
        arms = full(
            work.base,
            modules,
            examples,
            settings,
            others=[work.module(pinned) for pinned in drawn],
            search=lambda chosen: _composed(work, chosen, examples).adapter,
            on_progress=work.progress,
        )
    else:
        arms = quick(work.base, modules, examples, settings, on_progress=work.progress)
    made_by = {"form": form, "weights": composition.weights}
    if fit is None:
        return {**arms, "composition": Control(composition.adapter, made_by)}
    tuned = Control(fit.adapter, {**made_by, "tune": fit.settings})
    return {**arms, "untuned": Control(composition.adapter, made_by), "composition": tuned}


def parents(params: Mapping[str, Any], modules: Sequence[Pinned], weights: Mapping[str, float]) -> list[Parent]:
    by_commit = {pinned["commit"]: weights[module_name(pinned)] for pinned in modules}
    lineage = [Parent(commit, "module", weight) for commit, weight in by_commit.items()]
    datasets = {params[role]["commit"] for role in ("examples", "held_out") if role in params}
    return lineage + [Parent(commit, "dataset") for commit in sorted(datasets)]


def template_warnings(work: Work, modules: Sequence[Pinned]) -> list[str]:
    """A module or data set made with another prompt template than this search uses sees prompts that it does not know."""
    used = work.params["template"]
    made_with = {module_name(pinned): pinned["template"] for pinned in modules}
    for role in ("examples", "held_out"):
        if role in work.params:
            pinned = work.params[role]
            made_with[pinned["repo"]] = dataset_template(work, pinned)
    return [
        f"{name} was made with the prompt template {template!r}, and this composition uses {used!r}."
        for name, template in made_with.items()
        if template not in (None, used)
    ]


def dataset_template(work: Work, pinned: Mapping[str, Any]) -> str | None:
    """The template that a data set's card names as `prompt_template`, if it has a card and says so."""
    path = work.fetch(pinned["commit"]) / "README.md"
    if not path.exists():
        return None
    value = parse_card(path.read_bytes()).front.get("prompt_template")
    return value if isinstance(value, str) else None


def few_examples_warnings(count: int) -> Sequence[str]:
    if count >= 5:
        return []
    return [f"Only {count} examples decide the weights; LoraHub's own experiments used five."]


def describe(
    work: Work,
    modules: Sequence[Pinned],
    composition: Composition,
    fit: Fit | None,
    measured: Report | None,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """The manifest: everything that made this adapter, so that the same manifest gives the same bytes. No times, no job ids."""
    params = work.params
    return {
        "method": "lorahub",
        "template": params["template"],
        **surroundings(work.base),
        "inputs": {
            "modules": [input_of(work, pinned) for pinned in modules],
            **{role: input_of(work, params[role]) for role in ("examples", "held_out") if role in params},
        },
        "settings": composition.settings,
        "weights": composition.weights,
        "objective": composition.objective,
        "loss": composition.loss,
        "by_layer": composition.by_layer,
        "truncation_error": composition.truncation_error,
        "tune": {**fit.settings, "losses": fit.losses, "truncation_error": fit.truncation_error} if fit else None,
        "report": _untimed(measured) if measured else None,
        "warnings": list(warnings),
    }


def _scores(work: Work, measured: Report) -> list[dict[str, Any]]:
    """The figures of the result, whose commit the runner adds, and of the base, as the registry keeps them."""
    source = work.params["held_out"]
    what = {
        "base_id": work.base.id,
        "dataset_commit": source["commit"],
        "dataset_path": source["path"],
        "template": work.params["template"],
        "examples": measured.held_out,
    }
    arms = {arm.name: arm for arm in measured.arms}
    return [
        {**what, **pins, "metric": metric, "value": found.mean, "low": found.low, "high": found.high}
        for arm, pins in ((arms["composition"], {}), (arms["base"], {"commit_id": None}))
        for metric, found in (("exact_match", arm.exact_match), ("target_loss", arm.target_loss))
    ]


def _untimed(measured: Report) -> dict[str, Any]:
    found = asdict(measured)
    for arm in found["arms"]:
        del arm["seconds_an_answer"]
    return found


def input_of(work: Work, pinned: Mapping[str, Any]) -> dict[str, Any]:
    hashes = work.hashes(pinned["commit"])
    prefix = pinned.get("path") or pinned.get("folder", "")
    named = {key: pinned[key] for key in ("repo", "commit", "folder", "path") if key in pinned}
    return {**named, "files": {path: digest for path, digest in hashes.items() if path.startswith(prefix)}}


def write(work: Work, made: Adapter, manifest: Mapping[str, Any]) -> None:
    adapter.write(made, work.out, dtype=torch.float32)
    (work.out / "loraloom.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (work.out / "README.md").write_text(composition_card(work.params, manifest), encoding="utf-8")
