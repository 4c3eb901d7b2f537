"""Model cards of results: Markdown that says what the adapter is, how good it is beside its controls, and how to load it."""

import re
from collections.abc import Mapping
from typing import Any, get_args

import yaml

from hub.registry.inspection.model_card import Card
from hub.vocabulary import Metric
from workers.runtime.work import module_name

# What an identifier says by itself: cc-by-nc-4.0, fair-noncommercial-research-license. One that forbids it in its text alone is not told.
_NON_COMMERCIAL = re.compile(r"(?<![a-z])nc(?![a-z])|non-?commercial|research", re.IGNORECASE)
_UNKNOWN = (None, "unknown", "other")


def composition_card(params: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """The card of a composition, made from its parameters and its manifest alone."""
    used = {module["commit"] for module in manifest["inputs"]["modules"]}
    licences = {pinned.get("licence") for pinned in params["modules"] if pinned["commit"] in used}
    licence = licences.pop() if len(licences) == 1 else None
    if _forbids(params["base"].get("licence")) and not _forbids(licence):
        licence = None  # the modules' own licence would promise what the base does not allow
    front: dict[str, Any] = {
        "base_model": manifest["base"]["id"],
        "library_name": "peft",
        "tags": ["lora", "loraloom", "lorahub"],
        "prompt_template": manifest["template"],
    }
    if licence:
        front["license"] = licence
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=True, allow_unicode=True).strip(),
        "---",
        "",
        f"# {params['result'].partition('/')[2]}",
        "",
        f"A composition of {len(manifest['weights'])} LoRA modules, form `{manifest['settings']['form']}`, {_found(manifest)}",
        "",
        *_measured(manifest["report"]),
        *[f"**Note:** {warning}\n" for warning in manifest["warnings"]],
        "## Weights",
        "",
        "| module | weight |",
        "|---|---|",
        *[f"| {name} | {weight:+.3f} |" for name, weight in manifest["weights"].items()],
        "",
        *_licences(params, used),
        *_use(manifest),
    ]
    return "\n".join(lines)


def _forbids(licence: str | None) -> bool:
    return bool(licence and _NON_COMMERCIAL.search(licence))


def _licences(params: Mapping[str, Any], used: set[str]) -> list[str]:
    """The licence of the base and of every module that takes part, as their owners named it: the result stands under all of them."""
    parents = {params["base"]["id"]: params["base"].get("licence")}
    parents |= {module_name(pinned): pinned.get("licence") for pinned in params["modules"] if pinned["commit"] in used}
    closed = [name for name, licence in parents.items() if _forbids(licence)]
    unknown = [name for name, licence in parents.items() if licence in _UNKNOWN]
    notes = []
    if closed:
        notes.append(f"**Not for commercial use:** {', '.join(closed)} by licence, and so neither is this.\n")
    if unknown:
        notes.append(f"**Licence unknown:** {', '.join(unknown)}; ask their owners before this is passed on.\n")
    return [
        "## Licences",
        "",
        "| made from | licence |",
        "|---|---|",
        *[f"| {name} | {licence or 'not said'} |" for name, licence in parents.items()],
        "",
        *notes,
    ]


def _found(manifest: Mapping[str, Any]) -> str:
    settings, tuning = manifest["settings"], manifest["tune"]
    if settings["search"] == "none":
        found = "at given weights"
    elif settings["search"] == "gradient":
        places = "module and layer" if settings["per_layer"] else "module"
        found = f"weights for each {places} by gradient on {settings['examples']} examples, {settings['budget']} steps"
    else:
        found = (
            "found by LoraHub's search ([arXiv 2307.13269](https://arxiv.org/abs/2307.13269)) on "
            f"{settings['examples']} examples: {settings['optimizer']}, {settings['budget']} evaluations, seed {settings['seed']}"
        )
    if tuning:
        found += (
            f"; then cut to rank {tuning['rank']} and trained further on the same examples, {tuning['steps']} steps at "
            f"a learning rate of {tuning['learning_rate']:g}"
        )
    return found + "."


