"""Job kind `reduce`: a base with the cuts that suit a task, as an adapter; or an adapter made smaller. Measured before and after."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hub.drawing import svg
from hub.lora.core import adapter
from hub.lora.core.adapter import Adapter, applied
from hub.lora.core.bases import as_stored
from hub.lora.core.evaluate import Scores
from hub.lora.core.examples import Example
from hub.lora.core.report import MEASURED, paired_report
from hub.lora.reduce import factored
from hub.lora.reduce.as_adapter import as_adapter, merged_into_base
from hub.lora.reduce.gains import edited, matrices
from hub.lora.reduce.objective import has_choices
from hub.lora.reduce.scan import VARIANTS, Reduction, Scan, scan
from hub.lora.reduce.shrink import Shrink, shrink
from hub.registry.content.history import Parent
from hub.registry.jobs.contracts.common import ManifestInputs
from hub.registry.jobs.contracts.reduce import (
    PER_QUESTION,
    PER_TOKEN,
    ComponentTrial,
    Cut,
    CutTrial,
    Kept,
    Loss,
    Reduced,
    ReduceManifest,
    ReduceParams,
    ReduceResult,
    ReduceSettings,
    Size,
    Spectrum,
)
from hub.vocabulary import COMPONENT_SCORES, CUT_SCORES, Metric
from workers.results.cards import card
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

SERVED = 512  # the largest rank that vLLM can be told to serve
FEW = 100
WORDS = {"base": "the base as it is", "module": "the adapter as it is"}

ReduceWork = BaseWork[ReduceParams]


@dataclass(frozen=True)
class Made:
    """`rank` is the adapter's largest, None where no adapter was made; `written` is False where nothing helped; `scores` are those on the
    held-out examples; `spectra` are the singular values of each matrix that was cut, for the job's page."""

    written: bool
    reduced: Reduced
    scores: dict[str, Scores] = field(default_factory=dict)
    rank: int | None = None
    spectra: Sequence[Spectrum] = ()


def run(work: ReduceWork) -> Outcome[ReduceResult]:
    params = work.params
    examples = work.examples(params.examples)
    held_out = read_held_out(work, examples)
    module = work.module(params.module) if params.module else None
    if params.subject == "module" and module is not None:
        made = _smaller(work, module, examples, held_out)
    else:
        made = _reduced(work, module, examples, held_out)
    manifest = _manifest(work, made, len(examples))
    if made.written:
        write_documents(work, manifest, card("reduce", params, manifest))
    modules = [Parent(params.module.commit, "module")] if params.module else []
    own, of_base = own_and_base(work, made.scores, "reduction")
    return Outcome(
        result=ReduceResult(
            **dict(made.reduced),
            settings=manifest.settings,
            report=manifest.report,
            warnings=manifest.warnings,
            spectra=list(made.spectra),
        ),
        folder=work.out if made.written else None,
        adapter=made.rank is not None,
        parents=modules + dataset_parents(params.examples, params.held_out),
        scores=own,
        other_scores=of_base,
        message=f"Reduce {params.module.repo if params.module and params.subject == 'module' else work.base.id}",
    )


def _reduced(
    work: ReduceWork, module: Adapter | None, examples: Sequence[Example], held_out: Sequence[Example] | None
) -> Made:
    work.progress.enter("scan")
    with merged_into_base(work.base, module):
        reduction = scan(
            work.base,
            examples,
            _scan_settings(work.params),
            decompose=work.decompose,
            on_progress=work.progress,
        )
    reduced = Reduced(
        cuts=[Cut.model_validate(cut) for cut in reduction.cuts],
        loss=Loss(
            before=reduction.before,
            after=reduction.loss,
            unit=PER_QUESTION if has_choices(examples) else PER_TOKEN,
        ),
        trials=[CutTrial.model_validate(trial) for trial in reduction.trials],
        matrices=reduction.matrices,
    )
    if not reduction.cuts:
        return Made(False, reduced)
    work.progress.enter("write")
    reduced, rank = _write(work, reduction, module, reduced)
    spectra = _draw(work, reduction)
    scores = {}
    if held_out is not None:
        scores["base"] = _measured(work, "base", held_out)
        if module is not None:
            with applied(work.base.model, module):
                scores["module"] = _measured(work, "module", held_out)
        with merged_into_base(work.base, module), edited(matrices(work.base), reduction.cuts, work.decompose):
            scores["reduction"] = _measured(work, "reduction", held_out)
    return Made(True, reduced, scores, rank, spectra)


def _scan_settings(params: ReduceParams) -> Scan:
    usual = Scan(template=params.template)
    return Scan(
        template=params.template,
        variant=VARIANTS[params.variant] if params.variant else usual.variant,
        score=next((score for score in CUT_SCORES if score == params.score), usual.score),
        top=params.top or usual.top,
        budget=params.budget or usual.budget,
        seed=params.seed,
    )


