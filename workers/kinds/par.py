"""Job kind `par`: split the examples, train arm and controls stage by stage, measure after each; write adapter, card and manifest."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from statistics import fmean
from typing import Any

import torch

from hub.intervals import share_interval
from hub.lora.compose.report import SLACK, check_held_out, longest_target
from hub.lora.core import adapter
from hub.lora.core.adapter import Adapter
from hub.lora.core.batches import split
from hub.lora.core.evaluate import Estimate, Scores, evaluate
from hub.lora.core.examples import Example, exact_match, numeric_match
from hub.lora.core.provenance import surroundings
from hub.lora.par.grpo import Reinforced
from hub.lora.par.method import Arm, Settings, Systems, as_json, changed, described, run_arm
from hub.lora.par.rewards import answered
from hub.lora.par.systems import check_labelled, drawn, of_system, read_labels
from hub.lora.par.voting import Tally, Trust, tried, vote
from hub.lora.train.loop import Trained
from hub.registry.content.history import Parent
from hub.vocabulary import Metric, System
from workers.kinds.compose import dataset_template, input_of
from workers.kinds.train import VALIDATED, curve
from workers.results.cards import par_card
from workers.results.report import METRICS, paired_report
from workers.runtime.teachers import teachers_of
from workers.runtime.work import Outcome, Work

ROLES = ("examples", "held_out", "gold")
POINTS = 200  # of a curve of rewards
ALIKE = 0.9  # mean share of prompts with equal rewards above which a warning says that little was learnt from
ANSWERED_SHORTLY = {"exact_match", "length"}  # rewards that ask for nothing beside the target
JUDGES = {"exact_match": exact_match, "numeric": numeric_match}
WORDS = {
    "base": "the base alone",
    "sft": "the same module after stage 1",
    "lora": "plain LoRA, supervised on everything",
    "loraplus": "LoRA+, supervised on everything",
    "unpartitioned": "both stages without a partition",
    "pissa_rl": "both stages without a partition, from PiSSA's start",
    "random": "a random mask of equal size",
    "swapped": "each stage on the other's elements",
    "rl_first": "reinforcement before supervision",
}


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


def run(work: Work) -> Outcome:
    params = work.params
    settings = changed(params["settings"], params["changes"], params["seed"])
    data = _read(work)
    arms = {"par": _trained(work, data, settings, "par", None)}
    for name in params["compare"]:
        arms[name] = _trained(work, data, settings, name, arms["par"])
    scores = _measured(work, data, settings, arms)
    warnings = _warnings(work, data, settings, arms["par"])
    manifest = _manifest(work, data, settings, arms, scores, warnings)
    adapter.write(arms["par"].adapter, work.out, dtype=torch.float32)
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    (work.out / "loraloom.json").write_text(text, encoding="utf-8")
    (work.out / "README.md").write_text(par_card(params, manifest), encoding="utf-8")
    shown = ("settings", "split", "partition", "curve", "rewards", "optimizer_bytes", "accuracy", "report", "warnings")
    if data.vote is not None:
        (work.out / "votes.jsonl").write_text(_ballots(data.vote.tally), encoding="utf-8")
    datasets = {params[role]["commit"] for role in ROLES if role in params}
    return Outcome(
        result={key: manifest[key] for key in shown},
        folder=work.out,
        parents=[Parent(commit, "dataset") for commit in sorted(datasets)],
        scores=_kept_scores(work, data, scores),
        message=f"LoRA-PAR on {len(data.examples)} examples",
    )


def _read(work: Work) -> Data:
    params = work.params
    examples = work.examples(params["examples"])
    held_out = work.examples(params["held_out"]) if "held_out" in params else None
    if held_out is not None:
        check_held_out(examples, held_out)
    held_out_labels = work.read(params["held_out"], read_labels) if held_out else []
    vote = _voted(work, examples) if params["split"] == "vote" else None
    labels = vote.tally.systems if vote else _labels(work, examples)
    learnt = of_system(examples, labels, 1)
    if learnt:
        learnt, validated = split(learnt, params["validation_share"], params["seed"], VALIDATED)
    else:
        validated = []
    systems = Systems(learnt, of_system(examples, labels, 2), validated)
    return Data(examples, labels, held_out, held_out_labels if all(held_out_labels) else [], systems, vote)


def _voted(work: Work, examples: Sequence[Example]) -> Voted:
    gold = work.examples(work.params["gold"])
    known = work.read(work.params["gold"], read_labels)
    check_labelled(known)
    teachers = teachers_of(work, work.params["teachers"])
    work.progress.enter("try teachers")
    trust = tried(teachers, gold, [label for label in known if label], work.base.id, work.progress)
    work.progress.enter("vote")
    return Voted(trust, vote(teachers, examples, work.base.id, work.progress))


def _ballots(tally: Tally) -> str:
    """A line an example, in the order of the examples: what each teacher voted, and what came of it."""
    lines = [
        {"system": system, "votes": dict(zip(tally.votes, ballot, strict=True))}
        for system, *ballot in zip(tally.systems, *tally.votes.values(), strict=True)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def _labels(work: Work, examples: Sequence[Example]) -> Sequence[System | None]:
    if work.params["split"] == "random":
        return drawn(len(examples), work.params["seed"])
    labels = work.read(work.params["examples"], read_labels)
    check_labelled(labels)
    return labels


def _trained(work: Work, data: Data, settings: Settings, name: Any, ours: Arm | None) -> Arm:
    return run_arm(
        work.base,
        data.systems,
        settings,
        name,
        template=work.params["template"],
        found=ours.partition if ours else None,
        place=work.place,
        enter=work.progress.enter,
        on_progress=work.progress,
    )


def _measured(work: Work, data: Data, settings: Settings, arms: Mapping[str, Arm]) -> dict[str, Scores]:
    """Scores on the held-out examples of the base, of each stage, and of what each control ends with; none where none were given."""
    if data.held_out is None:
        return {}
    ours = arms["par"].stages
    measured: dict[str, Adapter | None] = {"base": None, "sft": ours[0].adapter, "module": ours[-1].adapter}
    measured |= {name: arm.adapter for name, arm in arms.items() if name != "par"}
    room = longest_target(work.base, data.held_out) + SLACK
    if not settings.reinforced.rewards.keys() <= ANSWERED_SHORTLY:
        room = max(room, settings.reinforced.max_answer)
    scores = {}
    for name, module in measured.items():
        work.progress.enter(f"measure {name}")
        found = evaluate(
            work.base,
            module,
            data.held_out,
            template=work.params["template"],
            metrics=_metrics(work),
            max_new_tokens=room,
            seed=settings.seed,
            on_progress=work.progress,
        )
        scores[name] = _judged(found, data.held_out)
    return scores


def _metrics(work: Work) -> tuple[Metric, ...]:
    measure: Metric = work.params["measure"]
    return (measure, *(metric for metric in METRICS if metric != measure))


def _judged(scores: Scores, examples: Sequence[Example]) -> Scores:
    """Where an answer has tags, what is between them is what counts, as it did when it was rewarded."""
    values = dict(scores.values)
    for metric in values.keys() & JUDGES.keys():
        pairs = zip(scores.answers, examples, strict=True)
        values[metric] = [float(JUDGES[metric](answered(text), example.target)) for text, example in pairs]
    return replace(scores, values=values)


def _warnings(work: Work, data: Data, settings: Settings, ours: Arm) -> list[str]:
    found, template = [], work.params["template"]
    for role in ("examples", "held_out"):
        made_with = dataset_template(work, work.params[role]) if role in work.params else None
        if made_with not in (None, template):
            found.append(
                f"{work.params[role]['repo']} was made with the prompt template {made_with!r}, not {template!r}."
            )
    for number, examples in enumerate((data.systems.system1, data.systems.system2), 1):
        if len(examples) < settings.sample:
            found.append(
                f"Only {len(examples)} examples of System {number} could be scored; {settings.sample} were asked for."
            )
    for stage in ours.stages:
        if stage.done.too_long:
            found.append(f"{stage.done.too_long} examples were too long for stage {stage.name} and were left out.")
        if isinstance(stage.done, Reinforced) and fmean(row["all_alike"] for row in stage.done.curve) > ALIKE:
            found.append(
                "Nearly all prompts had their answers rewarded alike, so reinforcement had little to learn from. Choose rewards that "
                "differ between answers, easier examples, or a higher temperature."
            )
        if isinstance(stage.done, Trained) and stage.done.ending == "diverged":
            found.append(f"Stage 1 diverged after step {len(stage.done.losses)}; it goes on from its best state.")
    if data.vote and data.vote.tally.ties:
        found.append(f"{data.vote.tally.ties} examples had no majority and were left out.")
    if data.held_out is None:
        found.append("No held-out examples were given, so nothing is known of how good the result is.")
    return found


def _manifest(
    work: Work,
    data: Data,
    settings: Settings,
    arms: Mapping[str, Arm],
    scores: Mapping[str, Scores],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Everything that made this adapter, so that the same manifest gives the same bytes. No times, no job ids."""
    params, ours = work.params, arms["par"]
    around = surroundings(work.base)
    partition, supervised = ours.partition, ours.stages[0].done
    return {
        "method": "lora-par",
        "template": params["template"],
        **around,
        "versions": {**dict(around["versions"]), "trl": version("trl")},  # type: ignore[call-overload]
        "inputs": {role: input_of(work, params[role]) for role in ROLES if role in params},
        "settings": {"named": params["settings"], **as_json(settings), "validation_share": params["validation_share"]},
        "split": {
            "by": params["split"],
            "system1": sum(label == 1 for label in data.labels),
            "system2": sum(label == 2 for label in data.labels),
            "validated": len(data.systems.validation),
            **_vote_of(data),
        },
        "partition": described(partition) if partition else None,
        "curve": {"module": curve(supervised)} if isinstance(supervised, Trained) else {},
        "rewards": {
            name: _rewards(stage.done)
            for name, arm in arms.items()
            for stage in arm.stages
            if isinstance(stage.done, Reinforced)
        },
        "optimizer_bytes": {
            name: {stage.name: stage.done.optimizer_bytes for stage in arm.stages} for name, arm in arms.items()
        },
        "accuracy": _accuracy(work, data, scores),
        "report": paired_report(scores, "module", WORDS, {}, seed=settings.seed, metrics=_metrics(work))
        if scores
        else None,
        "warnings": list(warnings),
    }


