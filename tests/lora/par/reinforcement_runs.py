"""Short runs of reinforcement, and what must hold of them on any device."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from hub.lora.core.bases import Base
from hub.lora.core.checkpoint import CheckpointMismatch
from hub.lora.core.examples import Example
from hub.lora.par.grpo import Reinforced, Reinforcement, reinforce
from hub.lora.par.rewards import FUNCTIONS, Answer
from hub.lora.train.loop import Recipe, train_layers
from hub.lora.train.trainable_layers import TrainableLayers, trainable_layers
from tests.lora.par.masked_runs import mask_of, values
from tests.lora.runs import Cancelled, CheckpointFolder, ignore_progress, unchanged

EXAMPLES = [Example(f"say {word}", word[:1]) for word in ("alpha", "beta", "gamma", "delta", "epsilon")]
RECIPE = Recipe(rank=4, alpha=8, init="pissa", learning_rate=1e-2, steps=3, batch_size=3, ratio=1.0)


def settings(**changes: Any) -> Reinforcement:
    given: dict[str, Any] = {"steps": 4, "generations": 4, "prompts": 2, "batch_size": 4, "max_answer": 8}
    return Reinforcement(**given | {"learning_rate": 1e-3, "rewards": {"vowels": 1.0}} | changes)


def share_of_vowels(answer: Answer) -> float:
    return sum(letter in "aeiou" for letter in answer.text) / 8


def reward_vowels(monkeypatch: pytest.MonkeyPatch, function: Callable[[Answer], float] = share_of_vowels) -> None:
    """A reward that a random model's bytes differ in, so that there is something to learn from; no request can name it."""
    monkeypatch.setitem(cast(dict[str, Callable[[Answer], float]], FUNCTIONS), "vowels", function)


def run(
    layers: TrainableLayers, share: float | None = 0.4, changes: dict[str, Any] | None = None, **keywords: Any
) -> Reinforced:
    mask = None if share is None else mask_of(layers, share)
    keywords = {"template": "plain", "on_progress": ignore_progress, **keywords}
    return reinforce(layers, EXAMPLES, settings(**changes or {}), mask=mask, **keywords)


def check_only_the_mask_moves(tiny_base: Base, kl: float) -> None:
    with unchanged(tiny_base):
        with trainable_layers(tiny_base, RECIPE.shape, None, 0) as layers:
            before, mask = values(layers), mask_of(layers, 0.4)
            done = run(layers, changes={"kl": kl, "weight_decay": 0.1})
            for name, chosen in mask.tensors().items():
                after = layers.parameters()[name]
                assert torch.equal(after[~chosen].view(torch.int32), before[name][~chosen].view(torch.int32))
                assert (after[chosen] != before[name][chosen]).float().mean() > 0.9
            assert done.optimizer_bytes == 8 * len(mask) + sum(-(-each.numel() // 8) for each in before.values())
        assert "forward" not in tiny_base.model.__dict__, "TRL's own is gone"
    assert done.steps == len(done.curve) == 4
    assert {"reward", "reward_vowels", "answer_tokens", "all_alike"} <= done.curve[0].keys()
    assert ("kl" in done.curve[0]) == bool(kl)


def check_the_reference_is_the_policy_on_entry(tiny_base: Base, tmp_path: Path) -> None:
    """The divergence is zero at the first step although supervision came before, and grows in a run that went on as in a whole one."""
    changes = {"kl": 0.04, "steps": 6, "learning_rate": 1e-2}

    def supervised(layers: TrainableLayers) -> None:
        train_layers(layers, EXAMPLES, RECIPE, template="plain", on_progress=ignore_progress)

    with trainable_layers(tiny_base, RECIPE.shape, None, 0) as layers:
        supervised(layers)
        whole, wanted = run(layers, changes=changes), values(layers)
    assert whole.curve[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert whole.curve[-1]["kl"] > 1e-3
    with trainable_layers(tiny_base, RECIPE.shape, None, 0) as layers:
        supervised(layers)
        with pytest.raises(Cancelled):
            run(layers, changes=changes, checkpoints=CheckpointFolder(tmp_path, killed_after=3))
    heard: list[int] = []
    with trainable_layers(tiny_base, RECIPE.shape, None, 0) as layers:
        supervised(layers)
        rest = run(
            layers,
            changes=changes,
            checkpoints=CheckpointFolder(tmp_path),
            on_progress=lambda step, *_: heard.append(step),
        )
        assert heard == [4, 5, 6]
        assert rest.curve == whole.curve
        for name, each in values(layers).items():
            assert torch.equal(each, wanted[name])
        with pytest.raises(CheckpointMismatch):
            run(layers, changes=changes, checkpoints=CheckpointFolder(tmp_path))
    with trainable_layers(tiny_base, RECIPE.shape, None, 0) as layers:
        supervised(layers)
        assert run(layers, changes=changes, checkpoints=CheckpointFolder(tmp_path)).curve == whole.curve, (
            "it was finished already"
        )
        for name, each in values(layers).items():
            assert torch.equal(each, wanted[name])