def _write(
    work: ReduceWork, reduction: Reduction, module: Adapter | None, reduced: Reduced
) -> tuple[Reduced, int | None]:
    """Write the result in the form that was asked for. Returns what that adds to what is said of it, and an adapter's largest rank."""
    # Of weights that were rounded to compute faster, the tails would be others than those of the base that users load.
    base, cuts = as_stored(work.base), reduction.cuts
    if work.params.form == "model":
        with merged_into_base(base, module), edited(matrices(base), cuts, work.decompose):
            base.model.save_pretrained(work.out)
        base.tokenizer.save_pretrained(work.out)
        return reduced, None
    if work.params.form == "factors":
        size = Size.model_validate(factored.write(base, cuts, work.out, work.decompose))
        return reduced.model_copy(update={"size": size}), None
    made = as_adapter(base, cuts, module, work.decompose)
    write_adapter(work, made)
    ranked = [cut.model_copy(update={"adapter_rank": made.pairs[cut.path].rank}) for cut in reduced.cuts or []]
    return reduced.model_copy(update={"cuts": ranked}), adapter.largest_rank([made])


def _draw(work: ReduceWork, reduction: Reduction) -> list[Spectrum]:
    """Pictures beside the card, and the spectra that they are drawn from."""
    layers, spectra = matrices(work.base), list[Spectrum]()
    for number, cut in enumerate(reduction.cuts, 1):
        sigma = work.decompose(layers[cut.path].weight).sigma.tolist()
        kept = max(1, int(cut.share * len(sigma)))
        values = [float(f"{value:.4g}") for value in sigma]
        spectra.append(Spectrum(path=cut.path, kept=kept, values=values))
        picture = svg.spectrum(cut.path, sigma, kept)
        (work.out / f"spectrum{number}.svg").write_text(svg.standalone(picture), encoding="utf-8")
    if reduction.matrices:
        drawn = svg.gains(reduction.matrices, [cut.path for cut in reduction.cuts])
        (work.out / "gains.svg").write_text(svg.standalone(drawn), encoding="utf-8")
    return spectra


def _smaller(
    work: ReduceWork, module: Adapter, examples: Sequence[Example], held_out: Sequence[Example] | None
) -> Made:
    params = work.params
    work.progress.enter("drop components")
    usual = Shrink(template=params.template)
    settings = Shrink(
        template=params.template,
        order=next((score for score in COMPONENT_SCORES if score == params.score), usual.order),
        loss_budget=usual.loss_budget if params.loss_budget is None else params.loss_budget,
    )
    result = shrink(work.base, module, examples, settings, on_progress=work.progress)
    write_adapter(work, result.adapter)
    scores = {}
    if held_out is not None:
        for name, each in (("base", None), ("module", module), ("reduction", result.adapter)):
            with applied(work.base.model, each):
                scores[name] = _measured(work, name, held_out)
    ranks = {path: pair.rank for path, pair in result.adapter.pairs.items()}
    reduced = Reduced(
        components=Kept(given=result.given, kept=result.components),
        parameters=Kept(given=_parameters(module), kept=_parameters(result.adapter)),
        loss=Loss(before=result.before, after=result.loss, unit=PER_TOKEN),
        trials=[ComponentTrial.model_validate(trial) for trial in result.trials],
        ranks=ranks,
    )
    return Made(True, reduced, scores, max(ranks.values()))


def _parameters(given: Adapter) -> int:
    return sum(pair.a.numel() + pair.b.numel() for pair in given.pairs.values())


def _measured(work: ReduceWork, name: str, held_out: Sequence[Example]) -> Scores:
    """Of the base as it stands at this moment."""
    room = room_for_answers(work.base, held_out)
    metrics = _metrics(held_out)
    return measure(work, name, None, held_out, metrics=metrics, max_new_tokens=room, seed=work.params.seed)


def _metrics(held_out: Sequence[Example]) -> tuple[Metric, ...]:
    """What is measured; a verdict is of the first. A question with choices is answered by the likeliest of them."""
    return ("choice", *MEASURED) if has_choices(held_out) else MEASURED


def _warnings(work: ReduceWork, made: Made, examples: int) -> list[str]:
    warnings = template_warnings(work)
    if examples < FEW:
        warnings.append(f"Only {examples} examples decide what goes; the paper takes {FEW}.")
    if not made.written:
        warnings.append("No cut that was tried lowers the loss, so there is no result: it is best as it is.")
    if made.rank is not None and made.rank > SERVED:
        warnings.append(
            f"The adapter's rank is {made.rank}; serving engines refuse more than {SERVED}. Merge it into the base, or ask for "
            "the form model."
        )
    if work.params.held_out is None:
        warnings.append(NOT_MEASURED)
    return warnings


def _manifest(work: ReduceWork, made: Made, examples: int) -> ReduceManifest:
    params = work.params
    base, device, versions = manifest_surroundings(work.base)
    report = None
    if made.scores:
        metrics = tuple(made.scores["reduction"].values)
        report = paired_report(made.scores, "reduction", WORDS, {}, seed=params.seed, metrics=metrics)
    return ReduceManifest(
        **dict(made.reduced),
        method="reduction",
        template=params.template,
        base=base,
        device=device,
        versions=versions,
        inputs=ManifestInputs(
            **manifest_inputs(work, module=params.module, examples=params.examples, held_out=params.held_out)
        ),
        settings=ReduceSettings.model_validate({**dict(params), "examples": examples}),
        report=report,
        warnings=_warnings(work, made, examples),
    )
