"""Training: our tokens a second beside TRL's SFTTrainer, and LoRA+ beside LoRA, each with its own best learning rate.

Speed: both train the same base on the same examples, once over, with the same rank, batch size and rate, each in a process of its own,
in turns. TRL is used as it comes (activations recomputed, float32 weights under a bfloat16 autocast), with the recomputing switched off,
and with the weights in bfloat16 as well, which is how ours has them. The validation losses are compared too: a faster trainer that
learns less would be no faster.

LoRA+ and LoRA: short tasks of the starter library, rates swept on validation examples with one seed, then three seeds each at the
best rate, measured on held-out examples. Every run is kept in data/bench, so an interrupted table goes on.
"""

import gc
import hashlib
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer

from bench.harness import Cell
from hub.intervals import paired_bootstrap
from hub.lora.core.adapter import applied, read, write
from hub.lora.core.bases import Base, load
from hub.lora.core.batches import split
from hub.lora.core.built_in import BUILT_IN_ID, BUILT_IN_SHA256, convert_built_in
from hub.lora.core.evaluate import evaluate
from hub.lora.core.examples import Example, tokenize
from hub.lora.core.losses import encode_batches, mean_loss
from hub.lora.train.loop import Recipe, Trained, train
from hub.starter.tasks import TASKS
from hub.vocabulary import Init

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "data/bench"
FOLDER = KEPT / BUILT_IN_SHA256[:12]

# --- speed ------------------------------------------------------------------------------------------------------------

ON_CARD = torch.cuda.is_available()
RATE, RANK, TURNS = 5e-4, 8, 1 if ON_CARD else 2
WORDS = "river stone cloud garden letter window market copper silver winter summer engine planet forest bridge candle".split()
TRL = f"TRL {version('trl')} SFTTrainer"
PEERS = {
    "default": TRL,
    "not recomputing": f"{TRL}, gradient_checkpointing off",
    "bfloat16": f"{TRL}, gradient_checkpointing off, bfloat16 weights",
}


@dataclass(frozen=True)
class Setting:
    """The base's folder, and how much is trained."""

    source: Path
    steps: int
    batch: int

    @property
    def examples(self) -> list[Example]:
        return spoken(self.steps * self.batch, 0)


BUILT_IN = Setting(FOLDER, 60 if ON_CARD else 12, 8)


def spoken(count: int, seed: int) -> list[Example]:
    """Lists of 5 to 90 words to give back the first three of: lengths as mixed as those of instructions are."""
    draw = random.Random(seed)
    chosen = [[draw.choice(WORDS) for _ in range(draw.randint(5, 90))] for _ in range(count)]
    return [Example(f"The first three of: {' '.join(words)}", " ".join(words[:3])) for words in chosen]


VALIDATION = spoken(48, 1)


def ours(setting: Setting, folder: str, *, four_bit: bool = False) -> tuple[float, int]:
    base = base_of(setting.source, four_bit=four_bit)
    recipe = Recipe(
        rank=RANK, alpha=2 * RANK, learning_rate=RATE, ratio=1.0, warmup=0.0, epochs=1, batch_size=setting.batch
    )
    trained = train(base, setting.examples, recipe, template="plain", on_progress=lambda *_: None)
    write(trained.adapter, Path(folder), dtype=torch.float32)
    return trained.seconds, trained.tokens