def training_card(params: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """The card of a trained module, made from its parameters and its manifest alone."""
    settings, examples = manifest["settings"], params["examples"]
    front = {
        "base_model": manifest["base"]["id"],
        "datasets": [examples["repo"]],
        "library_name": "peft",
        "tags": ["lora", "loraloom", manifest["method"]],
        "prompt_template": manifest["template"],
    }
    licence = params.get("start", {}).get("licence")
    if licence:
        front["license"] = licence
    further = f" further from {params['start']['repo']}" if "start" in params else ""
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=True, allow_unicode=True).strip(),
        "---",
        "",
        f"# {params['result'].partition('/')[2]}",
        "",
        f"A LoRA trained{further} on {settings['learnt']} examples of {examples['repo']}, `{examples['path']}` at "
        f"{examples['commit'][:12]}, with {settings['validated']} more to choose its best state: step {manifest['kept_step']} "
        f"of {settings['steps']}.",
        "",
        *_measured(manifest["report"]),
        *[f"**Note:** {warning}\n" for warning in manifest["warnings"]],
        "## Curve",
        "",
        *_curve(manifest["curve"]["module"]),
        *_rates(manifest["search"]),
        "## Settings",
        "",
        *_settings(settings),
        *_use(manifest),
    ]
    return "\n".join(lines)


def reduction_card(params: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """The card of a reduction, made from its parameters and its manifest alone."""
    front = {
        "base_model": manifest["base"]["id"],
        "datasets": [params["examples"]["repo"]],
        "library_name": "peft",
        "tags": ["lora", "loraloom", "reduction"],
        "prompt_template": manifest["template"],
    }
    licence = params.get("module", {}).get("licence")
    if licence:
        front["license"] = licence
    loss = manifest["loss"]
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=True, allow_unicode=True).strip(),
        "---",
        "",
        f"# {params['result'].partition('/')[2]}",
        "",
        f"{_reduced_from(params, manifest)} On the {manifest['settings']['examples']} examples of {params['examples']['repo']} that "
        f"decided it, the loss went from {loss['before']:.4f} to {loss['after']:.4f} {loss['unit']}.",
        "",
        *_measured(manifest["report"]),
        *[f"**Note:** {warning}\n" for warning in manifest["warnings"]],
        *(_cuts(manifest) if "cuts" in manifest else _ranks(manifest["ranks"])),
        *_use_of_form(manifest),
    ]
    return "\n".join(lines)


def _reduced_from(params: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    score, base = manifest["settings"]["score"], manifest["base"]["id"]
    if manifest["settings"]["subject"] == "module":
        components, parameters = manifest["components"], manifest["parameters"]
        return (
            f"{params['module']['repo']} made smaller: {components['kept']} of {components['given']} components of its updates, "
            f"{parameters['kept']:,} of {parameters['given']:,} parameters, chosen by the score `{score}` for a loss at most "
            f"{manifest['settings']['loss_budget']:g} higher."
        )
    with_module = f" with {params['module']['repo']} merged" if "module" in params else ""
    form = {
        "adapter": "as an adapter for the untouched base",
        "model": "as a whole model",
        "factors": "as the factors of what was cut",
    }[manifest["settings"]["form"]]
    return (
        f"{base}{with_module} with {len(manifest['cuts'])} matrices cut in rank, {form}. The cuts were "
        f"chosen from one gradient ([arXiv 2510.20800](https://arxiv.org/abs/2510.20800), score `{score}`) and "
        f"{len(manifest['trials'])} trials (`{manifest['settings']['variant']}`)."
    )


def _cuts(manifest: Mapping[str, Any]) -> list[str]:
    cuts = manifest["cuts"]
    ranks = [cut.get("adapter_rank", "") for cut in cuts]
    size = manifest.get("size")
    saved = []
    if size:
        held = f"Of these matrices the factors hold {size['after']:,} parameters instead of {size['before']:,}"
        saved = [f"{held}; a token needs as many multiply-adds there.", ""]
    return [
        "## Cuts",
        "",
        "| matrix | share of singular values kept | row blocks | rank of the adapter |",
        "|---|---|---|---|",
        *[
            f"| {cut['path']} | {cut['share']:g} | {cut['blocks']} | {rank} |"
            for cut, rank in zip(cuts, ranks, strict=True)
        ],
        "",
        *saved,
        *[f"![Singular values of {cut['path']}](spectrum{number}.svg)" for number, cut in enumerate(cuts, 1)],
        *(["![Best predicted gain of each matrix](gains.svg)"] if manifest["matrices"] else []),
        "",
    ]


def _use_of_form(manifest: Mapping[str, Any]) -> list[str]:
    """How a reduction is loaded: as any adapter, as a model of its own, or from its factors."""
    form = manifest["settings"].get("form", "adapter")
    if form == "adapter":
        return _use(manifest)
    auto = _auto(manifest)
    loaded = (
        [f'model = {auto}.from_pretrained("path/to/this/folder")']
        if form == "model"
        else [
            f'model = {auto}.from_pretrained("{manifest["base"]["id"]}")',
            'factored.load(model, Path("path/to/this/folder"))  # a few layers now compute from their factors',
        ]
    )
    imports = ["from pathlib import Path", "", "from hub.lora import factored"] if form == "factors" else []
    return [
        "## Use",
        "",
        "```python",
        *imports,
        f"from transformers import {auto}",
        "",
        *loaded,
        "```",
        "",
        _prompts(manifest),
        "",
    ]


def _ranks(ranks: Mapping[str, int]) -> list[str]:
    rows = [f"| {path} | {rank} |" for path, rank in ranks.items()]
    return ["## Ranks", "", "| matrix | rank |", "|---|---|", *rows, ""]


def par_card(params: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """The card of a module of two systems, made from its parameters and its manifest alone."""
    front = {
        "base_model": manifest["base"]["id"],
        "datasets": [params["examples"]["repo"]],
        "library_name": "peft",
        "tags": ["lora", "loraloom", "lora-par"],
        "prompt_template": manifest["template"],
    }
    split, partition, settings = manifest["split"], manifest["partition"], manifest["settings"]
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=True, allow_unicode=True).strip(),
        "---",
        "",
        f"# {params['result'].partition('/')[2]}",
        "",
        f"A LoRA trained in two stages ([arXiv 2507.20999](https://arxiv.org/abs/2507.20999)) on {params['examples']['repo']}, "
        f"`{params['examples']['path']}` at {params['examples']['commit'][:12]}, split by {split['by']}: supervised on "
        f"{split['system1']} examples of System 1, then reinforced on {split['system2']} of System 2. With a theta of "
        f"{settings['theta']:g} stage 1 moved {partition['stage1']:.1%} of the {partition['elements']:,} elements, stage 2 "
        f"{partition['stage2']:.1%}, together {partition['active']:.1%}; the two systems' sets have a Jaccard index of "
        f"{partition['jaccard']:.3f}.",
        "",
        *_measured(manifest["report"]),
        *_accuracies(manifest["accuracy"]),
        *_vote(split),
        *[f"**Note:** {warning}\n" for warning in manifest["warnings"]],
        "## Partition",
        "",
        "| matrix | System 1 alone | System 2 alone | common | neither |",
        "|---|---|---|---|---|",
        *[
            f"| {row['matrix']} | {row['system1']:.3f} | {row['system2']:.3f} | {row['common']:.3f} | {row['none']:.3f} |"
            for row in partition["matrices"]
        ],
        "",
        "## Settings",
        "",
        *_settings({f"stage 1 {name}": value for name, value in settings["supervised"].items()}),
        *_settings({f"stage 2 {name}": value for name, value in settings["reinforced"].items()}),
        *_use(manifest),
    ]
    return "\n".join(lines)


