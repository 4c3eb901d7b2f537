"""Job kind `par`: split the examples, train arm and controls stage by stage, measure after each; write adapter, card and manifest."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from statistics import fmean

from hub.formats.report import Estimate
from hub.intervals import share_interval
from hub.lora.core.adapter import Adapter
from hub.lora.core.batches import split
from hub.lora.core.evaluate import Scores
from hub.lora.core.examples import Example, exact_match, numeric_match
from hub.lora.core.report import MEASURED, paired_report
from hub.lora.par.grpo import Reinforced
from hub.lora.par.method import Arm, Settings, Systems, as_json, changed, described, run_arm
from hub.lora.par.rewards import answered
from hub.lora.par.systems import check_labelled, drawn, of_system, read_labels
from hub.lora.par.voting import Tally, Trust, tried, vote
from hub.lora.train.loop import Trained
from hub.registry.datasets.examples import PinnedExamples
from hub.registry.jobs.contracts.common import ManifestInputs
from hub.registry.jobs.contracts.par import (
    Accuracy,
    ParManifest,
    ParParams,
    ParResult,
    ParSettings,
    PartitionSizes,
    Split,
)
from hub.vocabulary import Metric, ParArm, System
from workers.results.cards import card
from workers.results.curves import reward_curve, training_curve
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
from workers.runtime.teachers import teachers_of
from workers.runtime.work import BaseWork, Outcome

VALIDATED = 200  # examples at most, as in training
ALIKE = 0.9  # mean share of prompts with equal rewards above which a warning says that little was learnt from
ANSWERED_SHORTLY = {"exact_match", "length"}  # rewards that ask for nothing beside the target
JUDGES = {"exact_match": exact_match, "numeric": numeric_match}
WORDS = {
    "base": "the base alone",
    "sft": "the same adapter after stage 1",
    "lora": "plain LoRA, supervised on everything",
    "loraplus": "LoRA+, supervised on everything",
    "unpartitioned": "both stages without a partition",
    "pissa_rl": "both stages without a partition, from PiSSA's start",
    "random": "a random mask of equal size",
    "swapped": "each stage on the other's elements",
    "rl_first": "reinforcement before supervision",
}


ParWork = BaseWork[ParParams]


@dataclass(frozen=True)
class Voted:
    """How the teachers did on the gold examples, and how they voted on the others."""

    trust: list[Trust]
    tally: Tally


@dataclass(frozen=True)
class Data:
    """`labels` say the system of every example, `held_out_labels` those of the held-out ones where all of them have one."""

    examples: list[Example]
    labels: Sequence[System | None]
    held_out: list[Example] | None
    held_out_labels: Sequence[System | None]
    systems: Systems
    vote: Voted | None


def run(work: ParWork) -> Outcome[ParResult]:
    params = work.params
    settings = changed(params.preset, params.changes.model_dump(), params.seed)
    data = _read(work)
    arms: dict[ParArm, Arm] = {"par": _trained(work, data, settings, "par", None)}
    for name in params.compare:
        arms[name] = _trained(work, data, settings, name, arms["par"])
    scores = _measured(work, data, settings, arms)
    manifest = _manifest(work, data, settings, arms, scores, _warnings(work, data, settings, arms["par"]))
    write_adapter(work, arms["par"].adapter)
    write_documents(work, manifest, card("par", params, manifest))
    if data.vote is not None:
        (work.out / "votes.jsonl").write_text(_ballots(data.vote.tally), encoding="utf-8")
    own, of_base = own_and_base(work, scores, "module")
    return Outcome(
        result=ParResult.model_validate(manifest),
        folder=work.out,
        parents=dataset_parents(params.examples, params.held_out, params.gold),
        scores=own,
        other_scores=of_base,
        message=f"LoRA-PAR on {len(data.examples)} examples",
    )


def _read(work: ParWork) -> Data:
    params = work.params
    examples = work.examples(params.examples)
    held_out = read_held_out(work, examples)
    held_out_labels = work.read(params.held_out, read_labels) if params.held_out and held_out else []
    vote = _voted(work, params.gold, examples) if params.gold else None
    labels = vote.tally.systems if vote else _labels(work, examples)
    learnt = of_system(examples, labels, 1)
    validated: list[Example] = []
    if learnt:
        learnt, validated = split(learnt, params.validation_share, params.seed, VALIDATED)
    systems = Systems(learnt, of_system(examples, labels, 2), validated)
    return Data(examples, labels, held_out, held_out_labels if all(held_out_labels) else [], systems, vote)


def _voted(work: ParWork, gold: PinnedExamples, examples: Sequence[Example]) -> Voted:
    gold_examples = work.examples(gold)
    known = work.read(gold, read_labels)
    check_labelled(known)
    teachers = teachers_of(work, work.params.teachers)
    work.progress.enter("try teachers")
    trust = tried(teachers, gold_examples, [label for label in known if label], work.base.id, work.progress)
    work.progress.enter("vote")
    return Voted(trust, vote(teachers, examples, work.base.id, work.progress))


def _ballots(tally: Tally) -> str:
    """A line an example, in the order of the examples: what each teacher voted, and what came of it."""
    lines = [
        {"system": system, "votes": dict(zip(tally.votes, ballot, strict=True))}
        for system, *ballot in zip(tally.systems, *tally.votes.values(), strict=True)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def _labels(work: ParWork, examples: Sequence[Example]) -> Sequence[System | None]:
    if work.params.split == "random":
        return drawn(len(examples), work.params.seed)
    labels = work.read(work.params.examples, read_labels)
    check_labelled(labels)
    return labels


def _trained(work: ParWork, data: Data, settings: Settings, name: ParArm, ours: Arm | None) -> Arm:
    return run_arm(
        work.base,
        data.systems,
        settings,
        name,
        template=work.params.template,
        found=ours.partition if ours else None,
        place=work.place,
        enter=work.progress.enter,
        on_progress=work.progress,
    )


def _measured(work: ParWork, data: Data, settings: Settings, arms: Mapping[ParArm, Arm]) -> dict[str, Scores]:
    """Scores on the held-out examples of the base, of each stage, and of what each control ends with; none where none were given."""
    if data.held_out is None:
        return {}
    ours = arms["par"].stages
    measured: dict[str, Adapter | None] = {"base": None, "sft": ours[0].adapter, "module": ours[-1].adapter}
    measured |= {str(name): arm.adapter for name, arm in arms.items() if name != "par"}
    room = room_for_answers(work.base, data.held_out)
    if not settings.reinforced.rewards.keys() <= ANSWERED_SHORTLY:
        room = max(room, settings.reinforced.max_answer)
    scores = {}
    for name, module in measured.items():
        answers = measure(
            work,
            name,
            module,
            data.held_out,
            metrics=_metrics(work.params),
            max_new_tokens=room,
            seed=settings.seed,
        )
        scores[name] = _judged(answers, data.held_out)
    return scores


def _metrics(params: ParParams) -> tuple[Metric, ...]:
    return (params.measure, *(metric for metric in MEASURED if metric != params.measure))


def _judged(scores: Scores, examples: Sequence[Example]) -> Scores:
    """Where an answer has tags, what is between them is what counts, as it did when it was rewarded."""
    values = dict(scores.values)
    for metric in values.keys() & JUDGES.keys():
        pairs = zip(scores.answers, examples, strict=True)
        values[metric] = [float(JUDGES[metric](answered(text), example.target)) for text, example in pairs]
    return replace(scores, values=values)


def _warnings(work: ParWork, data: Data, settings: Settings, ours: Arm) -> list[str]:
    warnings = template_warnings(work)
    for number, examples in enumerate((data.systems.system1, data.systems.system2), 1):
        if len(examples) < settings.sample:
            warnings.append(
                f"Only {len(examples)} examples of System {number} could be scored; {settings.sample} were asked for."
            )
    for stage in ours.stages:
        if stage.done.too_long:
            warnings.append(f"{stage.done.too_long} examples were too long for stage {stage.name} and were left out.")
        if isinstance(stage.done, Reinforced) and fmean(row["all_alike"] for row in stage.done.curve) > ALIKE:
            warnings.append(
                "Nearly all prompts had their answers rewarded alike, so reinforcement had little to learn from. Choose rewards that "
                "differ between answers, easier examples, or a higher temperature."
            )
        if isinstance(stage.done, Trained) and stage.done.ending == "diverged":
            warnings.append(f"Stage 1 diverged after step {len(stage.done.losses)}; it goes on from its best state.")
    if data.vote and data.vote.tally.ties:
        warnings.append(f"{data.vote.tally.ties} examples had no majority and were left out.")
    if data.held_out is None:
        warnings.append(NOT_MEASURED)
    return warnings


def _manifest(
    work: ParWork,
    data: Data,
    settings: Settings,
    arms: Mapping[ParArm, Arm],
    scores: Mapping[str, Scores],
    warnings: Sequence[str],
) -> ParManifest:
    params, ours, metrics = work.params, arms["par"], _metrics(work.params)
    base, device, versions = manifest_surroundings(work.base)
    supervised = ours.stages[0].done
    named = {"named": params.preset, "validation_share": params.validation_share}
    return ParManifest(
        method="lora-par",
        template=params.template,
        base=base,
        device=device,
        versions={**versions, "trl": version("trl")},
        inputs=ManifestInputs(
            **manifest_inputs(work, examples=params.examples, held_out=params.held_out, gold=params.gold)
        ),
        settings=ParSettings.model_validate(as_json(settings) | named),
        split=_split(params, data),
        partition=PartitionSizes.model_validate(described(ours.partition)) if ours.partition else None,
        curve={"module": training_curve(supervised)} if isinstance(supervised, Trained) else {},
        rewards={
            name: reward_curve(stage.done)
            for name, arm in arms.items()
            for stage in arm.stages
            if isinstance(stage.done, Reinforced)
        },
        optimizer_bytes={
            name: {stage.name: stage.done.optimizer_bytes for stage in arm.stages} for name, arm in arms.items()
        },
        accuracy=_accuracy(params, data, scores),
        report=paired_report(scores, "module", WORDS, {}, seed=settings.seed, metrics=metrics) if scores else None,
        warnings=list(warnings),
    )


def _split(params: ParParams, data: Data) -> Split:
    """With each teacher's figures and the votes' agreement where there was a vote; votes.jsonl has every vote."""
    vote = {"teachers": data.vote.trust, **data.vote.tally.summary()} if data.vote else {}
    return Split.model_validate(
        {
            "by": params.split,
            "system1": sum(label == 1 for label in data.labels),
            "system2": sum(label == 2 for label in data.labels),
            "validated": len(data.systems.validation),
            **vote,
        }
    )


def _accuracy(params: ParParams, data: Data, scores: Mapping[str, Scores]) -> Accuracy:
    """Of all held-out examples and, where they have labels, of each system."""
    arms = {}
    for name, score in scores.items():
        values = score.values[params.measure]
        parts = {"all": values}
        for system in (1, 2):
            of_it = [value for value, label in zip(values, data.held_out_labels, strict=False) if label == system]
            parts |= {f"system{system}": of_it} if of_it else {}
        arms[name] = {part: Estimate(*share_interval(of_it)) for part, of_it in parts.items()}
    return Accuracy(measure=params.measure, arms=arms)