class Watch(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    def __init__(self) -> None:
        self.seconds, self.started = 0.0, 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.started = time.monotonic()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if ON_CARD:
            torch.cuda.synchronize()
        self.seconds += time.monotonic() - self.started


def trl(setting: Setting, folder: str, **changes: Any) -> tuple[float, int]:
    rows = [{"prompt": f"{each.input}\nAnswer:", "completion": f" {each.target}"} for each in setting.examples]
    with tempfile.TemporaryDirectory() as scratch:
        settings = SFTConfig(
            scratch,
            num_train_epochs=1,
            per_device_train_batch_size=setting.batch,
            learning_rate=RATE,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=not ON_CARD,
            **changes,
        )
        watch = Watch()
        lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
        trainer = SFTTrainer(
            str(setting.source),
            args=settings,
            train_dataset=Dataset.from_list(rows),
            peft_config=lora,
            callbacks=[watch],
        )
        trainer.train()
        trainer.model.save_pretrained(folder, save_embedding_layers=False)
    tokenizer = trainer.processing_class
    return watch.seconds, sum(len(tokenize(tokenizer, each, "plain")) for each in setting.examples)


def _trained(name: str, setting: Setting, folder: str) -> tuple[float, int]:
    whole: dict[str, Any] = {"gradient_checkpointing": False}
    trainers: dict[str, Callable[[], tuple[float, int]]] = {
        "ours": lambda: ours(setting, folder),
        "ours, four bits": lambda: ours(setting, folder, four_bit=True),
        "default": lambda: trl(setting, folder),
        "not recomputing": lambda: trl(setting, folder, **whole),
        "bfloat16": lambda: trl(setting, folder, **whole, model_init_kwargs={"dtype": "bfloat16"}),
    }
    return trainers[name]()


def _in_child(name: str, setting: Setting, folder: str, answers: Any) -> None:
    if ON_CARD:  # where whatever comes first waits for its kernels
        _trained(name, replace(setting, steps=4), folder)
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
    seconds, tokens = _trained(name, setting, folder)
    processor = time.process_time()
    peak = torch.cuda.max_memory_allocated() if ON_CARD else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    adapter = read(Path(folder))
    base = base_of(setting.source, four_bit=name == "ours, four bits")
    with applied(base.model, adapter):
        loss = mean_loss(base, encode_batches(base, VALIDATION, "plain"))
    answers.put({"tokens_per_second": tokens / seconds, "peak": peak / 2**30, "loss": loss, "processor": processor})


def _alone(name: str, setting: Setting) -> dict[str, float]:
    """One training in a fresh process, so that its peak of memory is its own."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        child = context.Process(target=_in_child, args=(name, setting, folder, answers))
        child.start()
        answer: dict[str, float] = answers.get()
        child.join()
    return answer


@cache
def speeds(setting: Setting, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """By name: tokens a second, peak of memory, validation loss; medians over the TURNS that all take."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(TURNS):
        for name in names:
            what = f"speed {name} {setting.steps} {turn}"
            if setting != BUILT_IN:
                what += f" {setting.source.name} {setting.batch}"
            found[name].append(kept(what, partial(_alone, name, setting)))
            print(f"  {name}: {found[name][-1]}", flush=True)
    return {name: {key: median(each[key] for each in many) for key in many[0]} for name, many in found.items()}


def _beside(setting: Setting, names: Sequence[str], peer: str, figure: str) -> tuple[float, float]:
    speed = speeds(setting, names)
    return speed["ours"][figure], speed[peer][figure]


def speed_cells(setting: Setting, of: str = "", peers: Mapping[str, str] = PEERS) -> list[Cell]:
    """Of the base that `of` names, beside each of the peers."""
    names = ("ours", *peers)
    cells = []
    for name, peer in peers.items():
        both = partial(_beside, setting, names, name)
        aimed = name == "default" and setting == BUILT_IN
        cells += [
            Cell(
                f"training{of}, rank {RANK} on all linear layers, batch {setting.batch}",
                "tokens/s",
                partial(both, "tokens_per_second"),
                peer,
                target=1.5 if aimed else None,
                better="higher",
            ),
            Cell(
                f"validation loss{of} after these {setting.steps} steps",
                "nats/token",
                partial(both, "loss"),
                peer,
                target=0.99 if aimed else None,
            ),
            Cell(
                f"peak memory {'on the card' if ON_CARD else 'of the process'}{of}",
                "GiB",
                partial(both, "peak"),
                peer,
            ),
        ]
    return cells


# --- LoRA+ beside LoRA ------------------------------------------------------------------------------------------------

LEARNT = ("number-words", "past-tense", "plurals", "roman-numerals")
RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
SEEDS = (0, 1, 2)
SHORT = Recipe(target_modules=["q_proj", "v_proj"], steps=40, batch_size=8, validate_every=4)
RATIOS = {"LoRA+": None, "LoRA": 1.0}


def kept(what: str, compute: Callable[[], Any]) -> Any:
    """What was computed under this name before, or is now."""
    place = KEPT / f"{hashlib.sha256(what.encode()).hexdigest()[:20]}.json"
    if not place.exists():
        answer = compute()
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"what": what, "answer": answer}), encoding="utf-8")
    return json.loads(place.read_text(encoding="utf-8"))["answer"]


def _data(name: str) -> tuple[list[Example], list[Example], list[Example]]:
    (task,) = [task for task in TASKS if task.name == name]
    examples = [Example(pair.input, pair.target) for pair in task.train]
    learnt, validated = split(examples, 0.1, seed=0, at_most=24)
    return learnt, validated, [Example(pair.input, pair.target) for pair in task.held_out]


def _train(name: str, recipe: Recipe) -> Trained:
    learnt, validated, _ = _data(name)
    return train(_base(), learnt, recipe, template="plain", validation=validated, on_progress=lambda *_: None)


@cache
def _best_rate(name: str, arm: str) -> float:
    """A's, of the least validation loss; each trial is kept, so that the sweep can be widened where its best lies at an edge."""
    recipe = replace(SHORT, ratio=RATIOS[arm])

    def loss(rate: float) -> float:
        trained = _train(name, replace(recipe, learning_rate=rate))
        return float("inf") if trained.validation_loss is None else trained.validation_loss

    losses = {rate: kept(f"trial {name} {arm} {rate} {SHORT}", partial(loss, rate)) for rate in RATES}
    print(f"  {name}, {arm}: {losses}", flush=True)
    return min(losses, key=losses.__getitem__)