def _vote_of(data: Data) -> dict[str, Any]:
    """Each teacher's figures and the votes' agreement; votes.jsonl has what everyone said."""
    if data.vote is None:
        return {}
    return {"teachers": [asdict(trust) for trust in data.vote.trust], **data.vote.tally.summary()}


def _rewards(done: Reinforced) -> dict[str, Any]:
    """The curve of rewards as means of `every` steps."""
    every = -(-len(done.curve) // POINTS) or 1
    parts = [done.curve[at : at + every] for at in range(0, len(done.curve), every)]
    return {"every": every, "steps": [{name: fmean(row[name] for row in part) for name in part[0]} for part in parts]}


def _accuracy(work: Work, data: Data, scores: Mapping[str, Scores]) -> dict[str, Any]:
    """By arm the share of held-out examples that are right with its interval, of all and, where they have labels, of each system."""
    measure, found = _metrics(work)[0], {}
    for name, each in scores.items():
        values = each.values[measure]
        parts = {"all": values}
        for system in (1, 2):
            of_it = [value for value, label in zip(values, data.held_out_labels, strict=False) if label == system]
            parts |= {f"system{system}": of_it} if of_it else {}
        found[name] = {part: vars(Estimate(*share_interval(of_it))) for part, of_it in parts.items()}
    return {"measure": measure, "arms": found}


def _kept_scores(work: Work, data: Data, scores: Mapping[str, Scores]) -> list[dict[str, Any]]:
    """The figures of the result, whose commit the runner adds, and of the base."""
    if not scores:
        return []
    source = work.params["held_out"]
    what = {
        "base_id": work.base.id,
        "dataset_commit": source["commit"],
        "dataset_path": source["path"],
        "template": work.params["template"],
        "examples": len(data.held_out or ()),
    }
    return [
        {**what, **pins, "metric": metric, "value": estimate.mean, "low": estimate.low, "high": estimate.high}
        for name, pins in (("module", {}), ("base", {"commit_id": None}))
        for metric, estimate in scores[name].estimates.items()
    ]
