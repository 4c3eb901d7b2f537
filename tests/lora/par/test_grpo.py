"""Reinforcement: what moves, against which policy, how it goes on after a stop, and that nothing of it stays behind or goes out."""

from pathlib import Path

import pytest
import trl.trainer.base_trainer

from hub.lora.core.bases import Base
from hub.lora.core.examples import Example, tokenize
from hub.lora.par import grpo as module
from hub.lora.par.grpo import NotReinforceable, reinforce
from hub.lora.train.loop import TrainingDiverged
from hub.lora.train.trainable_layers import NothingToTrain, trainable_layers
from tests.lora.par.reinforcement_runs import (
    EXAMPLES,
    RECIPE,
    check_only_the_mask_moves,
    check_the_reference_is_the_policy_on_entry,
    reward_vowels,
    run,
    settings,
)
from tests.lora.runs import ignore_progress


@pytest.fixture(autouse=True)
def _vowels(monkeypatch: pytest.MonkeyPatch) -> None:
    reward_vowels(monkeypatch)


@pytest.mark.parametrize("kl", [0.0, 0.04])
def test_only_the_mask_moves_and_the_base_is_as_it_was(tiny_base: Base, kl: float) -> None:
    check_only_the_mask_moves(tiny_base, kl)


def test_the_reference_is_the_policy_on_entry_also_after_a_stop(tiny_base: Base, tmp_path: Path) -> None:
    check_the_reference_is_the_policy_on_entry(tiny_base, tmp_path)


def test_no_telemetry_is_sent(tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    def tell(*_: object, **__: object) -> None:
        pytest.fail("telemetry")

    monkeypatch.setattr(trl.trainer.base_trainer, "send_telemetry", tell)
    monkeypatch.delenv("CI", raising=False)
    with trainable_layers(tiny_base, RECIPE.shape, None, 0) as layers:
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
    with trainable_layers(tiny_base, RECIPE.shape, None, 0) as layers:
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
