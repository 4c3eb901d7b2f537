"""Does a composition earn its keep? It is measured beside the controls of `hub.lora.compose.controls`, which are simpler."""

from collections.abc import Mapping, Sequence

from hub.formats.report import Report
from hub.lora.compose.controls import Control
from hub.lora.core.bases import Base
from hub.lora.core.evaluate import Scores, evaluate
from hub.lora.core.examples import Example, OnProgress
from hub.lora.core.report import MEASURED, SLACK, longest_target, report_against_strongest
from hub.vocabulary import ComposeArm

WORDS: dict[ComposeArm, str] = {
    "base": "the base alone",
    "five_shot": "the base shown examples in its prompt",
    "best_single": "the best single adapter",
    "average": "the plain average of the adapters",
    "random_weights": "the adapters at random weights",
    "random_modules": "a composition of adapters drawn at random",
    "fresh_lora": "a fresh LoRA trained on the same examples",
    "best_single_tuned": "the best single adapter, trained further on the same examples",
    "untuned": "the composition before its tuning",
    "composition": "the composition",
}


def measure_controls(
    base: Base,
    arms: Mapping[ComposeArm, Control],
    held_out: Sequence[Example],
    *,
    template: str,
    batch_size: int = 32,
    seed: int = 0,
    on_progress: OnProgress,
) -> dict[ComposeArm, Scores]:
    """Score every arm, the composition among them, on `held_out`, in the order of WORDS.

    Whatever `on_progress(step, total, values)` raises ends the work between batches, with the base as it was.
    """
    total, room = len(arms) * len(held_out), longest_target(base, held_out) + SLACK
    scores: dict[ComposeArm, Scores] = {}
    for index, name in enumerate(name for name in WORDS if name in arms):
        arm = arms[name]
        scores[name] = evaluate(
            base,
            arm.adapter,
            held_out,
            template=template,
            metrics=MEASURED,
            max_new_tokens=room,
            batch_size=batch_size,
            seed=seed,
            shots=arm.shots,
            on_progress=_after(index * len(held_out), total, on_progress),
        )
    return scores


def _after(done: int, total: int, on_progress: OnProgress) -> OnProgress:
    return lambda step, _of, values: on_progress(done + step, total, values)


def composition_report(
    scores: Mapping[ComposeArm, Scores], made_by: Mapping[ComposeArm, Mapping[str, object]], *, examples: int, seed: int
) -> Report:
    """The composition beside its controls; `examples` says how many it was made from."""
    return report_against_strongest(
        {str(name): score for name, score in scores.items()},
        "composition",
        {str(name): words for name, words in WORDS.items()},
        {str(name): settings for name, settings in made_by.items()},
        examples=examples,
        seed=seed,
    )
