"""Job kind `train`: find a rate if asked, train, measure beside the base and plain LoRA; write adapter, card and manifest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hub.lora.core.adapter import Adapter
from hub.lora.core.batches import split
from hub.lora.core.evaluate import Scores
from hub.lora.core.examples import Example
from hub.lora.core.report import MEASURED, paired_report
from hub.lora.train.loop import Recipe, Trained, train
from hub.lora.train.lr_search import Search, search_rate
from hub.registry.content.history import Parent
from hub.registry.jobs.contracts.common import ManifestInputs, RecipeSettings
from hub.registry.jobs.contracts.train import RateSearch, TrainManifest, TrainParams, TrainResult, TrainSettings
from workers.results.cards import card
from workers.results.curves import training_curve
from workers.results.steps import (
    NOT_MEASURED,
    dataset_parents,
    manifest_inputs,
    manifest_surroundings,
    measure,
    own_and_base,
    read_held_out,
    room_for_answers,
    template_warnings,
    write_adapter,
    write_documents,
)
from workers.runtime.work import BaseWork, Outcome

VALIDATED = 200  # examples at most: enough to tell states apart, few enough to cost little beside the training
WORDS = {"base": "the base alone", "start": "the adapter it started from", "lora": "plain LoRA at the same budget"}

TrainWork = BaseWork[TrainParams]


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


def run(work: TrainWork) -> Outcome[TrainResult]:
    data = _read(work)
    recipe = Recipe(**dict(work.params.recipe))
    arms = {"module": _trained(work, data, recipe, "module")}
    if "lora" in work.params.compare:
        plain = replace(recipe, ratio=1.0, init="default", rslora=False, dora=False)
        arms["lora"] = _trained(work, data, plain, "lora")
    scores = _measured(work, data, arms)
    manifest = _manifest(work, data, arms, scores, _warnings(work, data, arms))
    ours = arms["module"].trained
    write_adapter(work, ours.adapter)
    write_documents(work, manifest, card("train", work.params, manifest))
    own, of_base = own_and_base(work, scores, "module")
    return Outcome(
        result=TrainResult(
            settings=manifest.settings,
            curve=manifest.curve,
            report=manifest.report,
            search=manifest.search,
            warnings=manifest.warnings,
            tokens_per_second=ours.tokens / ours.seconds if ours.seconds else None,
            training_seconds=ours.seconds,
        ),
        folder=work.out,
        parents=_parents(work.params),
        scores=own,
        other_scores=of_base,
        message=f"Train on {len(data.learnt)} examples",
    )


def _read(work: TrainWork) -> Data:
    params = work.params
    examples = work.examples(params.examples)
    held_out = read_held_out(work, examples)
    learnt, validated = split(examples, params.validation_share, params.recipe.seed, VALIDATED)
    return Data(learnt, validated, held_out, work.module(params.start) if params.start else None)


def _trained(work: TrainWork, data: Data, recipe: Recipe, name: str) -> Arm:
    """Each training keeps a place of its own, so that after a kill what was finished is only read."""

    def run_one(recipe: Recipe, stage: str) -> Trained:
        work.progress.enter(stage)
        return train(
            work.base,
            data.learnt,
            recipe,
            template=work.params.template,
            validation=data.validated,
            start=data.start,
            checkpoints=work.place(stage),
            on_progress=work.progress,
        )

    search = None
    if work.params.rates:
        steps = work.params.search_steps or max(20, _steps(recipe, len(data.learnt)) // 5)
        short = replace(recipe, steps=steps, validate_every=None, patience=None)
        search = search_rate(
            work.params.rates, lambda rate: run_one(replace(short, learning_rate=rate), f"{name} at rate {rate:.3g}")
        )
        recipe = replace(recipe, learning_rate=search.best)
    return Arm(recipe, search, run_one(recipe, f"train {name}"))


def _steps(recipe: Recipe, examples: int) -> int:
    if recipe.steps is not None:
        return recipe.steps
    return -(-examples * recipe.epochs // (recipe.batch_size * recipe.accumulation))


def _measured(work: TrainWork, data: Data, arms: Mapping[str, Arm]) -> dict[str, Scores]:
    """Scores on the held-out examples; none where none were given."""
    if data.held_out is None:
        return {}
    measured: dict[str, Adapter | None] = {"base": None}
    if data.start is not None:
        measured["start"] = data.start
    measured |= {name: arm.trained.adapter for name, arm in arms.items()}
    room, seed = room_for_answers(work.base, data.held_out), work.params.recipe.seed
    return {
        name: measure(work, name, module, data.held_out, metrics=MEASURED, max_new_tokens=room, seed=seed)
        for name, module in measured.items()
    }


def _warnings(work: TrainWork, data: Data, arms: Mapping[str, Arm]) -> list[str]:
    warnings, ours = template_warnings(work), arms["module"].trained
    if ours.too_long:
        warnings.append(
            f"{ours.too_long} examples have more than {work.params.recipe.max_length} tokens and were left out."
        )
    if ours.ending == "diverged":
        warnings.append(
            f"Training diverged after step {len(ours.losses)}; this is its best state, of step {ours.step}. Lower the learning rate."
        )
    if not data.validated:
        warnings.append("Nothing was validated during training, so this is its last state, which need not be its best.")
    elif (ours.validation_loss or 0) >= ours.validations[0][1]:
        warnings.append("The validation loss never fell below that of the start: nothing was learnt that carries over.")
    if data.held_out is None:
        warnings.append(NOT_MEASURED)
    warnings += [
        f"The best learning rate found for {'the adapter' if name == 'module' else 'plain LoRA'} "
        "is at the edge of those tried; a better one may lie outside."
        for name, arm in arms.items()
        if arm.search and arm.search.at_edge
    ]
    return warnings


def _manifest(
    work: TrainWork, data: Data, arms: Mapping[str, Arm], scores: Mapping[str, Scores], warnings: Sequence[str]
) -> TrainManifest:
    params, ours = work.params, arms["module"]
    base, device, versions = manifest_surroundings(work.base)
    made_by = {
        name: {"learning_rate": arm.recipe.learning_rate, "ratio": arm.recipe.rate_ratio} for name, arm in arms.items()
    }
    return TrainManifest(
        method="lora" if ours.recipe.rate_ratio == 1 else "loraplus",
        template=params.template,
        base=base,
        device=device,
        versions=versions,
        inputs=ManifestInputs(
            **manifest_inputs(work, start=params.start, examples=params.examples, held_out=params.held_out)
        ),
        settings=_settings(params, data, ours),
        ending=ours.trained.ending,
        kept_step=ours.trained.step,
        curve={name: training_curve(arm.trained) for name, arm in arms.items()},
        search={name: RateSearch.model_validate(arm.search) for name, arm in arms.items() if arm.search},
        report=paired_report(scores, "module", WORDS, made_by, seed=params.recipe.seed) if scores else None,
        warnings=list(warnings),
    )


def _settings(params: TrainParams, data: Data, ours: Arm) -> TrainSettings:
    """The recipe with its ratio and steps as they came out."""
    recipe = dict(RecipeSettings.model_validate(ours.recipe)) | {
        "ratio": ours.recipe.rate_ratio,
        "steps": ours.trained.steps,
    }
    return TrainSettings(
        **recipe,
        learnt=len(data.learnt),
        validated=len(data.validated),
        too_long=ours.trained.too_long,
        load_in_4bit=params.load_in_4bit,
    )


def _parents(params: TrainParams) -> list[Parent]:
    modules = [Parent(params.start.commit, "module")] if params.start else []
    return modules + dataset_parents(params.examples, params.held_out)
