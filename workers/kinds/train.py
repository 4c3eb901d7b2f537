"""Job kind `train`: find a rate if asked, train, measure beside the base and plain LoRA; write adapter, card and manifest."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from hub.lora.compose.report import SLACK, check_held_out, longest_target
from hub.lora.core import adapter
from hub.lora.core.adapter import Adapter
from hub.lora.core.batches import split
from hub.lora.core.evaluate import Scores, evaluate
from hub.lora.core.examples import Example
from hub.lora.core.provenance import surroundings
from hub.lora.train.loop import Recipe, Trained, train
from hub.lora.train.lr_search import Search, search_rate
from hub.registry.content.history import Parent
from workers.kinds.compose import dataset_template, input_of
from workers.results.cards import training_card
from workers.results.report import METRICS, paired_report, registered
from workers.runtime.work import Outcome, Work

VALIDATED = 200  # examples at most: enough to tell states apart, few enough to cost little beside the training
POINTS = 500  # of a curve
WORDS = {"base": "the base alone", "start": "the module it started from", "lora": "plain LoRA at the same budget"}


@dataclass(frozen=True)
class Data:
    learnt: list[Example]
    validated: list[Example]
    held_out: list[Example] | None
    start: Adapter | None


@dataclass(frozen=True)
class Arm:
    """One way of training, with the rate that was found for it if one was searched."""

    recipe: Recipe
    search: Search | None
    trained: Trained


def run(work: Work) -> Outcome:
    data = _read(work)
    recipe = Recipe(**work.params["recipe"])
    arms = {"module": _trained(work, data, recipe, "module")}
    if "lora" in work.params["compare"]:
        plain = replace(recipe, ratio=1.0, init="default", rslora=False, dora=False)
        arms["lora"] = _trained(work, data, plain, "lora")
    scores = _measured(work, data, arms)
    warnings = _warnings(work, data, arms)
    manifest = _manifest(work, data, arms, scores, warnings)
    _write(work, arms["module"], manifest)
    ours = arms["module"].trained
    return Outcome(
        result={
            **{key: manifest[key] for key in ("settings", "curve", "report", "search", "warnings")},
            "tokens_per_second": ours.tokens / ours.seconds if ours.seconds else None,
            "training_seconds": ours.seconds,
        },
        folder=work.out,
        parents=_parents(work.params),
        scores=registered(work, scores, "module"),
        message=f"Train on {len(data.learnt)} examples",
    )


def _read(work: Work) -> Data:
    params = work.params
    examples = work.examples(params["examples"])
    held_out = work.examples(params["held_out"]) if "held_out" in params else None
    if held_out is not None:
        check_held_out(examples, held_out)
    learnt, validated = split(examples, params["validation_share"], params["recipe"]["seed"], VALIDATED)
    start = work.module(params["start"]) if "start" in params else None
    return Data(learnt, validated, held_out, start)


def _trained(work: Work, data: Data, recipe: Recipe, name: str) -> Arm:
    """Each training keeps a place of its own, so that after a kill what was finished is only read."""

    def run_one(recipe: Recipe, stage: str) -> Trained:
        work.progress.enter(stage)
        return train(
            work.base,
            data.learnt,
            recipe,
            template=work.params["template"],
            validation=data.validated,
            start=data.start,
            checkpoints=work.place(stage),
            on_progress=work.progress,
        )

    search = None
    if work.params["rates"]:
        steps = work.params["search_steps"] or max(20, _steps(recipe, len(data.learnt)) // 5)
        short = replace(recipe, steps=steps, validate_every=None, patience=None)
        search = search_rate(
            work.params["rates"], lambda rate: run_one(replace(short, learning_rate=rate), f"{name} at rate {rate:.3g}")
        )
        recipe = replace(recipe, learning_rate=search.best)
    return Arm(recipe, search, run_one(recipe, f"train {name}"))


def _steps(recipe: Recipe, examples: int) -> int:
    if recipe.steps is not None:
        return recipe.steps
    return -(-examples * recipe.epochs // (recipe.batch_size * recipe.accumulation))


def _measured(work: Work, data: Data, arms: Mapping[str, Arm]) -> dict[str, Scores]:
    """Scores on the held-out examples; none where none were given."""
    if data.held_out is None:
        return {}
    measured: dict[str, Adapter | None] = {"base": None}
    if data.start is not None:
        measured["start"] = data.start
    measured |= {name: arm.trained.adapter for name, arm in arms.items()}
    scores = {}
    for name, module in measured.items():
        work.progress.enter(f"measure {name}")
        scores[name] = evaluate(
            work.base,
            module,
            data.held_out,
            template=work.params["template"],
            metrics=METRICS,
            max_new_tokens=longest_target(work.base, data.held_out) + SLACK,
            seed=work.params["recipe"]["seed"],
            on_progress=work.progress,
        )
    return scores


def _warnings(work: Work, data: Data, arms: Mapping[str, Arm]) -> list[str]:
    found, ours = [], arms["module"].trained
    template = work.params["template"]
    for role in ("examples", "held_out"):
        made_with = dataset_template(work, work.params[role]) if role in work.params else None
        if made_with not in (None, template):
            found.append(
                f"{work.params[role]['repo']} was made with the prompt template {made_with!r}, not {template!r}."
            )
    if ours.too_long:
        found.append(
            f"{ours.too_long} examples have more than {work.params['recipe']['max_length']} tokens and were left out."
        )
    if ours.ending == "diverged":
        found.append(
            f"Training diverged after step {len(ours.losses)}; this is its best state, of step {ours.step}. Lower the learning rate."
        )
    if not data.validated:
        found.append("Nothing was validated during training, so this is its last state, which need not be its best.")
    elif (ours.validation_loss or 0) >= ours.validations[0][1]:
        found.append("The validation loss never fell below that of the start: nothing was learnt that carries over.")
    if data.held_out is None:
        found.append("No held-out examples were given, so nothing is known of how good the result is.")
    found += [
        f"The best learning rate found for {name} is at the edge of those tried; a better one may lie outside."
        for name, arm in arms.items()
        if arm.search and arm.search.at_edge
    ]
    return found


def _manifest(
    work: Work, data: Data, arms: Mapping[str, Arm], scores: Mapping[str, Scores], warnings: Sequence[str]
) -> dict[str, Any]:
    """Everything that made this adapter, so that the same manifest gives the same bytes. No times, no job ids."""
    params, ours = work.params, arms["module"]
    roles = ("start", "examples", "held_out")
    made_by = {
        name: {"learning_rate": arm.recipe.learning_rate, "ratio": arm.recipe.rate_ratio} for name, arm in arms.items()
    }
    return {
        "method": "lora" if ours.recipe.rate_ratio == 1 else "loraplus",
        "template": params["template"],
        **surroundings(work.base),
        "inputs": {role: input_of(work, params[role]) for role in roles if role in params},
        "settings": {
            **asdict(ours.recipe),
            "ratio": ours.recipe.rate_ratio,
            "steps": ours.trained.steps,
            "learnt": len(data.learnt),
            "validated": len(data.validated),
            "too_long": ours.trained.too_long,
            "load_in_4bit": params["load_in_4bit"],
        },
        "ending": ours.trained.ending,
        "kept_step": ours.trained.step,
        "curve": {name: curve(arm.trained) for name, arm in arms.items()},
        "search": {name: asdict(arm.search) for name, arm in arms.items() if arm.search},
        "report": paired_report(scores, "module", WORDS, made_by, seed=params["recipe"]["seed"]) if scores else None,
        "warnings": list(warnings),
    }


def curve(trained: Trained) -> dict[str, Any]:
    """Training losses as means of `every` steps, so that a long run's curve is no longer than a short one's."""
    every = -(-len(trained.losses) // POINTS) or 1
    parts = [trained.losses[at : at + every] for at in range(0, len(trained.losses), every)]
    return {
        "every": every,
        "losses": [sum(part) / len(part) for part in parts],
        "validations": trained.validations,
    }


def _parents(params: Mapping[str, Any]) -> list[Parent]:
    modules = [Parent(params["start"]["commit"], "module")] if "start" in params else []
    datasets = {params[role]["commit"] for role in ("examples", "held_out") if role in params}
    return modules + [Parent(commit, "dataset") for commit in sorted(datasets)]


def _write(work: Work, arm: Arm, manifest: Mapping[str, Any]) -> None:
    adapter.write(arm.trained.adapter, work.out, dtype=torch.float32)
    (work.out / "loraloom.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (work.out / "README.md").write_text(training_card(work.params, manifest), encoding="utf-8")
