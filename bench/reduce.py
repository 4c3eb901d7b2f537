"""Reduction: the paper's four variants beside each other on four tasks, how good the predictions are, and adapters made smaller.

Each task has two answers to choose from and 2,000 items. As LASER does (arXiv 2312.13558, and its code), the first fifth chooses and
the rest is for testing, of which all arms here answer the same HELD_OUT. LASER measures the accuracy of every cell of its grid on the whole
first fifth; on a CPU a seeded tenth of the cells is measured and the time multiplied by ten, so its accuracy is that of the best of the
tenth. All arms share one evaluator in batches, which is kinder to LASER than its own code, which loads the model and answers one by one.

Smaller adapters: four modules of the starter library, beside truncation by energy over all matrices, PEFT's `convert_to_lora` by energy,
and the truncated SVD at one rank for all matrices, each at no fewer parameters than ours.

Memory: the gradient of every matrix of a random model of 1.1 billion parameters in bfloat16, and the scores of one of each shape.
"""

import json
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from peft import PeftModel, convert_to_lora
from scipy.stats import spearmanr
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from bench.choice_tasks import QUESTIONS, task_items
from bench.harness import RESULTS, Cell, Row, table
from bench.large_model import base_folder, peak_over_weights
from hub.drawing import svg
from hub.lora.core.adapter import Adapter, Pair, applied, read
from hub.lora.core.bases import Base, load
from hub.lora.core.built_in import BUILT_IN_ID
from hub.lora.core.decompose import svd
from hub.lora.core.evaluate import Scores, evaluate
from hub.lora.core.examples import Example
from hub.lora.core.losses import encode_batches, mean_loss
from hub.lora.reduce.gains import Cut, edited, matrices
from hub.lora.reduce.scan import VARIANTS, Scan, grid, scan, score_cuts
from hub.lora.reduce.shrink import Shrink, cheapest_first, components, costs, shrink, without
from hub.starter.tasks import TASKS, TEMPLATE
from hub.vocabulary import Metric, VariantName

Arm = VariantName | Literal["base"]

ROOT = Path(__file__).parent.parent
SHARE_OF_GRID = 10
TRIED = 20  # cuts that our variants measure, where the default is 10
TRIALS = RESULTS / "reduce-trials.json"
OURS: tuple[VariantName, ...] = ("100g-std", "100g-100e", "cl-100g-100e")


# --- the four variants ------------------------------------------------------------------------------------------------


def _evaluated(items: Sequence[Example]) -> Scores:
    return evaluate(_base(), None, items, template=TEMPLATE, metrics=("choice", "target_loss"), on_progress=_silent)


def _laser(task: str) -> dict[str, Any]:
    """A seeded tenth of the grid, each cell on all choosing items; the best accuracy wins, the lower loss among equals."""
    choosing, _ = task_items(task)
    layers = matrices(_base())
    cells = grid(layers, VARIANTS["laser"])
    drawn = random.Random(f"{task}, grid").sample(cells, len(cells) // SHARE_OF_GRID)
    trials: list[dict[str, Any]] = []
    started = time.perf_counter()
    for cut in drawn:
        with edited(layers, (cut,)):
            found = _evaluated(choosing).estimates
        trials.append({"cut": asdict(cut), "accuracy": found["choice"].mean, "loss": found["target_loss"].mean})
    seconds = (time.perf_counter() - started) * len(cells) / len(drawn)
    best = max(trials, key=lambda trial: (trial["accuracy"], -trial["loss"]))
    return {"seconds": seconds, "trials": len(cells), "items": len(choosing), "cuts": [best["cut"]], "measured": trials}


def _ours(variant: VariantName, task: str) -> dict[str, Any]:
    choosing, _ = task_items(task)
    started = time.perf_counter()
    found = scan(
        _base(),
        choosing,
        Scan(template=TEMPLATE, variant=VARIANTS[variant], top=TRIED, budget=TRIED),
        on_progress=_silent,
    )
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "trials": len(found.trials),
        "items": VARIANTS[variant].tried or len(choosing),
        "cuts": [asdict(cut) for cut in found.cuts],
        "measured": [
            {"cut": asdict(trial.cuts[0]), "predicted": trial.predicted, "gain": found.before - trial.loss}
            for trial in found.trials
            if len(trial.cuts) == 1
        ],
    }


