"""Job kind `compose`: weigh modules on the examples, measure the result beside its controls, write adapter, card and manifest."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from hub.lora import adapter
from hub.lora.compose import Composition, compose
from hub.lora.provenance import surroundings
from hub.lora.report import Report, check_held_out, report
from hub.registry.card import parse_card
from hub.registry.repos import Parent
from workers.card import composition_card
from workers.work import Outcome, Work, module_name


def run(work: Work) -> Outcome:
    params = work.params
    modules = [work.module(pinned) for pinned in params["modules"]]
    examples = work.examples(params["examples"])
    held_out = work.examples(params["held_out"]) if "held_out" in params else None
    if held_out is not None:
        check_held_out(examples, held_out)  # before the search, not after it
    warnings = [*template_warnings(work), *few_examples_warnings(len(examples))]

    work.progress.enter("search")
    composition = compose(
        work.base,
        modules,
        examples,
        form=params["form"],
        template=params["template"],
        optimizer=params["optimizer"],
        budget=params["budget"],
        bound=params["bound"],
        l1=params["l1"],
        seed=params["seed"],
        on_progress=work.progress,
    )
    measured = None
    if held_out is not None:
        work.progress.enter("report")
        measured = report(
            work.base,
            modules,
            composition,
            examples,
            held_out,
            seed=params["seed"],
            on_progress=work.progress,
        )
    else:
        warnings.append("No held-out examples were given, so nothing is known of how good the result is.")
    if not any(composition.weights.values()):
        warnings.append("The search found nothing better than the base alone: all weights are zero.")
    manifest = describe(work, composition, measured, warnings)
    write(work, composition, manifest)
    return Outcome(
        result={
            "weights": manifest["weights"],
            "report": manifest["report"],
            "warnings": warnings,
            "trace": [asdict(evaluation) for evaluation in composition.trace],
            "evaluations": composition.evaluations,
            "search_seconds": composition.seconds,
        },
        folder=work.out,
        parents=parents(params, manifest["weights"]),
        message=f"Compose {len(modules)} modules",
    )


def parents(params: Mapping[str, Any], weights: Mapping[str, float]) -> list[Parent]:
    modules = {pinned["commit"]: weights[module_name(pinned)] for pinned in params["modules"]}
    lineage = [Parent(commit, "module", weight) for commit, weight in modules.items()]
    datasets = {params[role]["commit"] for role in ("examples", "held_out") if role in params}
    return lineage + [Parent(commit, "dataset") for commit in sorted(datasets)]


def template_warnings(work: Work) -> list[str]:
    """A module or data set made with another prompt template than this search uses sees prompts that it does not know."""
    used = work.params["template"]
    made_with = {module_name(pinned): pinned["template"] for pinned in work.params["modules"]}
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


def describe(work: Work, composition: Composition, measured: Report | None, warnings: Sequence[str]) -> dict[str, Any]:
    """The manifest: everything that made this adapter, so that the same manifest gives the same bytes. No times, no job ids."""
    params = work.params
    return {
        "method": "lorahub",
        "template": params["template"],
        **surroundings(work.base),
        "inputs": {
            "modules": [input_of(work, pinned) for pinned in params["modules"]],
            **{role: input_of(work, params[role]) for role in ("examples", "held_out") if role in params},
        },
        "settings": composition.settings,
        "weights": composition.weights,
        "objective": composition.objective,
        "loss": composition.loss,
        "report": asdict(measured) if measured else None,
        "warnings": list(warnings),
    }


def input_of(work: Work, pinned: Mapping[str, Any]) -> dict[str, Any]:
    hashes = work.hashes(pinned["commit"])
    prefix = pinned.get("path") or pinned.get("folder", "")
    named = {key: pinned[key] for key in ("repo", "commit", "folder", "path") if key in pinned}
    return {**named, "files": {path: digest for path, digest in hashes.items() if path.startswith(prefix)}}


def write(work: Work, composition: Composition, manifest: Mapping[str, Any]) -> None:
    adapter.write(composition.adapter, work.out, dtype=torch.float32)
    (work.out / "loraloom.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (work.out / "README.md").write_text(composition_card(work.params, manifest), encoding="utf-8")
