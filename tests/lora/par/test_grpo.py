"""Reinforcement: what moves, against which policy, how it goes on after a stop, and that nothing of it stays behind or goes out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import trl.trainer.base_trainer

from hub.lora.core.bases import Base
from hub.lora.core.checkpoint import CheckpointMismatch
from hub.lora.core.examples import Example, tokenize
from hub.lora.par import grpo as module
from hub.lora.par.grpo import NotReinforceable, Reinforced, Reinforcement, reinforce
from hub.lora.par.rewards import FUNCTIONS, Answer
from hub.lora.train.loop import Recipe, TrainingDiverged, train_layers
from hub.lora.train.trainable_layers import NothingToTrain, Tuned, tuned
from tests.lora.par.test_masked_training import mask_of, values
from tests.lora.train.test_loop import Cancelled, Kept, ignore_progress, unchanged

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


@pytest.fixture(autouse=True)
def _vowels(monkeypatch: pytest.MonkeyPatch) -> None:
    reward_vowels(monkeypatch)


def run(layers: Tuned, share: float | None = 0.4, changes: dict[str, Any] | None = None, **keywords: Any) -> Reinforced:
    mask = None if share is None else mask_of(layers, share)
    keywords = {"template": "plain", "on_progress": ignore_progress, **keywords}
    return reinforce(layers, EXAMPLES, settings(**changes or {}), mask=mask, **keywords)


@pytest.mark.parametrize("kl", [0.0, 0.04])
def test_only_the_mask_moves_and_the_base_is_as_it_was(tiny_base: Base, kl: float) -> None:
    with unchanged(tiny_base):
        with tuned(tiny_base, RECIPE.shape, None, 0) as layers:
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


def test_the_reference_is_the_policy_on_entry_also_after_a_stop(tiny_base: Base, tmp_path: Path) -> None:
    """The divergence is zero at the first step although supervision came before, and grows in a run that went on as in a whole one."""
    changes = {"kl": 0.04, "steps": 6, "learning_rate": 1e-2}

    def supervised(layers: Tuned) -> None:
        train_layers(layers, EXAMPLES, RECIPE, template="plain", on_progress=ignore_progress)

    with tuned(tiny_base, RECIPE.shape, None, 0) as layers:
        supervised(layers)
        whole, wanted = run(layers, changes=changes), values(layers)
    assert whole.curve[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert whole.curve[-1]["kl"] > 1e-3
    with tuned(tiny_base, RECIPE.shape, None, 0) as layers:
        supervised(layers)
        with pytest.raises(Cancelled):
            run(layers, changes=changes, checkpoints=Kept(tmp_path, killed_after=3))
    heard: list[int] = []
    with tuned(tiny_base, RECIPE.shape, None, 0) as layers:
        supervised(layers)
        rest = run(layers, changes=changes, checkpoints=Kept(tmp_path), on_progress=lambda step, *_: heard.append(step))
        assert heard == [4, 5, 6]
        assert rest.curve == whole.curve
        for name, each in values(layers).items():
            assert torch.equal(each, wanted[name])
        with pytest.raises(CheckpointMismatch):
            run(layers, changes=changes, checkpoints=Kept(tmp_path))
    with tuned(tiny_base, RECIPE.shape, None, 0) as layers:
        supervised(layers)
        assert run(layers, changes=changes, checkpoints=Kept(tmp_path)).curve == whole.curve, "it was finished already"
        for name, each in values(layers).items():
            assert torch.equal(each, wanted[name])


def test_nothing_is_told_to_anyone(tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    def tell(*_: object, **__: object) -> None:
        pytest.fail("telemetry")

    monkeypatch.setattr(trl.trainer.base_trainer, "send_telemetry", tell)
    monkeypatch.delenv("CI", raising=False)
    with tuned(tiny_base, RECIPE.shape, None, 0) as layers:
        run(layers, changes={"steps": 1})


@pytest.mark.parametrize("template", ["plain", "chat"])
def test_prompts_are_the_tokens_that_supervision_and_evaluation_see(tiny_base: Base, template: str) -> None:
    tokenizer, prompt = tiny_base.tokenizer, module._prompt("say alpha", template)
    if template == "chat":
        theirs = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
    else:
        theirs = tokenizer(text=prompt)["input_ids"]
    assert theirs == tokenize(tokenizer, EXAMPLES[0], template).prompt


def test_each_prompt_comes_once_a_round_and_every_round_in_another_order() -> None:
    order = module._order(6, settings(steps=None, epochs=2, prompts=3))
    assert len(order) == 12
    assert sorted(order[:6]) == sorted(order[6:]) == list(range(6))
    assert order[:6] != order[6:]


def test_what_cannot_be_reinforced_is_refused(tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    with tuned(tiny_base, RECIPE.shape, None, 0) as layers:
        with pytest.raises(NotReinforceable, match="divides 8"):
            run(layers, changes={"batch_size": 3})
        with pytest.raises(NothingToTrain, match="None of 5 prompts"):
            run(layers, changes={"max_prompt": 2})
        with pytest.raises(NothingToTrain, match="lets nothing move"):
            run(layers, share=0.0)
        too_long = [*EXAMPLES, Example("x" * 400, "y")]
        done = reinforce(
            layers, too_long, settings(steps=1, max_prompt=100), template="plain", on_progress=ignore_progress
        )
        assert done.too_long == 1
        reward_vowels(monkeypatch, lambda _: float("inf"))
        with pytest.raises(TrainingDiverged, match="step 1"):
            run(layers)
