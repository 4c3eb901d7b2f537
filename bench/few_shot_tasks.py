"""More small tasks for `bench.lorahub`: two that modules are trained on beside the starter library's ten, and five more new ones.

Generated, sampled and split as in `hub.starter.tasks`.
"""

import random

from hub.starter import tasks as starter
from hub.starter.tasks import Task, make_task, number_words, past, sampled
from hub.starter.words import ANTONYMS, CAPITALS, IRREGULAR_NOUNS, IRREGULAR_VERBS, REGULAR_NOUNS, REGULAR_VERBS

_WORDS = sorted({*REGULAR_NOUNS, *IRREGULAR_NOUNS})
_VERBS = sorted({*REGULAR_VERBS, *IRREGULAR_VERBS})
_MONTHS = ("January February March April May June July August September October November December").split()


def _sum(generator: random.Random) -> tuple[str, str]:
    a, b = generator.randrange(1, 50), generator.randrange(1, 50)
    return f"{a} + {b}", str(a + b)


def _last_word(generator: random.Random) -> tuple[str, str]:
    words = generator.sample(_WORDS, 4)
    return " ".join(words), words[-1]


def _reversed_capitals(generator: random.Random) -> tuple[str, str]:
    words = generator.sample(_WORDS, 3)
    return " ".join(words), " ".join(reversed(words)).upper()


def _month(generator: random.Random) -> tuple[str, str]:
    year, month, day = generator.randrange(1900, 2030), generator.randrange(1, 13), generator.randrange(1, 29)
    return f"{year}-{month:02}-{day:02}", f"{_MONTHS[month - 1]} {year}"


def _next_number(generator: random.Random) -> tuple[str, str]:
    number = generator.randrange(1, 999)
    return str(number), number_words(number + 1)


TRAINED: tuple[Task, ...] = (
    *starter.TASKS,
    make_task("sums", "sums of two numbers", "Add", sampled("sums", 720, _sum)),
    make_task("last-word", "the last of some words", "Give the last word", sampled("last-word", 720, _last_word)),
)

NEW: tuple[Task, ...] = (
    *starter.NEW_TASKS,
    make_task(
        "capital-antonyms",
        "opposites in capital letters",
        "Give the opposite in capital letters",
        ((word, opposite.upper()) for word, opposite in ANTONYMS),
    ),
    make_task(
        "capital-past-tense",
        "past tense in capital letters",
        "Give the past tense in capital letters",
        ((verb, past(verb).upper()) for verb in _VERBS),
    ),
    make_task(
        "countries",
        "countries of capitals",
        "Give the country of the capital city",
        ((city, country) for country, city in CAPITALS.items()),
    ),
    make_task(
        "reversed-capitals",
        "words in reverse order, in capital letters",
        "Reverse the order of the words in capital letters",
        sampled("reversed-capitals", 400, _reversed_capitals),
    ),
    make_task("months", "month and year of a date", "Give the month and the year", sampled("months", 400, _month)),
    make_task(
        "next-number",
        "the next number in words",
        "Write the next number in words",
        sampled("next-number", 400, _next_number),
    ),
)
