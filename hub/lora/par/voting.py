"""Teachers vote on whether an example is fast or slow thinking (LoRA-PAR, arXiv 2507.20999, section 3.1).

Each teacher plays the model to be trained: given a question and its answer, would that model answer at once (System 1), or only
by several steps of reasoning (System 2)? The majority decides. A teacher may be any model, so each is first tested on examples whose
system is known. A teacher no better than chance there would only add noise, and is refused.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from hub.intervals import share_interval
from hub.lora.core.bases import Base
from hub.lora.core.errors import LoraError
from hub.lora.core.examples import Example, OnProgress, generate
from hub.vocabulary import System

BATCH = 8  # ballots per call of a teacher
CHANCE = 0.05  # the highest p-value of a teacher's result under guessing

BALLOT = """You play the language model {model}. Below are a task and its answer. Decide how that model thinks when it solves the task.
System1: it answers at once, by recall, by reading or by one simple inference.
System2: it needs several steps of reasoning that build on each other.
Task: {input}
Answer: {target}
Reply with one word, System1 or System2."""
AGAIN = "\nThe reply must be the word System1 or the word System2, and nothing else."

_VOTE = re.compile(r"system[ _-]*([12])", re.IGNORECASE)
_THOUGHT = re.compile(r".*</think>", re.DOTALL)

Vote = System | None  # None is a reply that names neither system, or both


class NoBetterThanChance(LoraError):
    code = "teacher_no_better_than_chance"


class Teacher(Protocol):
    @property
    def name(self) -> str: ...

    def replies(self, prompts: Sequence[str]) -> list[str]:
        """One reply per prompt."""
        ...


@dataclass(frozen=True)
class BaseTeacher:
    """A base as a teacher, with the chat template if it has one, else as plain text. `room` is the longest reply in tokens."""

    base: Base
    room: int = 16

    @property
    def name(self) -> str:
        return self.base.id

    def replies(self, prompts: Sequence[str]) -> list[str]:
        template = "chat" if self.base.tokenizer.chat_template else "plain"
        return generate(self.base, prompts, template, max_new_tokens=self.room, batch_size=BATCH)


@dataclass(frozen=True)
class Trust:
    """A teacher's test on examples whose system is known.

    `right` is its share of right votes, with Wilson's interval; an unreadable vote is wrong. `chance` is the probability that votes
    unrelated to the systems do as well.
    """

    teacher: str
    gold: int
    right: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True)
class Tally:
    """The outcome of a vote. `systems` has None for a tie, which unreadable votes can cause even with an odd number of teachers.

    `unanimous` is the share of examples on which all teachers agree, `with_majority` each teacher's share of votes that agree with
    the majority, and `unreadable` the number of its unreadable votes.
    """

    systems: list[System | None]
    votes: dict[str, list[Vote]]
    ties: int
    unanimous: float
    with_majority: dict[str, float]
    unreadable: dict[str, int]

    def summary(self) -> dict[str, object]:
        """The tally without the votes themselves."""
        return {name: value for name, value in asdict(self).items() if name not in ("systems", "votes")}


def read_vote(reply: str) -> Vote:
    """The system that a reply names after its thinking; None if it names none, or both."""
    named = set(_VOTE.findall(_THOUGHT.sub("", reply)))
    if len(named) != 1:
        return None
    return 1 if named == {"1"} else 2


def poll(teacher: Teacher, examples: Sequence[Example], model: str, on_batch: Callable[[int], None]) -> list[Vote]:
    """The teacher's vote on each example. For an unreadable reply the teacher gets a plainer prompt once."""
    ballots = [BALLOT.format(model=model, input=example.input, target=example.target) for example in examples]
    votes: list[Vote] = []
    for start in range(0, len(ballots), BATCH):
        batch = ballots[start : start + BATCH]
        read = [read_vote(reply) for reply in teacher.replies(batch)]
        unread = [index for index, vote in enumerate(read) if vote is None]
        if unread:
            for index, reply in zip(unread, teacher.replies([batch[index] + AGAIN for index in unread]), strict=True):
                read[index] = read_vote(reply)
        votes += read
        on_batch(len(read))
    return votes


def tried(
    teachers: Sequence[Teacher],
    gold: Sequence[Example],
    systems: Sequence[System],
    model: str,
    on_progress: OnProgress,
) -> list[Trust]:
    """Test each teacher. Raises NoBetterThanChance, which names every teacher that fails."""
    results, done = [], 0

    def on_batch(count: int) -> None:
        nonlocal done
        done += count
        on_progress(done, len(gold) * len(teachers), {})

    for teacher in teachers:
        votes = poll(teacher, gold, model, on_batch)
        right = [float(vote == system) for vote, system in zip(votes, systems, strict=True)]
        results.append(Trust(teacher.name, len(gold), *share_interval(right), chance_of(votes, systems)))
    bad = [trust for trust in results if trust.chance > CHANCE]
    if bad:
        figures = "; ".join(
            f"{trust.teacher} is right on {trust.right:.2f} [{trust.low:.2f}, {trust.high:.2f}] of {trust.gold}, and guessing does as well "
            f"with probability {trust.chance:.2f}"
            for trust in bad
        )
        raise NoBetterThanChance(f"{figures}. Choose other teachers, or label the examples.")
    return results


def chance_of(votes: Sequence[Vote], systems: Sequence[System]) -> float:
    """The probability of at least this many right votes if votes and systems were independent: Fisher's exact test, one-sided.

    The test does not favour a teacher that gives the same vote to everything, whatever the mix of systems. An unreadable vote counts as
    the wrong one.
    """
    read = [(3 - system if vote is None else vote) for vote, system in zip(votes, systems, strict=True)]
    ones, said_one = sum(system == 1 for system in systems), sum(vote == 1 for vote in read)
    both = sum(vote == system == 1 for vote, system in zip(read, systems, strict=True))
    ways = sum(
        math.comb(ones, count) * math.comb(len(systems) - ones, said_one - count)
        for count in range(both, min(ones, said_one) + 1)
    )
    return ways / math.comb(len(systems), said_one)


def vote(teachers: Sequence[Teacher], examples: Sequence[Example], model: str, on_progress: OnProgress) -> Tally:
    """Collect every teacher's vote on every example, and the majority of the readable votes."""
    votes, done = {}, 0

    def on_batch(count: int) -> None:
        nonlocal done
        done += count
        on_progress(done, len(examples) * len(teachers), {})

    for teacher in teachers:
        votes[teacher.name] = poll(teacher, examples, model, on_batch)
    return counted(votes)


def counted(votes: dict[str, list[Vote]]) -> Tally:
    ballots = list(zip(*votes.values(), strict=True))
    systems = [_majority(ballot) for ballot in ballots]
    return Tally(
        systems=systems,
        votes=votes,
        ties=systems.count(None),
        unanimous=sum(len(set(ballot)) == 1 and ballot[0] is not None for ballot in ballots) / len(ballots),
        with_majority={
            name: sum(own is not None and own == system for own, system in zip(own_votes, systems, strict=True))
            / len(own_votes)
            for name, own_votes in votes.items()
        },
        unreadable={name: own.count(None) for name, own in votes.items()},
    )


def _majority(ballot: Sequence[Vote]) -> System | None:
    counts = Counter(ballot)
    if counts[1] == counts[2]:
        return None
    return 1 if counts[1] > counts[2] else 2
