"""What does a composition of existing modules give for a new task with few examples, beside what is simpler?

Twelve modules, the starter library's ten and two trained here, and eleven tasks that none of them was trained on, each with several
draws of training examples; every arm answers the same held-out items. A cell is one arm on one task and draw, kept as soon as it is
finished, so an interrupted run goes on where it ended. The unit of the summary's intervals is the pair of task and draw: each arm
minus the fresh LoRA on the same ones. The arms' settings were chosen on other draws of the same tasks.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from transformers.utils import logging

from bench.few_shot_tasks import NEW, TRAINED
from bench.harness import Cell, Row
from hub.intervals import bootstrap_interval
from hub.lora.compose.composition import compose_at_weights
from hub.lora.compose.gradient import GradientSearch, compose_by_gradient
from hub.lora.compose.search import Search, compose
from hub.lora.compose.train_further import FurtherTraining, train_further
from hub.lora.core.adapter import Adapter, applied, read, target_names, write
from hub.lora.core.bases import Base, load
from hub.lora.core.built_in import BUILT_IN_ID, BUILT_IN_SHA256, convert_built_in
from hub.lora.core.evaluate import evaluate
from hub.lora.core.examples import Example
from hub.lora.core.losses import encode_batches, mean_loss
from hub.lora.core.report import SLACK, longest_target
from hub.lora.train.loop import Recipe, train
from hub.starter.tasks import TEMPLATE, Task
from hub.starter.train import RECIPE, examples
from hub.vocabulary import Form

ROOT = Path(__file__).parent.parent
DRAWS, EXAMPLES, HELD_OUT, STEPS, RANK, RATE = 3, 5, 100, 20, 8, 1e-3
MORE_EXAMPLES = (10, 20, 50, 100)
FIRST = 8
FRESH = f"fresh LoRA, {STEPS} steps"
COMPOSED = "sum, gradient 10, then tuned"

Make = Callable[[Sequence[Example]], Adapter | None]


@dataclass(frozen=True)
class Place:
    """One task with one draw of so many examples."""

    task: Task
    draw: int
    count: int

    def __str__(self) -> str:
        return f"{self.task.name} | draw {self.draw} | {self.count} examples"

    @property
    def examples(self) -> list[Example]:
        pairs = random.Random(f"{self.task.name}, draw {self.draw}").sample(self.task.train, self.count)
        return [Example(pair.input, pair.target) for pair in pairs]


def cells() -> list[Cell]:
    """Exact match, target loss and the seconds that making the adapter took, in the order of what is worth knowing first.

    That is the arms that decide, all arms on the first FIRST tasks, the curve on these, and then both on the other tasks.
    """
    first = (FRESH, COMPOSED, "best single, then tuned", "average, then tuned")
    decisive = [(arm, Place(task, draw, EXAMPLES)) for draw in range(DRAWS) for task in NEW for arm in first]
    others = [arm for arm in _ARMS if arm not in first]
    runs = list(decisive)
    for tasks in (NEW[:FIRST], NEW[FIRST:]):
        runs += [(arm, Place(task, draw, EXAMPLES)) for draw in range(DRAWS) for task in tasks for arm in others]
        runs += _learning_curve(tasks)
    return [cell for arm, place in runs for cell in _cells(arm, place)]


def _learning_curve(tasks: Sequence[Task]) -> list[tuple[str, Place]]:
    places = [Place(task, 0, count) for count in MORE_EXAMPLES for task in tasks if len(task.train) >= count]
    return [(arm, place) for place in places for arm in (FRESH, COMPOSED)]


def _cells(arm: str, place: Place) -> list[Cell]:
    return [
        Cell(f"exact match | {arm} | {place}", "", _figure(arm, place, 0), better="higher"),
        Cell(f"target loss | {arm} | {place}", "nats", _figure(arm, place, 1)),
        Cell(f"seconds | {arm} | {place}", "s", _figure(arm, place, 2)),
    ]


def summary(rows: Sequence[Row]) -> str:
    """Per number of examples and arm the means over all tasks and draws that have a fresh LoRA too, and the differences to that."""
    figures: dict[str, dict[tuple[str, str], float]] = {}
    for row in rows:
        kind, arm, place = row.measure.split(" | ", 2)
        figures.setdefault(kind, {})[arm, place] = row.ours
    lines = []
    for count in (EXAMPLES, *MORE_EXAMPLES):
        end = f" | {count} examples"
        fresh = [place for arm, place in figures.get("seconds", {}) if arm == FRESH and place.endswith(end)]
        if fresh:
            lines += [f"{count} examples", *_table(figures, fresh), ""]
    return "\n".join(lines)


def _table(figures: dict[str, dict[tuple[str, str], float]], fresh: Sequence[str]) -> list[str]:
    lines = [
        f"{'arm':40} task-draws  exact match  minus the fresh LoRA     target loss  minus the fresh LoRA     seconds"
    ]
    for arm in _ARMS:
        places = [place for place in fresh if (arm, place) in figures["seconds"]]
        if places:
            told = [f"{arm:40} {len(places):10}"]
            for kind in ("exact match", "target loss"):
                values = [figures[kind][arm, place] for place in places]
                differences = [value - figures[kind][FRESH, place] for value, place in zip(values, places, strict=True)]
                mean, low, high = bootstrap_interval(differences, seed=0)
                told.append(f"{sum(values) / len(values):11.3f}  {mean:+.3f} [{low:+.3f}, {high:+.3f}]")
            seconds = [figures["seconds"][arm, place] for place in places]
            lines.append("  ".join([*told, f"{sum(seconds) / len(seconds):8.1f}"]))
    return lines


def _figure(arm: str, place: Place, index: int) -> Callable[[], tuple[float, None]]:
    if arm == "base":
        place = replace(place, draw=0)  # it is given no examples, so no draw changes what it answers
    return lambda: (_measured(arm, place)[index], None)


@cache
def _measured(arm: str, place: Place) -> tuple[float, float, float]:
    """(exact match, target loss, seconds to make)."""
    given = place.examples
    held_out = [Example(pair.input, pair.target) for pair in place.task.held_out[:HELD_OUT]]
    _modules()  # loaded before the clock starts
    started = time.perf_counter()
    adapter = _ARMS[arm](given)
    seconds = time.perf_counter() - started
    scores = evaluate(
        _base(),
        adapter,
        held_out,
        template=TEMPLATE,
        metrics=("exact_match", "target_loss"),
        max_new_tokens=longest_target(_base(), held_out) + SLACK,
        batch_size=50,
        shots=given if arm == "five-shot prompt" else (),
        on_progress=_silent,
    )
    found = scores.estimates
    return found["exact_match"].mean, found["target_loss"].mean, seconds


@cache
def _base() -> Base:
    logging.disable_progress_bar()
    return load(convert_built_in(ROOT / "data/bench" / BUILT_IN_SHA256[:12]), id=BUILT_IN_ID)


@cache
def _modules() -> list[Adapter]:
    return [_module(task) for task in TRAINED]


def _module(task: Task) -> Adapter:
    """The starter library's, or one trained by the same recipe and kept."""
    shipped, kept = ROOT / "hub/starter/modules" / task.name, ROOT / "data/bench/modules" / task.name
    if shipped.exists():
        return read(shipped)
    if not kept.exists():
        recipe = Recipe(**RECIPE, ratio=1.0)
        trained = train(_base(), examples(task.train), recipe, template=TEMPLATE, on_progress=_silent)
        write(trained.adapter, kept, dtype=torch.bfloat16)
    return read(kept)