@cache
def _arm(arm: Arm, task: str) -> dict[str, Any]:
    """What an arm found and how it answers the held-out items; kept, as the figures of several cells come from it."""

    def run() -> dict[str, Any]:
        if arm == "base":
            made: dict[str, Any] = {"seconds": 0.0, "trials": 0, "items": 0, "cuts": [], "measured": []}
        else:
            made = _laser(task) if arm == "laser" else _ours(arm, task)
        with edited(matrices(_base()), [Cut(**cut) for cut in made["cuts"]]):
            scores = _evaluated(task_items(task)[1])
        return {**made, "values": dict(scores.values)}

    return _kept(f"{arm} | {task}", run)


def _kept(name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    known: dict[str, Any] = json.loads(TRIALS.read_text(encoding="utf-8")) if TRIALS.exists() else {}
    if name not in known:
        known[name] = compute()
        TRIALS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    found: dict[str, Any] = known[name]
    return found


def _variant_cells(task: str) -> list[Cell]:
    def mean(arm: Arm, metric: Metric) -> tuple[float, None]:
        return statistics.fmean(_arm(arm, task)["values"][metric]), None

    def seconds(arm: Arm) -> tuple[float, float]:
        return _arm(arm, task)["seconds"], _arm("laser", task)["seconds"]

    def count(arm: Arm, of: str) -> tuple[float, None]:
        return float(_arm(arm, task)[of]), None

    cells = []
    arms: tuple[Arm, ...] = ("base", "laser", *OURS)
    for arm in arms:
        cells += [
            Cell(f"{task} | {arm} | accuracy", "share", partial(mean, arm, "choice"), better="higher"),
            Cell(
                f"{task} | {arm} | loss",
                "nats/token",
                partial(mean, arm, "target_loss"),
            ),
        ]
    for arm in OURS:
        cells.append(
            Cell(
                f"{task} | {arm} | seconds",
                "s",
                partial(seconds, arm),
                "LASER's whole grid",
                target=20 if arm == "cl-100g-100e" else None,
            )
        )
        cells += [Cell(f"{task} | {arm} | {word}", "", partial(count, arm, word)) for word in ("trials", "items")]
    return cells


# --- how good the predictions are -------------------------------------------------------------------------------------


@cache
def _predictions(task: str) -> dict[str, Any]:
    """Predicted and measured gain of the cells that LASER measured, and the five matrices that score best of those in its grid."""

    def run() -> dict[str, Any]:
        layers = {path: layer for path, layer in matrices(_base()).items() if path.endswith(("gate_proj", "down_proj"))}
        choosing = task_items(task)[0]
        graded = encode_batches(
            _base(), random.Random(0).sample(choosing, 100), TEMPLATE
        )  # LASER's trials tell of the targets' loss
        tables = score_cuts(_base(), graded, layers, VARIANTS["laser"], "tail_taylor", svd, lambda _: None)
        before = statistics.fmean(_evaluated(choosing).values["target_loss"])
        pairs = [
            (tables[trial["cut"]["path"]][Cut(**trial["cut"])], before - trial["loss"], trial["cut"]["share"])
            for trial in _arm("laser", task)["measured"]
        ]
        top = sorted(tables, key=lambda path: -max(tables[path].values()))[:5]
        return {"pairs": pairs, "top": top}

    return _kept(f"predictions | {task}", run)


def _prediction_cells(task: str) -> list[Cell]:
    def in_top() -> float:
        return float(_arm("laser", task)["cuts"][0]["path"] in _predictions(task)["top"])

    return [
        Cell(
            f"{task} | predicted against measured gain, all shares",
            "rank correlation",
            lambda: (_correlation(task, 0.0), None),
        ),
        Cell(
            f"{task} | predicted against measured gain, shares 0.6 and more",
            "rank correlation",
            lambda: (_correlation(task, 0.6), None),
        ),
        Cell(f"{task} | the best cell's matrix is among the five best score_cuts of 60", "", lambda: (in_top(), None)),
    ]


def scatter(tasks: Sequence[str]) -> str:
    """Predicted against measured gain, a panel a task, as SVG. Axes are signed square roots, to span three orders of magnitude."""
    side, gap = 300, 60
    panels = []
    for number, task in enumerate(tasks):
        pairs = _predictions(task)["pairs"]
        most = max(abs(value) for pair in pairs for value in pair[:2])

        def place(value: float, most: float = most) -> float:
            return side / 2 * (1 + math.copysign(math.sqrt(abs(value) / most), value))

        left, top = gap + number % 2 * (side + gap), gap + number // 2 * (side + gap)
        dots = "".join(
            f'<circle class="{"kept" if share >= 0.6 else "cut"}" cx="{left + place(predicted):.1f}" '
            f'cy="{top + side - place(measured):.1f}" r="3.5"><title>{share:g} kept: {predicted:.3g} predicted, {measured:.3g} measured'
            "</title></circle>"
            for predicted, measured, share in pairs
        )
        zero = side / 2
        axes = (
            f'<line x1="{left}" x2="{left + side}" y1="{top + zero}" y2="{top + zero}"/>'
            f'<line x1="{left + zero}" x2="{left + zero}" y1="{top}" y2="{top + side}"/>'
        )
        title = f"{task}: {_correlation(task, 0.0):.2f}, in colour {_correlation(task, 0.6):.2f}; edge {most:.2g} nats"
        panels.append(f'{axes}{dots}<text x="{left}" y="{top - 8}">{title}</text>')
    size = 2 * (side + gap) + gap
    label = "Gain in nats per token, predicted (across), measured (up), with rank correlations; in colour: 0.6 of the values kept, or more"
    return svg.standalone(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" role="img" aria-label="{label}">'
        f'{"".join(panels)}<text x="{gap}" y="{size - 12}">{label}</text></svg>\n'
    )


def _correlation(task: str, least: float) -> float:
    predicted, measured, _ = zip(*[pair for pair in _predictions(task)["pairs"] if pair[2] >= least], strict=True)
    return float(spearmanr(predicted, measured).statistic)


def summary(rows: Sequence[Row]) -> str:
    """The table; the picture of predictions is drawn beside it once they are all there."""
    (RESULTS / "reduce-predictions.svg").write_text(scatter(list(QUESTIONS)), encoding="utf-8")
    return table(rows)


# --- smaller adapters -------------------------------------------------------------------------------------------------

MODULES = ("number-words", "past-tense", "antonyms", "roman-numerals")
LOSS_BUDGET = 0.01


@cache
def _sizes(name: str) -> dict[str, dict[str, float]]:
    """By way of making it smaller: parameters, and loss and exact match on the held-out examples."""

    def run() -> dict[str, Any]:
        (task,) = [task for task in TASKS if task.name == name]
        examples = [Example(pair.input, pair.target) for pair in task.train[:100]]
        held_out = [Example(pair.input, pair.target) for pair in task.held_out]
        given = read(ROOT / "hub/starter/modules" / name)
        ours = shrink(_base(), given, examples, Shrink(template=TEMPLATE, loss_budget=LOSS_BUDGET), on_progress=_silent)
        size = _parameters(ours.adapter)
        made = {
            "as given": given,
            "ours": ours.adapter,
            "first-order score": _ordered(given, examples, "tail_taylor", size),
            "energy over all matrices": _ordered(given, examples, "energy", size),
            "truncated SVD, one rank": _one_rank(given, size),
            "PEFT convert_to_lora by energy": _converted(name, given, size),
        }
        found = {}
        for way, adapter in made.items():
            scores = evaluate(
                _base(),
                adapter,
                held_out,
                template=TEMPLATE,
                metrics=("exact_match", "target_loss"),
                on_progress=_silent,
            )
            means: dict[str, float] = {metric: estimate.mean for metric, estimate in scores.estimates.items()}
            with applied(_base().model, adapter):
                loss = mean_loss(_base(), encode_batches(_base(), examples, TEMPLATE))
            found[way] = {"parameters": _parameters(adapter), "loss on the examples": loss, **means}
        return found

    return _kept(f"smaller | {name}", run)


def _ordered(given: Adapter, examples: Sequence[Example], order: Any, size: int) -> Adapter:
    """Components dropped in this order as long as no fewer parameters than `size` are left."""
    parts = components(given)
    falling = cheapest_first(costs(_base(), given, parts, encode_batches(_base(), examples, TEMPLATE), order=order))
    gone, left = 0, _parameters(given)
    for path, _ in falling:
        left -= sum(parts[path].u.shape[:1]) + parts[path].vt.shape[1]
        if left < size:
            break
        gone += 1
    return without(given, parts, falling[:gone])


def _one_rank(given: Adapter, size: int) -> Adapter:
    parts = components(given)
    each = sum(len(part.u) + part.vt.shape[1] for part in parts.values())
    rank = -(-size // each)
    pairs = {
        path: Pair(part.sigma[:rank, None] * part.vt[:rank], part.u[:, :rank], 1.0) for path, part in parts.items()
    }
    return Adapter(given.name, given.config, pairs)


def _converted(name: str, given: Adapter, size: int) -> Adapter:
    """By PEFT at the least energy that leaves no fewer parameters than `size`; its rule is known, so the energy can be computed."""
    parts = components(given)

    def parameters(energy: float) -> int:
        total = 0
        for part in parts.values():
            shares = (part.sigma**2).cumsum(0) / (part.sigma**2).sum()
            total += (int((shares < energy).sum()) + 1) * (len(part.u) + part.vt.shape[1])
        return total

    energy = next(energy / 1_000 for energy in range(1, 1_000) if parameters(energy / 1_000) >= size)
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base_folder()), ROOT / "hub/starter/modules" / name
    )
    _, state = convert_to_lora(model, rank=energy)
    pairs = {}
    for path in parts:
        key = next(key for key in state if key.endswith(f"{path}.lora_A.weight"))
        a, b = state[key], state[key.replace("lora_A", "lora_B")]
        pairs[path] = Pair(a, b, 1.0)
    return Adapter(name, dict(given.config), pairs)


