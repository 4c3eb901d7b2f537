"""hub.lora.core.evaluate: every score against a slow and separate computation of it."""

import math

import pytest
import torch

from hub.intervals import bootstrap_interval, share_interval
from hub.lora.core.adapter import Adapter, applied, read
from hub.lora.core.bases import Base
from hub.lora.core.evaluate import NoChoices, NoExamples, evaluate
from hub.lora.core.examples import Example, generate
from tests.lora.conftest import MakeAdapter
from tests.lora.runs import ignore_progress
from tests.tiny_models import likely_letters

WORDS = ("one", "two", "three", "four", "five", "six", "seven")
# Of unequal length, so that batches by length are in another order than the examples.
EXAMPLES = [
    Example("count " * (1 + index * 3 % 7) + word, word, choices=WORDS[index % 3 : index % 3 + 5])
    for index, word in enumerate(WORDS[:5])
]
NEVER_RIGHT = Example("and last", "a text that no random model writes")


@pytest.fixture(scope="module")
def module(make_adapter: MakeAdapter) -> Adapter:
    return read(make_adapter("module", seed=5))


def log_likelihood(base: Base, text: str, answer: str) -> tuple[float, int]:
    """Of the answer and its end after the plain prompt, token by token from the whole logits, and their number."""
    tokenizer = base.tokenizer
    prompt = tokenizer(f"{text}\nAnswer:")["input_ids"]
    target = [*tokenizer(f" {answer}")["input_ids"], tokenizer.eos_token_id]
    with torch.inference_mode():
        logits = base.model(torch.tensor([prompt + target])).logits[0].log_softmax(-1)
    return sum(float(logits[len(prompt) + index - 1, token]) for index, token in enumerate(target)), len(target)


def test_scores_are_those_of_each_example_alone_in_the_examples_order(tiny_base: Base, module: Adapter) -> None:
    with applied(tiny_base.model, module):
        written = [
            generate(tiny_base, [example.input], "plain", max_new_tokens=6, batch_size=1)[0] for example in EXAMPLES
        ]
    # What the model writes, spoilt for every second example, so that right and wrong alternate.
    asked = [
        Example(example.input, answer if index % 2 else f"{answer} {answer}")
        for index, (example, answer) in enumerate(zip(EXAMPLES, written, strict=True))
    ]
    scores = evaluate(
        tiny_base,
        module,
        asked,
        template="plain",
        metrics=("exact_match", "target_loss", "contains"),
        max_new_tokens=6,
        batch_size=2,
        on_progress=ignore_progress,
    )
    assert len(set(written)) > 2
    assert scores.answers == written
    assert scores.values["exact_match"] == [0.0, 1.0, 0.0, 1.0, 0.0]
    assert scores.values["contains"] == [0.0, 1.0, 0.0, 1.0, 0.0]
    with applied(tiny_base.model, module):
        expected = [log_likelihood(tiny_base, example.input, example.target) for example in asked]
    assert scores.values["target_loss"] == pytest.approx([-total / count for total, count in expected], rel=1e-4)


def test_choice_takes_the_likeliest_whole_answer(tiny_base: Base, module: Adapter) -> None:
    def likeliest(example: Example) -> str:
        return max(example.choices, key=lambda choice: log_likelihood(tiny_base, example.input, choice)[0])

    with applied(tiny_base.model, module):
        best = [likeliest(example) for example in EXAMPLES]
    asked = [
        Example(
            example.input, choice if index != 2 else next(c for c in example.choices if c != choice), example.choices
        )
        for index, (example, choice) in enumerate(zip(EXAMPLES, best, strict=True))
    ]
    scores = evaluate(
        tiny_base, module, asked, template="plain", metrics=("choice",), batch_size=3, on_progress=ignore_progress
    )
    assert scores.values == {"choice": [1.0, 1.0, 0.0, 1.0, 1.0]}
    assert scores.answers == [], "no metric looked at answers, so none were written"


def test_choice_counts_every_token_of_an_answer(tiny_base: Base) -> None:
    # The likelier answer per token is here the less likely answer as a whole.
    text, short = "x", "a"
    long = likely_letters(tiny_base, text, 20)
    (of_short, few), (of_long, many) = (log_likelihood(tiny_base, text, answer) for answer in (short, long))
    assert of_short > of_long
    assert of_short / few < of_long / many
    example = Example(text, short, (long, short))
    scores = evaluate(tiny_base, None, [example], template="plain", metrics=("choice",), on_progress=ignore_progress)
    assert scores.values["choice"] == [1.0]


