"""What each reward gives for answers as models write them."""

import pytest

from hub.lora.par.rewards import FUNCTIONS, WEIGHTS_OF_THE_PAPER, Answer, answered
from hub.vocabulary import REWARDS, Reward

WHOLE = "<reasoning>\nsix times seven\n</reasoning>\n<answer>\n42\n</answer>\n"


def reward(name: Reward, text: str, target: str = "42", tokens: int = 5, room: int = 20) -> float:
    return FUNCTIONS[name](Answer(text, tokens, room, target))


@pytest.mark.parametrize(
    ("text", "judged"),
    [(" 42 ", "42"), (WHOLE, "42"), ("<answer>1</answer> or <answer>2</answer>", "2"), ("<answer>42", "<answer>42")],
)
def test_what_is_judged_is_between_the_last_tags_or_everything(text: str, judged: str) -> None:
    assert answered(text) == judged


def test_the_right_answer_in_numbers_and_in_words() -> None:
    assert reward("exact_match", WHOLE) == 1.0
    assert reward("exact_match", "42 apples") == 0.0
    assert reward("numeric_match", "it is 1,042.0", "#### 1042") == 1.0
    assert reward("numeric_match", "<answer>41</answer> 42") == 0.0, "only what is between the tags counts"
    assert reward("numeric_match", "3.5", "3.25") == 0.0


@pytest.mark.parametrize(
    ("text", "strict", "soft"),
    [
        (WHOLE, 1.0, 1.0),
        ("<reasoning>a</reasoning><answer>42</answer>", 0.0, 1.0),
        ("well: " + WHOLE, 0.0, 0.0),
        ("42", 0.0, 0.0),
    ],
)
def test_the_format_strictly_and_loosely(text: str, strict: float, soft: float) -> None:
    assert (reward("strict_format", text), reward("soft_format", text)) == (strict, soft)


def test_tags_count_a_quarter_each_and_text_after_the_last_one_costs() -> None:
    assert reward("tags", WHOLE) == 1.0
    assert reward("tags", "<answer>42</answer>") == 0.5
    assert reward("tags", WHOLE + "x" * 100) == pytest.approx(0.9)
    assert reward("tags", "<answer></answer>" * 2) == 0.0, "each must stand there once"
    assert reward("tags", WHOLE + "x" * 5000) == 0.0


def test_integers_and_lengths() -> None:
    assert [reward("integer", text) for text in ("42", "-3", "4.2", "forty", WHOLE)] == [1, 1, 0, 0, 1]
    assert reward("length", "x", tokens=5, room=20) == 0.75
    assert reward("length", "x", tokens=20, room=20) == 0.0


def test_every_name_has_a_function_and_the_papers_sum_to_four() -> None:
    assert FUNCTIONS.keys() == set(REWARDS)
    assert sum(WEIGHTS_OF_THE_PAPER.values()) == 4.0
