"""What a reduction lowers: the loss of choosing, beside a computation by hand and PyTorch's own gradients."""

import pytest
import torch
from torch.nn import functional

from hub.lora.core.bases import Base
from hub.lora.core.evaluate import evaluate
from hub.lora.core.examples import Example, encode, target_losses
from hub.lora.core.losses import mean_loss as mean_target_loss
from hub.lora.reduce.objective import Choices, batches_of, mean_loss, weight

QUESTIONS = [
    Example("one or two", "two", ("one", "two")),
    Example("three", "3", ("1", "2", "3")),
    Example("yes?", "no, never", ("yes", "no, never")),
]


def by_hand(base: Base, example: Example) -> float:
    """The negative log of the right choice's probability among all choices, one forward pass a choice."""
    sums = []
    for choice in example.choices:
        batch = encode(base.tokenizer, [Example(example.input, choice)], "plain")
        with torch.inference_mode():
            sums.append(-target_losses(base.model, batch)[0] * (batch.labels != -100).sum())
    right = torch.tensor([example.choices.index(example.target)])
    return float(functional.cross_entropy(torch.stack(sums)[None], right))


@pytest.mark.parametrize("rows", [2, 3, 5, 16])
def test_the_loss_of_choosing_is_that_of_whole_answers(tiny_base: Base, rows: int) -> None:
    batches = batches_of(tiny_base, QUESTIONS, "plain", rows)
    assert all(isinstance(batch, Choices) for batch in batches)
    assert sum(weight(batch) for batch in batches) == len(QUESTIONS)
    assert all(len(batch.labels) <= max(rows, 3) for batch in batches)
    expected = sum(by_hand(tiny_base, example) for example in QUESTIONS) / len(QUESTIONS)
    assert mean_loss(tiny_base, batches) == pytest.approx(expected, rel=1e-5)


def test_it_is_below_a_coin_s_where_the_choice_is_right(tiny_base: Base) -> None:
    questions = [example for example in QUESTIONS if len(example.choices) == 2]
    right = evaluate(
        tiny_base, None, questions, template="plain", metrics=("choice",), on_progress=lambda *_: None
    ).values["choice"]
    losses = [mean_loss(tiny_base, batches_of(tiny_base, [example], "plain")) for example in questions]
    assert [loss < float(torch.log(torch.tensor(2.0))) for loss in losses] == [bool(each) for each in right]


@pytest.mark.parametrize(
    "examples",
    [
        [Example("a", "b")],
        [*QUESTIONS, Example("without choices", "x")],
        [Example("its target is none of them", "x", ("a", "b"))],
        [Example("no choice", "a", ("a", "a"))],
    ],
)
def test_without_choices_it_is_the_targets_loss(tiny_base: Base, examples: list[Example]) -> None:
    batches = batches_of(tiny_base, examples, "plain", 2)
    assert not any(isinstance(batch, Choices) for batch in batches)
    assert mean_loss(tiny_base, batches) == pytest.approx(mean_target_loss(tiny_base, batches), rel=1e-6)