def test_an_adapter_changes_the_scores_and_leaves_no_trace(tiny_base: Base, module: Adapter) -> None:
    def losses(adapter: Adapter | None) -> list[float]:
        return evaluate(
            tiny_base,
            adapter,
            EXAMPLES,
            template="chat",
            metrics=("target_loss",),
            on_progress=ignore_progress,
        ).values["target_loss"]

    alone, adapted = losses(None), losses(module)
    assert all(abs(left - right) > 0.01 for left, right in zip(alone, adapted, strict=True))
    assert losses(None) == alone
    assert not any(layer._forward_hooks for layer in tiny_base.model.modules())


def test_estimates_are_wilsons_for_shares_and_the_bootstrap_for_losses(tiny_base: Base) -> None:
    scores = evaluate(
        tiny_base,
        None,
        [*EXAMPLES, NEVER_RIGHT],
        template="plain",
        metrics=("exact_match", "target_loss"),
        max_new_tokens=4,
        seed=9,
        on_progress=ignore_progress,
    )
    exact, loss = scores.estimates["exact_match"], scores.estimates["target_loss"]
    assert (exact.mean, exact.low, exact.high) == share_interval(scores.values["exact_match"])
    assert exact.mean == 0
    assert exact.high > 0.3, "six wrong answers do not show that the model never is right"
    assert (loss.mean, loss.low, loss.high) == bootstrap_interval(scores.values["target_loss"], seed=9)
    assert loss.low < loss.mean < loss.high


def test_progress_counts_examples_and_may_stop_the_work(tiny_base: Base, module: Adapter) -> None:
    class Cancelled(Exception):
        pass

    heard: list[tuple[int, int, dict[str, float]]] = []

    def listen(step: int, total: int, values: dict[str, float]) -> None:
        heard.append((step, total, values))
        if len(heard) == 5:
            raise Cancelled

    def run() -> list[float]:
        return evaluate(
            tiny_base,
            module,
            EXAMPLES,
            template="plain",
            metrics=("target_loss",),
            batch_size=2,
            on_progress=listen,
        ).values["target_loss"]

    values = run()
    assert [(step, total) for step, total, _ in heard] == [(2, 5), (4, 5), (5, 5)]
    assert heard[-1][2] == {"target_loss": pytest.approx(sum(values) / 5)}
    assert all(math.isfinite(means["target_loss"]) for _, _, means in heard)
    with pytest.raises(Cancelled):
        run()
    assert len(heard) == 5
    assert not any(layer._forward_hooks for layer in tiny_base.model.modules())


def test_shots_stand_solved_before_each_input_and_an_answer_ends_at_a_blank_line(tiny_base: Base) -> None:
    shots = [Example("first", "one"), Example("second", "two")]
    prompt = "first\nAnswer: one\n\nsecond\nAnswer: two\n\nthird"
    target = generate(tiny_base, [prompt], "plain", max_new_tokens=6, batch_size=1)[0].partition("\n\n")[0].strip()
    asked = [Example("third", target), Example("third", f"{target} and more")]
    scores = evaluate(
        tiny_base,
        None,
        asked,
        template="plain",
        metrics=("exact_match", "target_loss"),
        max_new_tokens=6,
        shots=shots,
        on_progress=ignore_progress,
    )
    assert scores.values["exact_match"] == [1.0, 0.0]
    for example, loss in zip(asked, scores.values["target_loss"], strict=True):
        total, tokens = log_likelihood(tiny_base, prompt, example.target)
        assert loss == pytest.approx(-total / tokens, rel=1e-4)
    assert scores.prompt_tokens == len(f"{prompt}\nAnswer:"), "a byte is a token"
    assert scores.seconds > 0


def test_nothing_to_score_is_an_error(tiny_base: Base) -> None:
    with pytest.raises(NoExamples):
        evaluate(tiny_base, None, [], template="plain", metrics=("exact_match",), on_progress=ignore_progress)
    with pytest.raises(NoChoices, match="Example 6 does not have its target"):
        evaluate(
            tiny_base,
            None,
            [*EXAMPLES, NEVER_RIGHT],
            template="plain",
            metrics=("choice",),
            on_progress=ignore_progress,
        )
