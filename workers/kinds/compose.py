"""Job kind `compose`: weigh adapters on the examples, measure the result beside its controls, write adapter, card and manifest."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from hub.formats.report import Report
from hub.lora.compose.composition import Composition, compose_at_weights
from hub.lora.compose.controls import Control, ControlSettings, full, quick
from hub.lora.compose.gradient import GradientSearch, compose_by_gradient
from hub.lora.compose.merges import merge_modules
from hub.lora.compose.report import composition_report, measure_controls
from hub.lora.compose.search import Search, compose
from hub.lora.compose.train_further import Fit, FurtherTraining, train_further
from hub.lora.core.adapter import Adapter, applied, largest_rank
from hub.lora.core.evaluate import Scores
from hub.lora.core.examples import Example
from hub.lora.core.losses import encode_batches, mean_loss
from hub.registry.content.history import Parent
from hub.registry.jobs.contracts.common import ManifestInputs, PinnedModule
from hub.registry.jobs.contracts.compose import (
    ComposeManifest,
    ComposeParams,
    ComposeResult,
    Evaluation,
    Tune,
    Tuning,
)
from hub.vocabulary import FORMS, MERGES, ComposeArm, Form, Template
from workers.results.cards import composition_card
from workers.results.steps import (
    NOT_MEASURED,
    dataset_parents,
    manifest_input,
    manifest_inputs,
    manifest_surroundings,
    other_templates,
    own_and_base,
    read_held_out,
    write_adapter,
    write_documents,
)
from workers.runtime.work import BaseWork, Outcome

FEW = 5  # examples that LoraHub's own experiments used

ComposeWork = BaseWork[ComposeParams]


@dataclass(frozen=True)
class Data:
    """`pinned` are the adapters that take part, `others` the rest of the pool."""

    examples: list[Example]
    held_out: list[Example] | None
    pinned: list[PinnedModule]
    others: list[PinnedModule]
    modules: list[Adapter]


@dataclass(frozen=True)
class Measured:
    scores: Mapping[ComposeArm, Scores]
    report: Report


def run(work: ComposeWork) -> Outcome[ComposeResult]:
    data = _read(work)
    work.progress.enter("search")
    composition = _composed(work, data.modules, data.examples)
    fit = _tuned(work, work.params.tune, data, composition) if work.params.tune else None
    measured = _measured(work, data, composition, fit) if data.held_out is not None else None
    warnings = _warnings(work, data, composition)
    manifest = _manifest(work, data, composition, fit, measured, warnings)
    write_adapter(work, fit.adapter if fit else composition.adapter)
    write_documents(work, manifest, composition_card(work.params, manifest))
    scores, of_base = own_and_base(
        work, {str(k): v for k, v in measured.scores.items()} if measured else {}, "composition"
    )
    return Outcome(
        result=ComposeResult(
            weights=composition.weights,
            report=measured.report if measured else None,
            warnings=warnings,
            trace=[Evaluation.model_validate(evaluation) for evaluation in composition.trace],
            evaluations=composition.evaluations,
            search_seconds=composition.seconds,
            by_layer=composition.by_layer,
            truncation_error=composition.truncation_error,
            tune=manifest.tune,
        ),
        folder=work.out,
        parents=_parents(work.params, data.pinned, composition.weights),
        scores=scores,
        other_scores=of_base,
        message=f"Compose {len(data.modules)} adapters",
    )


def _read(work: ComposeWork) -> Data:
    examples = work.examples(work.params.examples) if work.params.examples else []
    held_out = read_held_out(work, examples)
    pinned, others = _chosen(work, examples)
    return Data(examples, held_out, pinned, others, [work.module(module) for module in pinned])


def _chosen(work: ComposeWork, examples: Sequence[Example]) -> tuple[list[PinnedModule], list[PinnedModule]]:
    """(the adapters that take part, the rest of the pool): all of them, or the best ones where the request leaves the choice to us."""
    pool, count = work.params.modules, work.params.choose
    if count is None:
        return pool, []
    work.progress.enter("choose")
    batches = encode_batches(work.base, examples, work.params.template)
    losses: list[float] = []
    for pinned in pool:
        # One at a time, so that a pool of hundreds needs the memory of one.
        with applied(work.base.model, work.module(pinned)):
            losses.append(mean_loss(work.base, batches))
        work.progress(len(losses), len(pool), {"loss": losses[-1], "best": min(losses)})
    order = sorted(range(len(pool)), key=losses.__getitem__)
    return [pool[index] for index in sorted(order[:count])], [pool[index] for index in sorted(order[count:])]


class Shared(TypedDict):
    """The settings that both searches have."""

    form: Form
    template: Template
    budget: int
    patience: int | None
    seconds: float | None
    bound: float
    l1: float
    rank: int | None


def _composed(work: ComposeWork, modules: Sequence[Adapter], examples: Sequence[Example]) -> Composition:
    params = work.params
    if params.search == "none":
        return _merged(work, modules)
    shared: Shared = {
        "form": _searched(params),
        "template": params.template,
        "budget": params.budget,
        "patience": params.patience,
        "seconds": params.seconds,
        "bound": params.bound,
        "l1": params.l1,
        "rank": params.rank,
    }
    if params.search == "gradient":
        gradient = GradientSearch(per_layer=params.per_layer, **shared)
        return compose_by_gradient(work.base, modules, examples, gradient, on_progress=work.progress)
    search = Search(optimizer=params.optimizer, population=params.population, seed=params.seed, **shared)
    return compose(work.base, modules, examples, search, on_progress=work.progress)


def _searched(params: ComposeParams) -> Form:
    """The form that the arms beside the composition have: its own, or, beside a merge, the sum."""
    return next((form for form in FORMS if form == params.form), "sum")


def _merged(work: ComposeWork, modules: Sequence[Adapter]) -> Composition:
    params, weights = work.params, work.params.weights or []
    merge = next((merge for merge in MERGES if merge == params.form), None)
    if merge is None:
        return compose_at_weights(work.base, modules, weights, form=_searched(params), rank=params.rank)
    return merge_modules(work.base, modules, weights, merge, density=params.density, rank=params.rank, seed=params.seed)


def _tuned(work: ComposeWork, tune: Tune, data: Data, composition: Composition) -> Fit:
    work.progress.enter("tune")
    training = FurtherTraining(
        rank=largest_rank(data.modules),
        seed=work.params.seed,
        steps=tune.steps,
        learning_rate=tune.learning_rate,
    )
    return train_further(
        work.base,
        composition.adapter,
        data.examples,
        training,
        template=work.params.template,
        on_progress=work.progress,
    )


def _measured(work: ComposeWork, data: Data, composition: Composition, fit: Fit | None) -> Measured:
    arms = _arms(work, data, composition, fit)
    work.progress.enter("report")
    template, seed = work.params.template, work.params.seed
    scores = measure_controls(
        work.base, arms, data.held_out or [], template=template, seed=seed, on_progress=work.progress
    )
    made_by = {name: arm.made_by for name, arm in arms.items()}
    return Measured(scores, composition_report(scores, made_by, examples=len(data.examples), seed=seed))


def _arms(work: ComposeWork, data: Data, composition: Composition, fit: Fit | None) -> dict[ComposeArm, Control]:
    """What the report measures: the controls that were asked for, and the composition."""
    params, modules = work.params, data.modules
    work.progress.enter("controls")
    settings = ControlSettings(form=_searched(params), template=params.template, seed=params.seed, bound=params.bound)
    if params.controls == "full":
        drawn = random.Random(params.seed).sample(data.others, min(len(modules), len(data.others)))  # noqa: S311
        arms = full(
            work.base,
            modules,
            data.examples,
            settings,
            on_progress=work.progress,
            others=[work.module(pinned) for pinned in drawn],
            search=lambda chosen: _composed(work, chosen, data.examples).adapter,
        )
    else:
        arms = quick(work.base, modules, data.examples, settings, on_progress=work.progress)
    made_by = {"form": params.form, "weights": composition.weights}
    if fit is None:
        return {**arms, "composition": Control(composition.adapter, made_by)}
    tuned = Control(fit.adapter, {**made_by, "tune": fit.settings})
    return {**arms, "untuned": Control(composition.adapter, made_by), "composition": tuned}


def _warnings(work: ComposeWork, data: Data, composition: Composition) -> list[str]:
    used = work.params.template
    templates: dict[str, str | None] = {
        module.name: module.template for module in data.pinned if module.template not in (None, used)
    }
    templates |= dict(other_templates(work))
    warnings = [
        f"{name} was made with the prompt template {template!r}, and this composition uses {used!r}."
        for name, template in templates.items()
    ]
    if data.examples and len(data.examples) < FEW:
        warnings.append(f"Only {len(data.examples)} examples decide the weights; LoraHub's own experiments used five.")
    if not any(composition.weights.values()):
        warnings.append("The search found nothing better than the base alone: all weights are zero.")
    if data.held_out is None:
        warnings.append(NOT_MEASURED)
    return warnings


def _manifest(
    work: ComposeWork,
    data: Data,
    composition: Composition,
    fit: Fit | None,
    measured: Measured | None,
    warnings: list[str],
) -> ComposeManifest:
    base, device, versions = manifest_surroundings(work.base)
    modules = [manifest_input(work, pinned) for pinned in data.pinned]
    examples = manifest_inputs(work, examples=work.params.examples, held_out=work.params.held_out)
    tuning = {**fit.settings, "losses": fit.losses, "truncation_error": fit.truncation_error} if fit else None
    return ComposeManifest.model_validate(
        {
            "method": "lorahub",
            "template": work.params.template,
            "base": base,
            "device": device,
            "versions": versions,
            "inputs": ManifestInputs(modules=modules, **examples),
            "settings": composition.settings,
            "weights": composition.weights,
            "objective": composition.objective,
            "loss": composition.loss,
            "by_layer": composition.by_layer,
            "truncation_error": composition.truncation_error,
            "tune": Tuning.model_validate(tuning) if tuning else None,
            "report": _untimed(measured.report) if measured else None,
            "warnings": warnings,
        }
    )


def _untimed(report: Report) -> Report:
    """Without what differs from one run to the next."""
    return report.model_copy(
        update={"arms": [arm.model_copy(update={"seconds_an_answer": None}) for arm in report.arms]}
    )


def _parents(params: ComposeParams, modules: Sequence[PinnedModule], weights: Mapping[str, float]) -> list[Parent]:
    by_commit = {pinned.commit: weights[pinned.name] for pinned in modules}
    lineage = [Parent(commit, "module", weight) for commit, weight in by_commit.items()]
    return lineage + dataset_parents(params.examples, params.held_out)
