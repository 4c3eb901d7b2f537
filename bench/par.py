"""LoRA-PAR: time and memory of ranking and partition beside a dictionary an element; what theta, alpha and beta do, beside controls.

Ranking and partition start from accumulated gradients and squared gradients, drawn at random, of the LoRA of Llama-2-7B at rank 8 on q, k,
v, gate, up and down: 17,891,328 elements. Each way is a process of its own. The peer's is the way of the released script, written
anew: a dictionary for each element and system, a frame sorted by importance, iteration until there is enough, sets of names and
indices. It is measured on two of the 32 layers and its figures are multiplied by 16, which flatters it: sorting grows faster.

The curves are on a tiny model (tests/lora/habits.py) that is right on 0.41 of the held-out questions of System 2 before any
training. Each figure is the mean share of 169 held-out questions that are right after the last stage, over three seeds of training
and drawing; reinforcement is cut short at 15 steps, so that there is something to tell apart.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from functools import cache, partial
from importlib.metadata import version
from statistics import fmean

import pandas
import psutil
import torch

from bench.harness import Cell, alternating
from bench.number_systems import number_cells
from hub.lora.core.bases import Base
from hub.lora.core.evaluate import evaluate
from hub.lora.par.grpo import Reinforcement
from hub.lora.par.importance import Moments, importance
from hub.lora.par.method import Settings, Systems, described, run_arm
from hub.lora.par.partition import partition
from hub.lora.train.loop import Recipe
from hub.lora.train.masks import Layout
from hub.vocabulary import ParArm
from tests.lora.habits import HELD_OUT, KNOWN, fast, habitual_base, one_thread, slow

THETA = 0.9
LAYERS, SCALED = 32, 16

THETAS = (0.1, 0.3, 0.5, 0.7, 0.9)
SHARES = (0.0, 0.5, 1.0)
SEEDS = (0, 1, 2)
COMPARED: tuple[ParArm, ...] = ("unpartitioned", "pissa_rl", "swapped", "rl_first", "lora", "loraplus")


# --- ranking and partition --------------------------------------------------------------------------------------------


def llama(layers: int) -> Layout:
    """The factors of Llama-2-7B's projections at rank 8."""
    shapes = {}
    for layer in range(layers):
        for name in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj"):
            into = 11_008 if name == "down_proj" else 4_096
            out = 11_008 if name in ("gate_proj", "up_proj") else 4_096
            shapes[f"layers.{layer}.{name}.lora_A"] = (8, into)
            shapes[f"layers.{layer}.{name}.lora_B"] = (out, 8)
    return Layout(shapes)


def drawn(layout: Layout) -> tuple[dict[str, torch.Tensor], list[Moments]]:
    """Parameters, and moments of each system whose sizes spread over decades as measured ones do."""
    generator = torch.Generator().manual_seed(0)

    def noise(shape: Sequence[int]) -> torch.Tensor:
        return torch.empty(tuple(shape)).log_normal_(-8.0, 1.5, generator=generator)

    parameters = {name: torch.empty(shape).normal_(generator=generator) for name, shape in layout.shapes.items()}
    systems = []
    for _ in range(2):
        gradient = {name: noise(shape) for name, shape in layout.shapes.items()}
        systems.append(Moments(gradient, {name: each * each for name, each in gradient.items()}, 1.0))
    return parameters, systems


def ours(layout: Layout, parameters: dict[str, torch.Tensor], systems: Sequence[Moments]) -> int:
    found = [layout.joined(importance(parameters, moments)) for moments in systems]
    return len(partition(layout, found[0], found[1], theta=THETA, alpha=1.0, beta=1.0).stage1)


def by_dictionaries(layout: Layout, parameters: dict[str, torch.Tensor], systems: Sequence[Moments]) -> int:
    chosen = []
    for moments in systems:
        records = []
        for name in layout.shapes:
            gradient, fisher, values = (each[name].flatten() for each in (moments.gradient, moments.fisher, parameters))
            scores = (gradient * values - fisher * values.square() / 2).abs().tolist()
            records += [{"name": name, "index": index, "importance": score} for index, score in enumerate(scores)]
        frame = pandas.DataFrame(records).sort_values("importance", ascending=False)
        wanted, reached, taken = THETA * frame["importance"].sum(), 0.0, {}
        for _, row in frame.iterrows():
            if reached >= wanted:
                break
            reached += row["importance"]
            taken[row["name"], row["index"]] = row["importance"]
        chosen.append(taken)
    first, second = (taken.keys() for taken in chosen)
    common = sorted(first & second, key=chosen[0].__getitem__, reverse=True)
    masks = {name: torch.zeros(shape).flatten() for name, shape in layout.shapes.items()}
    for name, index in [*(first - second), *common]:
        masks[name][index] = 1.0
    return int(sum(mask.sum() for mask in masks.values()))