STYLES = {"peft": "PEFT", "loralib": "Microsoft's loralib", "mlx": "MLX", "diffusers": "diffusers"}


def conversion_card(params: Mapping[str, Any], manifest: Mapping[str, Any], source: Card) -> str:
    """The card of a converted adapter: how it came about, then the source's own card, whose front matter it keeps."""
    base, pinned, converted = manifest["base"]["id"], params["source"], manifest["converted"]
    front = {**source.front, "base_model": base, "library_name": "peft"}
    front["tags"] = list(dict.fromkeys([*source.values("tags"), "lora", "loraloom"]))
    given = [f"{name.replace('_', ' ')} {value}" for name, value in manifest["settings"].items()]
    told = f" What those do not say was given: {', '.join(given)}." if given else ""
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=True, allow_unicode=True).strip(),
        "---",
        "",
        f"# {params['result'].partition('/')[2]}",
        "",
        f"`{pinned['path']}` of {pinned['repo']} at {pinned['commit'][:12]}, as {STYLES[converted['from']]} "
        f"{'wrote it in a pickle' if converted['pickle'] else 'wrote it'}, in the names and the layout that PEFT reads: the same "
        f"numbers, which compute the same.{told} Nothing was measured. `loraloom.json` pins the source by commit and hash.",
        "",
        "## Use",
        "",
        "```python",
        "from peft import PeftModel",
        "",
        f'model = PeftModel.from_pretrained(base, "path/to/this/folder")  # base: {base}, loaded with its own library',
        "```",
        "",
    ]
    if source.text.strip():
        lines += ["## The source's own card", "", source.text.strip(), ""]
    return "\n".join(lines)


