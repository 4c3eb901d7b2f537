"""Four generated tasks with two answers to choose from, each with items that choose a cut and items that measure it."""

import random
from collections.abc import Callable
from functools import cache

from hub.lora.core.examples import Example
from hub.starter.words import CAPITALS, REGULAR_NOUNS

ITEMS, CHOOSING, HELD_OUT = 2_000, 400, 500


def _capital(draw: random.Random) -> Example:
    (country, capital), (_, other) = draw.sample(sorted(CAPITALS.items()), 2)
    return _either(draw, f"Which city is the capital of {country}", capital, other)


def larger_number(draw: random.Random) -> Example:
    small, large = sorted(draw.sample(range(10, 1_000), 2))
    return _either(draw, "Which number is larger", str(large), str(small))


def _earlier(draw: random.Random) -> Example:
    first, second = sorted(draw.sample(list(REGULAR_NOUNS), 2))
    return _either(draw, "Which word comes first in a dictionary", first, second)


def _boolean(draw: random.Random) -> Example:
    """Four values joined by and and or, of which `and` binds more tightly."""
    values, signs = [draw.random() < 0.5 for _ in range(4)], [draw.random() < 0.5 for _ in range(4)]
    joints = [draw.choice(("and", "or")) for _ in range(3)]
    text = " ".join(
        f"{'' if sign else 'not '}{value if sign else not value} {joint}".strip()
        for value, sign, joint in zip(values, signs, [*joints, ""], strict=True)
    )
    groups, product = [], values[0]
    for joint, value in zip(joints, values[1:], strict=True):
        if joint == "or":
            groups.append(product)
        product = (product and value) if joint == "and" else value
    return Example(f"{text} is", str(any([*groups, product])), ("True", "False"))


def _either(draw: random.Random, question: str, right: str, wrong: str) -> Example:
    choices = draw.sample([right, wrong], 2)
    return Example(f"{question}, {choices[0]} or {choices[1]}?", right, tuple(choices))


QUESTIONS: dict[str, Callable[[random.Random], Example]] = {
    "capital": _capital,
    "larger number": larger_number,
    "dictionary order": _earlier,
    "boolean": _boolean,
}


@cache
def task_items(task: str) -> tuple[list[Example], list[Example]]:
    """(items for choosing, held-out items), without common items."""
    draw = random.Random(task)
    items = [QUESTIONS[task](draw) for _ in range(ITEMS)]
    choosing = items[:CHOOSING]
    seen = {item.input for item in choosing}
    return choosing, [item for item in items[CHOOSING:] if item.input not in seen][:HELD_OUT]