def _silent(_step: int, _total: int, _values: dict[str, float]) -> None:
    return


# --- the arms ---------------------------------------------------------------------------------------------------------


def _best_single(examples: Sequence[Example]) -> Adapter:
    batches, losses = encode_batches(_base(), examples, TEMPLATE), {}
    for module in _modules():
        with applied(_base().model, module):
            losses[module.name] = mean_loss(_base(), batches)
    return min(_modules(), key=lambda module: losses[module.name])


def _average(_examples: Sequence[Example]) -> Adapter:
    count = len(_modules())
    return compose_at_weights(_base(), _modules(), [1 / count] * count, form="sum").adapter


def _searched(form: Form, optimizer: str, budget: int) -> Make:
    def make(examples: Sequence[Example]) -> Adapter:
        return compose(
            _base(),
            _modules(),
            examples,
            Search(form=form, template=TEMPLATE, optimizer=optimizer, budget=budget),
            on_progress=_silent,
        ).adapter

    return make


def _by_gradient(form: Form, *, per_layer: bool = False, budget: int = 10) -> Make:
    def make(examples: Sequence[Example]) -> Adapter:
        return compose_by_gradient(
            _base(),
            _modules(),
            examples,
            GradientSearch(form=form, template=TEMPLATE, per_layer=per_layer, budget=budget),
            on_progress=_silent,
        ).adapter

    return make


