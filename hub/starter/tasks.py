"""Small text tasks whose examples are generated here: what the starter adapters are trained on, and new tasks to compose them for.

Every task is the same wherever it is generated: all sampling is seeded by the task's name. Inputs of the held-out examples never
occur among the training ones. All are short: prompt and answer together stay under 40 tokens of the built-in base.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from hub.starter.words import (
    ANTONYMS,
    CAPITALS,
    DOUBLING_VERBS,
    IRREGULAR_NOUNS,
    IRREGULAR_VERBS,
    REGULAR_NOUNS,
    REGULAR_VERBS,
)

TEMPLATE = "plain"  # the prompt template of all starter adapters and data
HELD_OUT = 120


@dataclass(frozen=True)
class TextPair:
    input: str
    target: str


@dataclass(frozen=True)
class Task:
    """`name` also names the adapter that learns it, `title` says what is asked for."""

    name: str
    title: str
    train: tuple[TextPair, ...]
    held_out: tuple[TextPair, ...]


def make_task(name: str, title: str, instruction: str, answers: Iterable[Sequence[str]]) -> Task:
    """Split at random: HELD_OUT of them, drawn at random, are held out, or half where there are too few."""
    pairs = [TextPair(f"{instruction}: {given}", answer) for given, answer in answers]
    random.Random(name).shuffle(pairs)
    count = min(HELD_OUT, len(pairs) // 2)
    return Task(name, title, tuple(pairs[count:]), tuple(pairs[:count]))


def sampled(name: str, count: int, draw: Callable[[random.Random], tuple[str, str]]) -> Iterable[tuple[str, str]]:
    generator = random.Random(f"{name}, inputs")
    found: dict[str, str] = {}
    while len(found) < count:
        given, answer = draw(generator)
        found[given] = answer
    return found.items()


# --- English morphology -----------------------------------------------------------------------------------------------

_VOWELS = "aeiou"


def plural(noun: str) -> str:
    return IRREGULAR_NOUNS.get(noun) or with_s(noun)


def with_s(word: str) -> str:
    """The plural of a regular noun, and the third person of a verb."""
    if word.endswith(("s", "x", "z", "ch", "sh")) or word in ("go", "do"):
        return word + "es"
    if word.endswith("y") and word[-2] not in _VOWELS:
        return word[:-1] + "ies"
    return word + "s"


def past(verb: str) -> str:
    if verb in IRREGULAR_VERBS:
        return IRREGULAR_VERBS[verb]
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in _VOWELS:
        return verb[:-1] + "ied"
    return _doubled(verb) + "ed"


def gerund(verb: str) -> str:
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith("ee"):
        return verb[:-1] + "ing"
    return _doubled(verb) + "ing"


def _doubled(verb: str) -> str:
    short = len(verb) > 2 and verb[-1] not in "aeiouwxy" and verb[-2] in _VOWELS and verb[-3] not in _VOWELS
    one_syllable = sum(letter in _VOWELS for letter in verb) == 1
    after_qu = verb.startswith("qu")
    return verb + verb[-1] if (short and one_syllable and not after_qu) or verb in DOUBLING_VERBS else verb


# --- numbers ----------------------------------------------------------------------------------------------------------

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def number_words(number: int) -> str:
    """0 to 9999, as in American English: no "and"."""
    if number < 20:
        return _ONES[number]
    if number < 100:
        rest = f"-{_ONES[number % 10]}" if number % 10 else ""
        return _TENS[number // 10 - 2] + rest
    unit, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    rest = f" {number_words(number % unit)}" if number % unit else ""
    return f"{number_words(number // unit)} {name}{rest}"


_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def ordinal_words(number: int) -> str:
    words = number_words(number)
    start = max(words.rfind(" "), words.rfind("-")) + 1
    last = words[start:]
    if last in _ORDINALS:
        return words[:start] + _ORDINALS[last]
    return words[:-1] + "ieth" if last.endswith("y") else words + "th"


def roman(number: int) -> str:
    values = {
        "M": 1000,
        "CM": 900,
        "D": 500,
        "CD": 400,
        "C": 100,
        "XC": 90,
        "L": 50,
        "XL": 40,
        "X": 10,
        "IX": 9,
        "V": 5,
    }
    numeral = ""
    for symbol, value in (values | {"IV": 4, "I": 1}).items():
        numeral += symbol * (number // value)
        number %= value
    return numeral


def _number(generator: random.Random) -> int:
    return generator.randrange(10 ** generator.choice((2, 3, 3, 4)))


# --- the tasks --------------------------------------------------------------------------------------------------------

_NOUNS = sorted({*REGULAR_NOUNS, *IRREGULAR_NOUNS})
_VERBS = sorted({*REGULAR_VERBS, *IRREGULAR_VERBS})
_SHORT_WORDS = sorted({word for word in (*_NOUNS, *_VERBS) if 3 <= len(word) <= 4 and len(set(word)) == len(word)})
_MONTHS = ("January February March April May June July August September October November December").split()


def _day(generator: random.Random) -> tuple[str, str]:
    day = date(1900, 1, 1) + timedelta(days=generator.randrange(45000))
    return f"{_MONTHS[day.month - 1]} {day.day}, {day.year}", day.isoformat()


def _three_words(generator: random.Random) -> tuple[str, str]:
    words = generator.sample(_NOUNS, 3)
    return " ".join(words), " ".join(reversed(words))


def _in_words(generator: random.Random) -> tuple[str, str]:
    number = _number(generator)
    return str(number), number_words(number)


def _in_roman(generator: random.Random) -> tuple[str, str]:
    number = generator.randrange(1, 400)
    return str(number), roman(number)


def _ordinal(generator: random.Random) -> tuple[str, str]:
    number = generator.randrange(1, 1000)
    return str(number), ordinal_words(number)


def _capital_number(generator: random.Random) -> tuple[str, str]:
    number = _number(generator)
    return str(number), number_words(number).upper()


# What the starter adapters are trained on, one adapter a task.
TASKS: tuple[Task, ...] = (
    make_task("number-words", "numbers in words", "Write in words", sampled("number-words", 720, _in_words)),
    make_task("plurals", "plurals of nouns", "Give the plural", ((noun, plural(noun)) for noun in _NOUNS)),
    make_task("past-tense", "past tense of verbs", "Give the past tense", ((verb, past(verb)) for verb in _VERBS)),
    make_task("capitals", "capitals of countries", "Give the capital city", CAPITALS.items()),
    make_task("antonyms", "opposites of words", "Give the opposite", ANTONYMS),
    make_task("iso-dates", "dates as in ISO 8601", "Write as an ISO date", sampled("iso-dates", 720, _day)),
    make_task(
        "upper-case",
        "words in capital letters",
        "Write in capital letters",
        ((w, w.upper()) for w in sorted({*_NOUNS, *_VERBS})),
    ),
    make_task(
        "sort-letters",
        "letters in alphabetical order",
        "Sort the letters",
        ((w, "".join(sorted(w))) for w in _SHORT_WORDS),
    ),
    make_task(
        "reverse-words",
        "words in reverse order",
        "Reverse the order of the words",
        sampled("reverse-words", 720, _three_words),
    ),
    make_task(
        "roman-numerals", "Roman numerals", "Write as a Roman numeral", sampled("roman-numerals", 360, _in_roman)
    ),
)

# What no adapter was trained on, to compose them for.
NEW_TASKS: tuple[Task, ...] = (
    make_task(
        "third-person", "verbs in the third person", "Give the form for he or she", ((v, with_s(v)) for v in _VERBS)
    ),
    make_task("gerunds", "the -ing form of verbs", "Give the -ing form", ((verb, gerund(verb)) for verb in _VERBS)),
    make_task("ordinals", "ordinal numbers in words", "Write the ordinal in words", sampled("ordinals", 400, _ordinal)),
    make_task(
        "capital-number-words",
        "numbers in words, in capital letters",
        "Write in words in capital letters",
        sampled("capital-number-words", 400, _capital_number),
    ),
    make_task(
        "capital-plurals",
        "plurals in capital letters",
        "Give the plural in capital letters",
        ((noun, plural(noun).upper()) for noun in _NOUNS),
    ),
)

# The one that `make demo` composes the library for.
DEMO = next(task for task in NEW_TASKS if task.name == "capital-plurals")
