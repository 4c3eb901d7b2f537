"""Votes: how replies are read and counted, and which teachers are refused."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from hub.lora.core.bases import Base
from hub.lora.core.examples import Example
from hub.lora.par.voting import (
    AGAIN,
    BATCH,
    BaseTeacher,
    NoBetterThanChance,
    Teacher,
    Vote,
    chance_of,
    counted,
    poll,
    read_vote,
    tried,
    vote,
)
from hub.vocabulary import System
from tests.lora.runs import ignore_progress
from tests.lora.teacher import task, trained_teacher

GOLD = [task(number, system) for number in range(150, 165) for system in (1, 2)]
SYSTEMS: list[System] = [system for _ in range(15) for system in (1, 2)]


@pytest.fixture(scope="module")
def knowing() -> Base:
    return trained_teacher("tests/tiny")


@dataclass
class Saying:
    """A teacher whose replies are given; they are said in turns."""

    given: Sequence[str]
    name: str = "saying"
    asked: list[str] = field(default_factory=list)

    def replies(self, prompts: Sequence[str]) -> list[str]:
        start = len(self.asked)
        self.asked += prompts
        return [self.given[(start + index) % len(self.given)] for index in range(len(prompts))]


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("System1", 1),
        ("**system 2**, because it chains facts", 2),
        ("<think>System1? No.</think>\nSystem_2", 2),
        ("System1 or System2", None),
        ("1", None),
        ("", None),
    ],
)
def test_a_reply_counts_if_it_names_one_system(reply: str, read: Vote) -> None:
    assert read_vote(reply) == read


def test_a_reply_that_cannot_be_read_is_asked_for_once_more_and_more_plainly() -> None:
    teacher = Saying(["System1", "well", "System2"])
    votes = poll(teacher, GOLD[:2], "org/model", lambda _: None)
    assert votes == [1, 2]
    assert len(teacher.asked) == 3
    assert teacher.asked[2] == teacher.asked[1] + AGAIN
    assert "org/model" in teacher.asked[0]
    assert f"Task: {GOLD[0].input}\nAnswer: {GOLD[0].target}\n" in teacher.asked[0]
    stubborn = Saying(["well"])
    assert poll(stubborn, GOLD[:2], "org/model", lambda _: None) == [None, None]
    assert len(stubborn.asked) == 4, "and then no more"


def test_braces_in_an_example_are_text() -> None:
    teacher = Saying(["System1"])
    poll(teacher, [Example("what is {x}?", "{model}")], "org/model", lambda _: None)
    assert "Task: what is {x}?\nAnswer: {model}\n" in teacher.asked[0]


def test_the_majority_decides_ties_take_the_example_out_and_agreement_is_reported() -> None:
    tally = counted({"a": [1, 1, 1, None, 2], "b": [1, 2, 2, None, None], "c": [1, 2, None, None, None]})
    assert tally.systems == [1, 2, None, None, 2]
    assert tally.ties == 2
    assert tally.unanimous == 1 / 5
    assert tally.with_majority == {"a": 2 / 5, "b": 2 / 5, "c": 2 / 5}
    assert tally.unreadable == {"a": 1, "b": 2, "c": 3}
    assert tally.summary().keys() == {"ties", "unanimous", "with_majority", "unreadable"}


def test_chance_is_the_share_of_all_ways_to_deal_the_votes_that_do_as_well() -> None:
    """Fisher's test against every permutation of the votes."""
    systems: list[System] = [1, 1, 1, 1, 2, 2, 2]
    polls: list[list[Vote]] = [
        [1, 1, 1, 2, 2, 2, 1],
        [1, 1, 1, 1, 2, 2, 2],
        [1, 1, 1, 1, 1, 1, 2],
        [1, None, 1, 1, 2, None, 2],
    ]
    for votes in polls:
        read = [3 - system if each is None else each for each, system in zip(votes, systems, strict=True)]

        def right(dealt: Sequence[int]) -> int:
            return sum(each == system for each, system in zip(dealt, systems, strict=True))

        deals = list(itertools.permutations(read))
        share = sum(right(deal) >= right(read) for deal in deals) / len(deals)
        assert chance_of(votes, systems) == pytest.approx(share)
    assert chance_of([1] * 7, systems) == 1.0, "to say the same to everything is no merit"


def test_a_model_that_knows_is_trusted_and_its_votes_are_right(knowing: Base) -> None:
    teacher = BaseTeacher(knowing)
    heard: list[tuple[int, int]] = []
    (trust,) = tried([teacher], GOLD, SYSTEMS, "tests/tiny", lambda step, total, _: heard.append((step, total)))
    assert (trust.right, trust.gold) == (1.0, 30)
    assert trust.low > 0.85
    assert heard == [(BATCH, 30), (2 * BATCH, 30), (3 * BATCH, 30), (30, 30)]
    others = [task(number, system) for number in (3, 70, 99) for system in (2, 1)]
    assert vote([teacher], others, "tests/tiny", ignore_progress).systems == [2, 1, 2, 1, 2, 1]


def test_teachers_no_better_than_chance_are_refused_with_their_figures(knowing: Base, tiny_base: Base) -> None:
    teachers: list[Teacher] = [BaseTeacher(knowing), BaseTeacher(tiny_base), Saying(["System1"], name="constant")]
    with pytest.raises(NoBetterThanChance) as refused:
        tried(teachers, GOLD, SYSTEMS, "tests/tiny", ignore_progress)
    message = str(refused.value)
    assert "tests/tiny is right on 0.00 [0.00, 0.11] of 30" in message, "a random model writes nothing that can be read"
    assert "constant is right on 0.50" in message
    assert "probability 1.00" in message
    assert "tests/teacher" not in message