def _fresh(examples: Sequence[Example]) -> Adapter:
    names = target_names(_base().model, {path for module in _modules() for path in module.pairs})
    recipe = Recipe(rank=RANK, alpha=2 * RANK, target_modules=names, steps=STEPS, learning_rate=RATE, ratio=1.0, seed=0)
    return train(_base(), examples, recipe, template=TEMPLATE, on_progress=_silent).adapter


def _then_tuned(start: Make) -> Make:
    def make(examples: Sequence[Example]) -> Adapter:
        made = start(examples)
        assert made is not None, "the base alone is no start"
        return train_further(
            _base(),
            made,
            examples,
            FurtherTraining(rank=RANK, steps=STEPS, learning_rate=RATE),
            template=TEMPLATE,
            on_progress=_silent,
        ).adapter

    return make


def _base_alone(_examples: Sequence[Example]) -> None:
    return None


def _random_weights(examples: Sequence[Example]) -> Adapter:
    generator = random.Random(examples[0].input)
    return compose_at_weights(
        _base(), _modules(), [generator.uniform(-1.5, 1.5) for _ in _modules()], form="sum"
    ).adapter


def _random_modules(examples: Sequence[Example]) -> Adapter:
    """Half of the modules, drawn at random, otherwise as the composition that is tuned."""
    drawn = random.Random(examples[0].input).sample(_modules(), len(_modules()) // 2)
    return compose_by_gradient(
        _base(), drawn, examples, GradientSearch(form="sum", template=TEMPLATE, budget=10), on_progress=_silent
    ).adapter


# At about equal time: an evaluation with gradients costs some three without, and about as much as a step of training.
_ARMS: dict[str, Make] = {
    FRESH: _fresh,
    COMPOSED: _then_tuned(_by_gradient("sum")),
    "best single, then tuned": _then_tuned(_best_single),
    "average, then tuned": _then_tuned(_average),
    "half at random, gradient 10, then tuned": _then_tuned(_random_modules),
    "base": _base_alone,
    "five-shot prompt": _base_alone,
    "best single": _best_single,
    "average": _average,
    "random weights": _random_weights,
    "sum, NGOpt-40": _searched("sum", "NGOpt", 40),
    "sum, CMA-40": _searched("sum", "CMA", 40),
    "sum, gradient 13": _by_gradient("sum", budget=13),
    "sum, gradient 13 by layer": _by_gradient("sum", per_layer=True, budget=13),
    "product, NGOpt-40": _searched("product", "NGOpt", 40),
    "product, CMA-40": _searched("product", "CMA", 40),
    "product, gradient 13": _by_gradient("product", budget=13),
    "product, gradient 13 by layer": _by_gradient("product", per_layer=True, budget=13),
}
