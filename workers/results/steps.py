"""Steps that several kinds of job share: read what they pin, measure, and write what they publish."""

import json
from collections.abc import Mapping, Sequence

import torch

from hub.lora.core import adapter
from hub.lora.core.adapter import Adapter
from hub.lora.core.bases import Base
from hub.lora.core.evaluate import Scores, evaluate
from hub.lora.core.examples import Example
from hub.lora.core.provenance import surroundings
from hub.lora.core.report import SLACK, check_held_out, longest_target
from hub.registry.content.history import Parent
from hub.registry.datasets.examples import PinnedExamples
from hub.registry.inspection.model_card import parse_card
from hub.registry.jobs.contracts.common import (
    BaseParams,
    Manifest,
    ManifestBase,
    ManifestInput,
    Params,
    PinnedModule,
)
from hub.registry.jobs.contracts.convert import PinnedWeights
from hub.registry.library.scores import Measurement
from hub.vocabulary import Metric, Template
from workers.runtime.work import BaseWork, Work

NOT_MEASURED = "No held-out examples were given, so nothing is known of how good the result is."

# --- reading ----------------------------------------------------------------------------------------------------------


def read_held_out(work: Work[Params], examples: Sequence[Example]) -> list[Example] | None:
    """None where none were given. Raises HeldOutUnusable, before any work is done, if they overlap the examples."""
    if work.params.measured is None:
        return None
    held_out = work.examples(work.params.measured)
    check_held_out(examples, held_out)
    return held_out


def dataset_template(work: Work[Params], pinned: PinnedExamples) -> str | None:
    """The template that a data set's card names as `prompt_template`, if it has a card that does."""
    path = work.fetch(pinned.commit) / "README.md"
    if not path.exists():
        return None
    value = parse_card(path.read_bytes()).front.get("prompt_template")
    return value if isinstance(value, str) else None


def other_templates(work: BaseWork[BaseParams]) -> list[tuple[str, str]]:
    """(data set, template) of those made with another prompt template than this job uses, whose prompts the result does not know."""
    sources = [*work.params.learnt, *([work.params.measured] if work.params.measured else [])]
    found = [(source.repo, dataset_template(work, source)) for source in sources]
    return [(repo, template) for repo, template in found if template not in (None, work.params.template) and template]


def template_warnings(work: BaseWork[BaseParams]) -> list[str]:
    used = work.params.template
    return [
        f"{repo} was made with the prompt template {template!r}, not {used!r}."
        for repo, template in other_templates(work)
    ]


# --- measuring --------------------------------------------------------------------------------------------------------


def room_for_answers(base: Base, held_out: Sequence[Example]) -> int:
    """In tokens: enough for the longest target."""
    return longest_target(base, held_out) + SLACK


def measure(
    work: BaseWork[BaseParams],
    name: str,
    module: Adapter | None,
    held_out: Sequence[Example],
    *,
    metrics: Sequence[Metric],
    max_new_tokens: int,
    seed: int,
) -> Scores:
    """Of one arm, as a phase of the job."""
    work.progress.enter(f"measure {name}")
    return evaluate(
        work.base,
        module,
        held_out,
        template=work.params.template,
        metrics=metrics,
        max_new_tokens=max_new_tokens,
        seed=seed,
        on_progress=work.progress,
    )


def measurements(scores: Scores, *, base_id: str, source: PinnedExamples, template: Template) -> list[Measurement]:
    """An arm's figures as the registry keeps them, each with its values by example, so that an alias gate can compare them."""
    return [
        Measurement(
            metric,
            estimate.mean,
            estimate.low,
            estimate.high,
            examples=len(scores.values[metric]),
            base_id=base_id,
            dataset_commit=source.commit,
            dataset_path=source.path,
            template=template,
            per_example=scores.values[metric],
        )
        for metric, estimate in scores.estimates.items()
    ]


def own_and_base(
    work: BaseWork[BaseParams], scores: Mapping[str, Scores], ours: str
) -> tuple[list[Measurement], list[tuple[str | None, Measurement]]]:
    """The figures of the result and of the base, on what the job held out; none where nothing was."""
    source = work.params.measured
    if not scores or source is None:
        return [], []
    own, base = (
        measurements(scores[name], base_id=work.base.id, source=source, template=work.params.template)
        for name in (ours, "base")
    )
    return own, [(None, figure) for figure in base]


# --- writing ----------------------------------------------------------------------------------------------------------


def manifest_input(work: Work[Params], pinned: PinnedModule | PinnedExamples | PinnedWeights) -> ManifestInput:
    path = None if isinstance(pinned, PinnedModule) else pinned.path
    folder = None if isinstance(pinned, PinnedExamples) else pinned.folder
    hashes = work.hashes(pinned.commit)
    prefix = path or folder or ""
    files = {name: digest for name, digest in hashes.items() if name.startswith(prefix)}
    return ManifestInput(repo=pinned.repo, commit=pinned.commit, folder=folder, path=path, files=files)


def manifest_inputs(
    work: Work[Params], **pinned: PinnedModule | PinnedExamples | PinnedWeights | None
) -> dict[str, ManifestInput]:
    """By role, without those that the job does not have."""
    return {role: manifest_input(work, value) for role, value in pinned.items() if value}


def manifest_surroundings(base: Base) -> tuple[ManifestBase, str, dict[str, str]]:
    """The base, the device and the libraries that the job used."""
    around = surroundings(base)
    return ManifestBase.model_validate(around.base), around.device, around.versions


def dataset_parents(*sources: PinnedExamples | None) -> list[Parent]:
    return [Parent(commit, "dataset") for commit in sorted({source.commit for source in sources if source})]


def write_adapter(work: Work[Params], result: Adapter) -> None:
    adapter.write(result, work.out, dtype=torch.float32)


def write_documents(work: Work[Params], manifest: Manifest, card: str) -> None:
    """loraloom.json and the model card."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
    (work.out / "loraloom.json").write_text(text, encoding="utf-8")
    (work.out / "README.md").write_text(card, encoding="utf-8")
