"""LoRA-PAR (arXiv 2507.20999): fast and slow thinking, each trained in its own way on its own elements of one LoRA.

Stage 1 is supervised, on System 1's examples; stage 2 reinforces the result on System 2's. Beside it stand the controls that say what
of a gain is due to the partition: the same budget without one, with one drawn at random, with the two exchanged, with the stages
exchanged, and a LoRA that is only ever supervised, on all examples.
"""

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hub.lora.core.adapter import Adapter
from hub.lora.core.bases import Base
from hub.lora.core.batches import fitting
from hub.lora.core.checkpoint import CheckpointMismatch
from hub.lora.core.examples import Example, OnProgress
from hub.lora.par.grpo import Reinforced, Reinforcement, reinforce
from hub.lora.par.importance import layout, passes, score
from hub.lora.par.partition import NothingToPartition, Partition, partition
from hub.lora.par.rewards import WEIGHTS_OF_THE_PAPER
from hub.lora.train.loop import Checkpoints, Recipe, Trained, train_layers
from hub.lora.train.loraplus import DEFAULT_RATIO
from hub.lora.train.masks import Mask
from hub.lora.train.trainable_layers import Tuned, tuned
from hub.vocabulary import ParArm, PartitionStart

PARTITIONED: tuple[ParArm, ...] = ("par", "random", "swapped", "rl_first")

StageName = Literal["sft", "grpo"]


@dataclass(frozen=True)
class Settings:
    """`supervised.init` is decided by `start`; `sample` examples of each system are scored, and `alpha` and `beta` are the shares of the
    common elements that stages 1 and 2 may train."""

    start: PartitionStart = "pissa"
    theta: float = 0.9
    alpha: float = 1.0
    beta: float = 1.0
    sample: int = 100
    supervised: Recipe = field(default_factory=lambda: Recipe(ratio=1.0))
    reinforced: Reinforcement = field(default_factory=Reinforcement)

    @property
    def seed(self) -> int:
        return self.supervised.seed


# As the authors' code sets them; the divergence, temperature and loss are the defaults of the TRL that it ran with (0.14 to 0.16).
PAPER = Settings(
    supervised=Recipe(
        rank=8,
        alpha=64,
        target_modules=("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj"),
        learning_rate=2e-4,
        ratio=1.0,
        warmup=0.03,
        schedule="cosine",
        epochs=1,
        batch_size=1,
        accumulation=32,
        max_length=512,
    ),
    reinforced=Reinforcement(
        rewards=WEIGHTS_OF_THE_PAPER,
        learning_rate=5e-6,
        kl=0.04,
        temperature=0.9,
        loss="grpo",
        max_prompt=128,
        warmup=0.1,
        schedule="cosine",
        weight_decay=0.1,
        adam_betas=(0.9, 0.99),
        clip=0.1,
    ),
)
PRESETS: dict[str, Settings] = {"paper": PAPER, "today": Settings()}


def changed(preset: str, changes: Mapping[str, Mapping[str, Any]], seed: int) -> Settings:
    """The named settings with `changes` to the fields of "partition", "supervised" and "reinforced", and `seed` for every draw."""
    found = PRESETS[preset]
    return replace(
        found,
        **changes["partition"],
        supervised=replace(found.supervised, **changes["supervised"], seed=seed),
        reinforced=replace(found.reinforced, **changes["reinforced"], seed=seed),
    )


@dataclass(frozen=True)
class Systems:
    """What each stage learns from, and what chooses the best state of the supervised one."""

    system1: Sequence[Example]
    system2: Sequence[Example]
    validation: Sequence[Example] = ()


@dataclass(frozen=True)
class Stage:
    """The adapter as one stage left it, and what that stage says of itself."""

    name: StageName
    adapter: Adapter
    done: Trained | Reinforced


@dataclass(frozen=True)
class Arm:
    stages: list[Stage]
    partition: Partition | None

    @property
    def adapter(self) -> Adapter:
        return self.stages[-1].adapter


Place = Callable[[str], Checkpoints | None]  # name of a part of the work -> where it keeps its place
Enter = Callable[[str], None]  # name of a part of the work that begins


def run_arm(
    base: Base,
    systems: Systems,
    settings: Settings,
    name: ParArm,
    *,
    template: str,
    found: Partition | None = None,
    place: Place = lambda _: None,
    enter: Enter = lambda _: None,
    on_progress: OnProgress,
) -> Arm:
    """Train one arm from its start. A partition that was `found` is not looked for again.

    Raises what `score`, `partition`, `train_layers` and `reinforce` raise; the base is as it was however it ends.
    """
    for number, examples in enumerate((systems.system1, systems.system2), 1):
        if not examples:
            raise NothingToPartition(f"There is no example of System {number}. Give some, or split the examples anew.")
    recipe = _recipe(settings, name, systems)
    with tuned(base, recipe.shape, None, settings.seed) as layers:
        if name in PARTITIONED and found is None:
            enter(f"{name} score")
            found = _partition(layers, systems, settings, template, place(f"{name} score"), on_progress)
        masks = _masks(name, found, settings.seed) if found and name in PARTITIONED else {}

        def stage(which: StageName) -> Stage:
            enter(f"{name} {which}")
            kept: dict[str, Any] = {
                "template": template,
                "mask": masks.get(which),
                "checkpoints": place(f"{name} {which}"),
                "on_progress": on_progress,
            }
            done: Trained | Reinforced
            if which == "sft":
                both = name in ("lora", "loraplus")
                learnt = [*systems.system1, *systems.system2] if both else systems.system1
                done = train_layers(layers, learnt, recipe, validation=systems.validation, **kept)
            else:
                done = reinforce(layers, systems.system2, settings.reinforced, **kept)
            return Stage(which, layers.adapter(), done)

        return Arm([stage(which) for which in _stages(name)], found if name in PARTITIONED else None)


