"""Arms of LoRA-PAR on the model of `tests.lora.habits`, and the share of its answers that are right."""

from typing import Any

from hub.lora.core.adapter import Adapter
from hub.lora.core.bases import Base
from hub.lora.core.evaluate import evaluate
from hub.lora.core.examples import Example
from hub.lora.par.grpo import Reinforcement
from hub.lora.par.method import Arm, Settings, Systems, run_arm
from hub.lora.train.loop import Recipe
from hub.vocabulary import ParArm
from tests.lora.habits import KNOWN, fast, slow
from tests.lora.runs import ignore_progress

SYSTEMS = Systems(fast(KNOWN), slow(KNOWN))


def settings(steps: int = 40, **changes: Any) -> Settings:
    return Settings(
        sample=50,
        supervised=Recipe(rank=8, alpha=16, learning_rate=1e-3, ratio=1.0, steps=20, batch_size=16),
        reinforced=Reinforcement(learning_rate=1e-3, steps=steps, prompts=8, batch_size=64, max_answer=4, warmup=0.1),
        **changes,
    )


def arm(base: Base, name: ParArm = "par", given: Settings | None = None, **keywords: Any) -> Arm:
    return run_arm(
        base, SYSTEMS, given or settings(), name, template="plain", **{"on_progress": ignore_progress, **keywords}
    )


def right(base: Base, examples: list[Example], adapter: Adapter | None) -> float:
    scores = evaluate(
        base,
        adapter,
        examples,
        template="plain",
        metrics=("exact_match",),
        max_new_tokens=4,
        batch_size=256,
        on_progress=ignore_progress,
    )
    return scores.estimates["exact_match"].mean