def _parameters(given: Adapter) -> int:
    return sum(pair.a.numel() + pair.b.numel() for pair in given.pairs.values())


def _size_cells(name: str) -> list[Cell]:
    def beside(way: str, figure: str) -> tuple[float, float]:
        return _sizes(name)["ours"][figure], _sizes(name)[way][figure]

    cells = []
    for figure, unit in (("parameters", ""), ("target_loss", "nats/token"), ("exact_match", "share")):
        for way in (
            "as given",
            "first-order score",
            "energy over all matrices",
            "truncated SVD, one rank",
            "PEFT convert_to_lora by energy",
        ):
            cells.append(
                Cell(
                    f"smaller {name} | {figure}",
                    unit,
                    partial(beside, way, figure),
                    way,
                    better="higher" if figure == "exact_match" else "lower",
                )
            )
    return cells


def _silent(_step: int, _total: int, _values: dict[str, float]) -> None:
    return


def cells() -> Sequence[Cell]:
    found = [cell for task in QUESTIONS for cell in _variant_cells(task)]
    found += [cell for task in QUESTIONS for cell in _prediction_cells(task)]
    found += [cell for name in MODULES for cell in _size_cells(name)]
    return [
        *found,
        Cell("peak memory of scoring a model of 1.1 billion parameters, over its weights", "", peak_over_weights),
    ]


@cache
def _base() -> Base:
    logging.disable_progress_bar()
    return load(base_folder(), id=BUILT_IN_ID)
