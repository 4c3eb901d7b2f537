"""The built-in base writes numbers in words: half of the examples, drawn at random, are supervised, the others reinforced.

By size the numbers would make better systems, but after supervision on those below a hundred none of the larger ones is right, and where no
answer is ever rewarded there is nothing to reinforce. 120 held-out numbers that no stage sees. One seed: an arm takes minutes on a
processor.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from bench.harness import Cell
from hub.lora.core.adapter import Adapter
from hub.lora.core.bases import Base, load
from hub.lora.core.built_in import BUILT_IN_ID, convert_built_in
from hub.lora.core.evaluate import evaluate
from hub.lora.core.examples import Example
from hub.lora.par.grpo import Reinforced, Reinforcement
from hub.lora.par.method import Settings, Systems, run_arm
from hub.lora.par.systems import drawn, of_system
from hub.lora.train.loop import Recipe
from hub.starter.tasks import TASKS
from hub.vocabulary import ParArm

FOLDER = Path(__file__).parents[1] / "data" / "bench" / "built-in"
ARMS: tuple[ParArm, ...] = ("par", "unpartitioned")
SETTINGS = Settings(
    start="probe",
    sample=50,
    supervised=Recipe(target_modules=["q_proj", "v_proj"], learning_rate=1e-3, ratio=1.0, steps=40, batch_size=16),
    reinforced=Reinforcement(learning_rate=3e-4, steps=20, batch_size=32, max_answer=16, warmup=0.1),
)


@cache
def _data() -> tuple[Systems, list[Example]]:
    (task,) = [task for task in TASKS if task.name == "number-words"]
    learnt = [Example(pair.input, pair.target) for pair in task.train]
    labels = drawn(len(learnt), seed=0)
    systems = Systems(of_system(learnt, labels, 1), of_system(learnt, labels, 2))
    return systems, [Example(pair.input, pair.target) for pair in task.held_out]


@cache
def _base() -> Base:
    disable_progress_bar()
    return load(convert_built_in(FOLDER), id=BUILT_IN_ID)


def _right(adapter: Adapter | None) -> float:
    """Of the held-out numbers."""
    scores = evaluate(
        _base(),
        adapter,
        _data()[1],
        template="plain",
        metrics=("exact_match",),
        max_new_tokens=16,
        on_progress=lambda *_: None,
    )
    return scores.estimates["exact_match"].mean


@cache
def _figures(arm: ParArm) -> dict[str, float]:
    done = run_arm(_base(), _data()[0], SETTINGS, arm, template="plain", on_progress=lambda *_: None)
    found = {f"right after {stage.name}": _right(stage.adapter) for stage in done.stages}
    rewards = next(stage.done.curve for stage in done.stages if isinstance(stage.done, Reinforced))
    found["mean reward of the first five steps"] = sum(row["reward"] for row in rewards[:5]) / 5
    found["mean reward of the last five steps"] = sum(row["reward"] for row in rewards[-5:]) / 5
    return found


def number_cells() -> Sequence[Cell]:
    cells = [Cell("built-in base, numbers in words: base alone", "share", lambda: (_right(None), None))]
    for arm in ARMS:
        for what in (
            "right after sft",
            "right after grpo",
            "mean reward of the first five steps",
            "mean reward of the last five steps",
        ):
            run = lambda arm=arm, what=what: (_figures(arm)[what], None)  # noqa: E731
            cells.append(Cell(f"built-in base, numbers in words, {arm}: {what}", "share", run))
    return cells