def _vote(split: Mapping[str, Any]) -> list[str]:
    """How far each teacher was to be trusted, and how they agreed; nothing where none voted."""
    if "teachers" not in split:
        return []
    rows = [
        f"| {trust['teacher']} | {_interval({'mean': trust['right'], **trust})} | {split['with_majority'][trust['teacher']]:.3f} | "
        f"{split['unreadable'][trust['teacher']]} |"
        for trust in split["teachers"]
    ]
    return [
        "## Vote",
        "",
        f"{split['unanimous']:.1%} of the examples were unanimous, {split['ties']} had no majority and were left out; `votes.jsonl` has "
        f"every vote. Right votes are of {split['teachers'][0]['gold']} examples whose system is known.",
        "",
        "| teacher | right | with the majority | unreadable |",
        "|---|---|---|---|",
        *rows,
        "",
    ]


def _accuracies(accuracy: Mapping[str, Any]) -> list[str]:
    """A table by system; none where the held-out examples have no labels."""
    arms = accuracy["arms"]
    parts = sorted({part for arm in arms.values() for part in arm})
    if len(parts) < 2:
        return []
    rows = [
        f"| {name.replace('_', ' ')} | " + " | ".join(_interval(arm[part]) for part in parts) + " |"
        for name, arm in arms.items()
    ]
    titles = [part.replace("system", "System ") for part in parts]
    return [
        f"By system, {accuracy['measure'].replace('_', ' ')}:",
        "",
        f"| | {' | '.join(titles)} |",
        "|---" * (len(parts) + 1) + "|",
        *rows,
        "",
    ]


SHOWN = 10  # rows of a curve: its shape; loraloom.json has all of it


def _curve(curve: Mapping[str, Any]) -> list[str]:
    every, losses, validations = curve["every"], curve["losses"], dict(curve["validations"])
    steps = sorted({*range(every, every * len(losses) + 1, every * max(1, len(losses) // SHOWN)), *validations})
    rows = []
    for step in steps[:: max(1, len(steps) // (2 * SHOWN))]:
        training = f"{losses[min(step, every * len(losses)) // every - 1]:.4f}" if step >= every else ""
        validation = f"{validations[step]:.4f}" if step in validations else ""
        rows.append(f"| {step} | {training} | {validation} |")
    what = "at each step" if every == 1 else f"as means of {every} steps"
    return [
        f"Losses in nats per target token, in training {what}:",
        "",
        "| step | training | validation |",
        "|---|---|---|",
        *rows,
        "",
    ]


def _rates(searches: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, search in searches.items():
        lines += [f"Rates tried for {name} in short runs, by validation loss:", "", "| rate of A | loss |", "|---|---|"]
        for trial in search["trials"]:
            loss = "diverged" if trial["validation_loss"] is None else f"{trial['validation_loss']:.4f}"
            mark = " (taken)" if trial["learning_rate"] == search["best"] else ""
            lines.append(f"| {trial['learning_rate']:.3g}{mark} | {loss} |")
        lines.append("")
    return lines


def _settings(settings: Mapping[str, Any]) -> list[str]:
    rows = [f"| {name.replace('_', ' ')} | {value} |" for name, value in settings.items() if value is not None]
    return ["| | |", "|---|---|", *rows, ""]


def _use(manifest: Mapping[str, Any]) -> list[str]:
    auto = _auto(manifest)
    return [
        "## Use",
        "",
        "```python",
        "from peft import PeftModel",
        f"from transformers import {auto}",
        "",
        f'base = {auto}.from_pretrained("{manifest["base"]["id"]}")',
        'model = PeftModel.from_pretrained(base, "path/to/this/folder")',
        "```",
        "",
        _prompts(manifest),
        "",
    ]


def _auto(manifest: Mapping[str, Any]) -> str:
    return "AutoModelForSeq2SeqLM" if manifest["base"]["task_type"] == "SEQ_2_SEQ_LM" else "AutoModelForCausalLM"


def _prompts(manifest: Mapping[str, Any]) -> str:
    return f"Prompts were built with the `{manifest['template']}` template. `loraloom.json` pins every input by commit and hash."


def _measured(report: Mapping[str, Any] | None) -> list[str]:
    if report is None:
        return ["Nothing was measured: no held-out examples were given.", ""]
    metrics = [metric for metric in get_args(Metric) if metric in report["arms"][0]]
    return [
        f"**{report['verdict']}**",
        "",
        f"On {report['held_out']} held-out examples, with 95% intervals:",
        "",
        f"| | {' | '.join(metric.replace('_', ' ') for metric in metrics)} |",
        f"|---|{'---|' * len(metrics)}",
        *[
            f"| {arm['name'].replace('_', ' ')} | {' | '.join(_interval(arm[metric]) for metric in metrics)} |"
            for arm in report["arms"]
        ],
        "",
    ]


def _interval(estimate: Mapping[str, float]) -> str:
    return f"{estimate['mean']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