def _stages(name: ParArm) -> tuple[StageName, ...]:
    if name in ("lora", "loraplus"):
        return ("sft",)
    return ("grpo", "sft") if name == "rl_first" else ("sft", "grpo")


def _recipe(settings: Settings, name: ParArm, systems: Systems) -> Recipe:
    """A LoRA that is only supervised gets as many updates as the two stages have together."""
    recipe = replace(settings.supervised, init="pissa" if settings.start == "pissa" else "default", ratio=1.0)
    if name in PARTITIONED:
        return recipe
    if name == "pissa_rl":
        return replace(recipe, init="pissa")
    if name == "unpartitioned":
        return replace(recipe, init="default")
    supervised = recipe.steps or -(-len(systems.system1) * recipe.epochs // (recipe.batch_size * recipe.accumulation))
    reinforced = settings.reinforced.steps or -(
        -len(systems.system2) * settings.reinforced.epochs // settings.reinforced.prompts
    )
    ratio = DEFAULT_RATIO["default"] if name == "loraplus" else 1.0
    return replace(recipe, init="default", ratio=ratio, steps=supervised + reinforced)


def _masks(name: ParArm, found: Partition, seed: int) -> Mapping[StageName, Mask]:
    if name == "random":
        found = found.shuffled(seed)
    elif name == "swapped":
        found = found.swapped()
    return {"sft": found.stage1, "grpo": found.stage2}


def _partition(
    layers: Tuned,
    systems: Systems,
    settings: Settings,
    template: str,
    checkpoints: Checkpoints | None,
    on_progress: OnProgress,
) -> Partition:
    """From a sample of each system's examples, or from where it was kept."""
    rows = []
    for number, examples in enumerate((systems.system1, systems.system2), 1):
        fit = fitting(layers.base, examples, template, settings.supervised.max_length).rows
        if not fit:
            raise NothingToPartition(f"No example of System {number} is short enough. Raise max_length.")
        rows.append(random.Random(settings.seed).sample(fit, min(settings.sample, len(fit))))  # noqa: S311 - a reproducible draw
    identity = hashlib.sha256(repr((layers.base.fingerprint, layers.base.dtype, asdict(settings), rows)).encode())
    digest, elements = identity.hexdigest(), layout(layers)
    kept = checkpoints.load() if checkpoints else None
    if kept:
        with safe_open(kept, framework="np") as file:
            if file.metadata()["digest"] != digest:
                raise CheckpointMismatch(f"{kept.name} holds a partition of other settings or examples. Start anew.")
            return Partition(**{name: Mask(elements, file.get_tensor(name)) for name in _SETS})
    done, total = 0, passes(settings.start) * sum(len(each) for each in rows)

    def on_example() -> None:
        nonlocal done
        done += 1
        on_progress(done, total, {})

    importances = [elements.joined(score(layers, each, settings.start, on_example)) for each in rows]
    result = partition(
        elements, importances[0], importances[1], theta=settings.theta, alpha=settings.alpha, beta=settings.beta
    )
    if checkpoints:
        bits = {name: torch.from_numpy(getattr(result, name).bits) for name in _SETS}
        save_file(bits, checkpoints.place(), metadata={"digest": digest})
        checkpoints.save(checkpoints.place())
    return result


_SETS = ("system1", "system2", "stage1", "stage2")


def described(found: Partition) -> dict[str, Any]:
    """What a report says of a partition: sizes as shares of all elements, and of each layer's factors the shares of the four regions."""
    size = found.layout.size
    return {
        "elements": size,
        **{name: len(getattr(found, name)) / size for name in _SETS},
        "jaccard": found.jaccard,
        "active": len(Mask(found.layout, found.stage1.bits | found.stage2.bits)) / size,
        "matrices": [{"matrix": _shown(name), **shares} for name, shares in found.shares().items()],
    }


def _shown(name: str) -> str:
    """`model.layers.0.mlp.up_proj.lora_A.default.weight` as `model.layers.0.mlp.up_proj A`."""
    path, _, factor = name.removesuffix(".default.weight").rpartition(".lora_")
    return f"{path} {factor}"


def as_json(settings: Settings) -> dict[str, Any]:
    """Everything that decides an arm, for a manifest. (JSON turns tuples into lists.)"""
    found: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return found