def _measured(name: str, arm: str, seed: int) -> dict[str, Any]:
    rate = _best_rate(name, arm)

    def measure() -> dict[str, Any]:
        trained = _train(name, replace(SHORT, ratio=RATIOS[arm], learning_rate=rate, seed=seed))
        scores = evaluate(
            _base(),
            trained.adapter,
            _data(name)[2],
            template="plain",
            metrics=("exact_match", "target_loss"),
            on_progress=lambda *_: None,
        )
        print(f"  {name}, {arm}, seed {seed}: {scores.estimates}", flush=True)
        return {"values": scores.values, "validations": trained.validations}

    return dict(kept(f"measure {name} {arm} {seed} {rate} {SHORT}", measure))


def _over_seeds(name: str, arm: str, metric: str) -> list[float]:
    """Each held-out example's value, averaged over the seeds."""
    runs = [_measured(name, arm, seed)["values"][metric] for seed in SEEDS]
    return [mean(values) for values in zip(*runs, strict=True)]


def _difference(name: str, metric: str, part: int) -> tuple[float, None]:
    pairs = [_over_seeds(name, arm, metric) for arm in ("LoRA+", "LoRA")]
    return paired_bootstrap(*pairs, seed=0)[part], None


def _steps_to_reach(name: str) -> tuple[float, float]:
    """Steps until the validation loss is LoRA's last one: of LoRA+, and of LoRA itself; means over the seeds, SHORT.steps if never."""
    needed: dict[str, list[int]] = {"LoRA+": [], "LoRA": []}
    for seed in SEEDS:
        goal = _measured(name, "LoRA", seed)["validations"][-1][1]
        for arm, steps in needed.items():
            reached = [step for step, loss in _measured(name, arm, seed)["validations"] if loss <= goal]
            steps.append(min(reached, default=SHORT.steps or 0))
    return mean(needed["LoRA+"]), mean(needed["LoRA"])


def _loraplus_cells(name: str) -> list[Cell]:
    peer = "plain LoRA, its own best rate"

    def means(metric: str) -> tuple[float, float]:
        return mean(_over_seeds(name, "LoRA+", metric)), mean(_over_seeds(name, "LoRA", metric))

    cells = [
        Cell(f"{name}: exact match, LoRA+", "share", lambda: means("exact_match"), peer, better="higher"),
        Cell(f"{name}: target loss, LoRA+", "nats/token", lambda: means("target_loss"), peer),
        Cell(f"{name}: steps to LoRA's final loss", "steps", lambda: _steps_to_reach(name), peer),
        Cell(f"{name}: best rate of A, LoRA+", "", lambda: (_best_rate(name, "LoRA+"), _best_rate(name, "LoRA")), peer),
    ]
    for metric in ("exact_match", "target_loss"):
        for part, word in enumerate(("mean", "low", "high")):
            unit = "share" if metric == "exact_match" else "nats/token"
            run = lambda metric=metric, part=part: _difference(name, metric, part)  # noqa: E731
            cells.append(Cell(f"{name}: {metric}, LoRA+ minus LoRA, {word}", unit, run))
    return cells


# --- the map of both rates --------------------------------------------------------------------------------------------

MAPPED = "number-words"
MAP_RATES = (2.5e-4, 1e-3, 4e-3)
MAP_INITS: tuple[Init, ...] = ("default", "a_zero", "pissa")
MAP = Recipe(target_modules=["q_proj", "v_proj"], steps=20, batch_size=8, validate_every=20)


def _map_cells() -> list[Cell]:
    cells = []
    for init in MAP_INITS:
        for eta_a in MAP_RATES:
            for eta_b in MAP_RATES:
                recipe = replace(MAP, init=init, learning_rate=eta_a, ratio=eta_b / eta_a)
                cells.append(
                    Cell(
                        f"{MAPPED}: validation loss, start {init}, rate of A {eta_a:g}, of B {eta_b:g}",
                        "nats/token",
                        partial(_final_loss, recipe),
                    )
                )
    return cells


def _final_loss(recipe: Recipe) -> tuple[float, None]:
    return float(kept(f"map {MAPPED} {recipe}", lambda: _train(MAPPED, recipe).validations[-1][1])), None


def cells() -> Sequence[Cell]:
    compared = [cell for name in LEARNT for cell in _loraplus_cells(name)]
    return [*speed_cells(BUILT_IN), *compared, *_map_cells()]


@cache
def base_of(source: Path, *, four_bit: bool = False) -> Base:
    logging.disable_progress_bar()
    return load(convert_built_in(FOLDER) if source == FOLDER else source, id=BUILT_IN_ID, four_bit=four_bit)


def _base() -> Base:
    return base_of(FOLDER)
