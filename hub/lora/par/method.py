"""LoRA-PAR (arXiv 2507.20999): fast and slow thinking, each trained by its own method on its own elements of one LoRA.

Stage 1 is supervised, on System 1's examples; stage 2 reinforces the result on System 2's. Controls show how much of a gain the
partition explains: the same budget without a partition, with a random one, with the two halves exchanged, with the stages
exchanged, and a LoRA with supervised training only, on all examples.
"""

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hub.lora.core.adapter import Adapter
from hub.lora.core.bases import Base
from hub.lora.core.batches import fitting
from hub.lora.core.checkpoint import CheckpointMismatch
from hub.lora.core.examples import Example, OnProgress, Tokens
from hub.lora.par.grpo import Reinforced, Reinforcement, reinforce
from hub.lora.par.importance import layout, passes, score
from hub.lora.par.partition import NothingToPartition, Partition, partition
from hub.lora.par.rewards import WEIGHTS_OF_THE_PAPER
from hub.lora.train.loop import CheckpointStore, Recipe, Trained, train_layers
from hub.lora.train.loraplus import DEFAULT_RATIO
from hub.lora.train.masks import Layout, Mask
from hub.lora.train.trainable_layers import TrainableLayers, trainable_layers
from hub.vocabulary import ParArm, PartitionStart

PARTITIONED: tuple[ParArm, ...] = ("par", "random", "swapped", "rl_first")

StageName = Literal["sft", "grpo"]


@dataclass(frozen=True)
class Settings:
    """Everything that decides an arm besides base and examples. `start` determines `supervised.init`.

    `sample` examples of each system are scored. `alpha` and `beta` are the shares of the common elements that stages 1 and 2 may train.
    """

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


# The values of the authors' code. KL weight, temperature and loss are the defaults of the TRL that it ran with (0.14 to 0.16).
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
    base = PRESETS[preset]
    return replace(
        base,
        **changes["partition"],
        supervised=replace(base.supervised, **changes["supervised"], seed=seed),
        reinforced=replace(base.reinforced, **changes["reinforced"], seed=seed),
    )


@dataclass(frozen=True)
class Systems:
    """The examples of each stage, and those that choose the best state of the supervised one."""

    system1: Sequence[Example]
    system2: Sequence[Example]
    validation: Sequence[Example] = ()


@dataclass(frozen=True)
class Stage:
    """The adapter after one stage, and the record of that stage."""

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


StoreOf = Callable[[str], CheckpointStore | None]  # name of a stage -> its checkpoints
Enter = Callable[[str], None]  # called with the name of a stage when it begins


def run_arm(
    base: Base,
    systems: Systems,
    settings: Settings,
    name: ParArm,
    *,
    template: str,
    found: Partition | None = None,
    place: StoreOf = lambda _: None,
    enter: Enter = lambda _: None,
    on_progress: OnProgress,
) -> Arm:
    """Train one arm from its start. A partition that is given as `found` is used instead of a new one.

    Raises what `score`, `partition`, `train_layers` and `reinforce` raise. The base is as it was however the run ends.
    """
    for number, examples in enumerate((systems.system1, systems.system2), 1):
        if not examples:
            raise NothingToPartition(f"There is no example of System {number}. Give some, or split the examples anew.")
    recipe = _recipe(settings, name, systems)
    with trainable_layers(base, recipe.shape, None, settings.seed) as layers:
        if name not in PARTITIONED:
            found = None
        elif found is None:
            enter(f"{name} score")
            found = _partition(layers, systems, settings, template, place(f"{name} score"), on_progress)
        masks = _masks(name, found, settings.seed) if found else {}

        def train_stage(stage: StageName) -> Stage:
            enter(f"{name} {stage}")
            shared: dict[str, Any] = {
                "template": template,
                "mask": masks.get(stage),
                "checkpoints": place(f"{name} {stage}"),
                "on_progress": on_progress,
            }
            done: Trained | Reinforced
            if stage == "sft":
                examples = _supervised_examples(name, systems)
                done = train_layers(layers, examples, recipe, validation=systems.validation, **shared)
            else:
                done = reinforce(layers, systems.system2, settings.reinforced, **shared)
            return Stage(stage, layers.adapter(), done)

        return Arm([train_stage(stage) for stage in _stages(name)], found)


