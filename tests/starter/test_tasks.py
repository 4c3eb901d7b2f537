"""The starter tasks: the same wherever they are generated, short, and with nothing held out that was trained on."""

import hashlib
from collections.abc import Callable

import pytest

from hub.lora.core.bases import Base
from hub.lora.core.examples import Example, encode
from hub.starter import tasks
from hub.starter.tasks import NEW_TASKS, TASKS, TEMPLATE, Task
from tests.lora.conftest import built_in, built_in_folder  # noqa: F401 - fixtures

ALL = (*TASKS, *NEW_TASKS)


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_held_out_inputs_are_not_trained_on(task: Task) -> None:
    trained, held_out = ({pair.input for pair in part} for part in (task.train, task.held_out))
    assert len(trained) == len(task.train), "no input twice"
    assert len(held_out) == len(task.held_out)
    assert not trained & held_out


def test_opposites_are_not_trained_on_backwards() -> None:
    """Who has learned light -> dark knows dark -> light."""
    (task,) = (task for task in TASKS if task.name == "antonyms")
    words = [{pair.input.rpartition(" ")[2], pair.target} for pair in (*task.train, *task.held_out)]
    trained, held_out = words[: len(task.train)], words[len(task.train) :]
    assert not [pair for pair in held_out if pair in trained]


def test_generation_does_not_depend_on_the_process() -> None:
    """The cards of the adapters are about exactly these examples."""
    text = "\n".join(f"{pair.input}\t{pair.target}" for task in ALL for pair in (*task.train, *task.held_out))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "ae733f427f56aec8"


def test_every_example_is_under_forty_tokens(built_in: Base) -> None:  # noqa: F811
    for task in ALL:
        examples = [Example(pair.input, pair.target) for pair in (*task.train, *task.held_out)]
        assert encode(built_in.tokenizer, examples, TEMPLATE).input_ids.shape[1] < 40, task.name


@pytest.mark.parametrize(
    ("function", "word", "expected"),
    [
        (tasks.plural, "box", "boxes"),
        (tasks.plural, "city", "cities"),
        (tasks.plural, "key", "keys"),
        (tasks.plural, "wolf", "wolves"),
        (tasks.with_s, "go", "goes"),
        (tasks.past, "stop", "stopped"),
        (tasks.past, "carry", "carried"),
        (tasks.past, "play", "played"),
        (tasks.past, "fix", "fixed"),
        (tasks.past, "prefer", "preferred"),
        (tasks.past, "visit", "visited"),
        (tasks.gerund, "tie", "tying"),
        (tasks.gerund, "agree", "agreeing"),
        (tasks.gerund, "swim", "swimming"),
        (tasks.number_words, 0, "zero"),
        (tasks.number_words, 40, "forty"),
        (tasks.number_words, 9019, "nine thousand nineteen"),
        (tasks.ordinal_words, 12, "twelfth"),
        (tasks.ordinal_words, 20, "twentieth"),
        (tasks.ordinal_words, 931, "nine hundred thirty-first"),
        (tasks.roman, 394, "CCCXCIV"),
    ],
)
def test_answers(function: Callable[[str | int], str], word: str | int, expected: str) -> None:
    assert function(word) == expected