WAYS = {"ours": (ours, LAYERS), "dictionaries": (by_dictionaries, LAYERS // SCALED)}


@cache
def measured(way: str) -> tuple[float, float]:
    """(seconds, megabytes beyond the inputs) of one way, in a process of its own."""
    command = [sys.executable, "-m", "bench.par", way]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_WAIT_POLICY": "passive"}
    )
    seconds, megabytes = map(float, done.stdout.split())
    factor = LAYERS / WAYS[way][1]
    return seconds * factor, megabytes * factor


def _alone(way: str) -> None:
    run, layers = WAYS[way]
    layout = llama(layers)
    inputs = drawn(layout)
    before = psutil.Process().memory_info().rss
    (seconds,) = alternating([lambda: run(layout, *inputs)], repeats=1, warm_up=0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(seconds, (peak - before) / 1e6)


def _speed_cells() -> list[Cell]:
    peer = f"a dictionary an element, pandas {version('pandas')}, on 2 of 32 layers, times {SCALED}"
    what = f"ranking and partition of {llama(LAYERS).size:,} elements"
    return [
        Cell(what, "s", lambda: (measured("ours")[0], measured("dictionaries")[0]), peer, target=50),
        Cell(f"{what}: memory", "MB", lambda: (measured("ours")[1], measured("dictionaries")[1]), peer, target=10),
    ]


# --- what the partition does ------------------------------------------------------------------------------------------


@cache
def _base() -> Base:
    return habitual_base()


def _settings(seed: int, theta: float, alpha: float, beta: float) -> Settings:
    return Settings(
        theta=theta,
        alpha=alpha,
        beta=beta,
        supervised=Recipe(rank=8, alpha=16, learning_rate=1e-3, ratio=1.0, steps=20, batch_size=16, seed=seed),
        reinforced=Reinforcement(
            learning_rate=1e-3, steps=15, prompts=8, batch_size=64, max_answer=4, warmup=0.1, seed=seed
        ),
    )


@cache
def _trained(arm: ParArm, seed: int, theta: float, alpha: float, beta: float) -> tuple[float, float]:
    """(share of held-out System 2 questions that are right, share of the elements that a stage may move)."""
    systems = Systems(fast(KNOWN), slow(KNOWN))
    with one_thread():
        done = run_arm(
            _base(),
            systems,
            _settings(seed, theta, alpha, beta),
            arm,
            template="plain",
            on_progress=lambda *_: None,
        )
        scores = evaluate(
            _base(),
            done.adapter,
            slow(HELD_OUT),
            template="plain",
            metrics=("exact_match",),
            max_new_tokens=4,
            batch_size=256,
            on_progress=lambda *_: None,
        )
    return scores.estimates["exact_match"].mean, described(done.partition)["active"] if done.partition else 1.0


def _right(arm: ParArm, theta: float, alpha: float = 1.0, beta: float = 1.0) -> float:
    return fmean(_trained(arm, seed, theta, alpha, beta)[0] for seed in SEEDS)


def _beside(arm: ParArm, theta: float) -> tuple[float, float]:
    return _right("par", theta), _right(arm, theta)


def _active(theta: float) -> tuple[float, None]:
    return _trained("par", 0, theta, 1.0, 1.0)[1], None


def _alone_right(alpha: float, beta: float) -> tuple[float, None]:
    return _right("par", 0.9, alpha, beta), None


def _curve_cells() -> list[Cell]:
    cells = []
    for theta in THETAS:
        what = f"tiny model, theta {theta:g}"
        random = partial(_beside, "random", theta)
        cells.append(
            Cell(f"{what}: right after stage 2", "share", random, "a random mask of equal size", better="higher")
        )
        cells.append(Cell(f"{what}: elements that a stage may move", "share", partial(_active, theta)))
    for arm in COMPARED:
        run = partial(_beside, arm, 0.9)
        cells.append(Cell("tiny model, theta 0.9: right after stage 2", "share", run, arm, better="higher"))
    for alpha in SHARES:
        for beta in SHARES:
            what = f"tiny model, alpha {alpha:g}, beta {beta:g}: right after stage 2"
            cells.append(Cell(what, "share", partial(_alone_right, alpha, beta)))
    return cells


def cells() -> Sequence[Cell]:
    return [*_speed_cells(), *_curve_cells(), *number_cells()]


if __name__ == "__main__":
    _alone(sys.argv[1])