def _supervised_examples(name: ParArm, systems: Systems) -> list[Example]:
    both = name in ("lora", "loraplus")
    return [*systems.system1, *systems.system2] if both else [*systems.system1]


def _stages(name: ParArm) -> tuple[StageName, ...]:
    if name in ("lora", "loraplus"):
        return ("sft",)
    return ("grpo", "sft") if name == "rl_first" else ("sft", "grpo")


def _recipe(settings: Settings, name: ParArm, systems: Systems) -> Recipe:
    """The recipe of the supervised stage. A LoRA without reinforcement gets as many updates as the two stages together."""
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
    layers: TrainableLayers,
    systems: Systems,
    settings: Settings,
    template: str,
    checkpoints: CheckpointStore | None,
    on_progress: OnProgress,
) -> Partition:
    """The partition by the importances on a sample of each system's examples, or the one in the checkpoint."""
    rows = _sample(layers.base, systems, settings, template)
    identity = hashlib.sha256(repr((layers.base.fingerprint, layers.base.dtype, asdict(settings), rows)).encode())
    digest, elements = identity.hexdigest(), layout(layers)
    if checkpoints and (saved := checkpoints.load()):
        return _load(saved, digest, elements)
    done, total = 0, passes(settings.start) * sum(len(sample) for sample in rows)

    def on_example() -> None:
        nonlocal done
        done += 1
        on_progress(done, total, {})

    importances = [elements.joined(score(layers, sample, settings.start, on_example)) for sample in rows]
    result = partition(
        elements, importances[0], importances[1], theta=settings.theta, alpha=settings.alpha, beta=settings.beta
    )
    if checkpoints:
        bits = {name: torch.from_numpy(getattr(result, name).bits) for name in _SETS}
        save_file(bits, checkpoints.local_path(), metadata={"digest": digest})
        checkpoints.save(checkpoints.local_path())
    return result


def _sample(base: Base, systems: Systems, settings: Settings, template: str) -> list[list[Tokens]]:
    """`settings.sample` examples of each system as tokens, drawn at random among those that are short enough."""
    samples = []
    for number, examples in enumerate((systems.system1, systems.system2), 1):
        rows = fitting(base, examples, template, settings.supervised.max_length).rows
        if not rows:
            raise NothingToPartition(f"No example of System {number} is short enough. Raise max_length.")
        generator = random.Random(settings.seed)  # noqa: S311 - a reproducible draw
        samples.append(generator.sample(rows, min(settings.sample, len(rows))))
    return samples


def _load(path: Path, digest: str, elements: Layout) -> Partition:
    with safe_open(path, framework="np") as file:
        if file.metadata()["digest"] != digest:
            raise CheckpointMismatch(f"{path.name} holds a partition of other settings or examples. Start anew.")
        return Partition(**{name: Mask(elements, file.get_tensor(name)) for name in _SETS})


_SETS = ("system1", "system2", "stage1", "stage2")


def described(found: Partition) -> dict[str, Any]:
    """A partition for a report: sizes as shares of all elements, and the shares of the four regions in each layer's factors."""
    size = found.layout.size
    return {
        "elements": size,
        **{name: len(getattr(found, name)) / size for name in _SETS},
        "jaccard": found.jaccard,
        "active": len(Mask(found.layout, found.stage1.bits | found.stage2.bits)) / size,
        "matrices": [{"matrix": _matrix_name(name), **shares} for name, shares in found.shares().items()],
    }


def _matrix_name(name: str) -> str:
    """`model.layers.0.mlp.up_proj.lora_A.default.weight` as `model.layers.0.mlp.up_proj A`."""
    path, _, factor = name.removesuffix(".default.weight").rpartition(".lora_")
    return f"{path} {factor}"


def as_json(settings: Settings) -> dict[str, Any]:
    """Everything that decides an arm, for a manifest. (JSON turns tuples into lists.)"""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return plain
