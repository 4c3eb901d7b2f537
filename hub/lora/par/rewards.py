"""Rewards of reinforcement: named functions of an answer, combined with weights. Generated text is never executed.

If an answer has <answer> tags, the text between the last pair is judged, else the whole answer. The rewards of LoRA-PAR's code
(arXiv 2507.20999) are here under our own names; its weights are WEIGHTS_OF_THE_PAPER.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from hub.lora.core.examples import exact_match, numeric_match
from hub.vocabulary import Reward

WEIGHTS_OF_THE_PAPER: dict[Reward, float] = {
    "numeric_match": 2.0,
    "integer": 0.5,
    "strict_format": 0.5,
    "soft_format": 0.5,
    "tags": 0.5,
}

_LAST_ANSWER = re.compile(r"<answer>(?!.*<answer>)(.*?)</answer>", re.DOTALL)
_STRICT = re.compile(r"<reasoning>\n.*?\n</reasoning>\n<answer>\n.*?\n</answer>\n?", re.DOTALL)
_SOFT = re.compile(r"\s*<reasoning>.*?</reasoning>\s*<answer>.*?</answer>\s*", re.DOTALL)
_TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")


@dataclass(frozen=True)
class Answer:
    """A generated text, its number of tokens, the most tokens it may have (`room`), and the target."""

    text: str
    tokens: int
    room: int
    target: str


def answered(text: str) -> str:
    """The part of an answer that is judged."""
    match = _LAST_ANSWER.search(text)
    return match[1].strip() if match else text.strip()


def _tags(answer: Answer) -> float:
    """A quarter for each tag that occurs exactly once, minus a thousandth for each character after the last one."""
    once = sum(answer.text.count(tag) == 1 for tag in _TAGS) / len(_TAGS)
    _, closed, rest = answer.text.rpartition("</answer>")
    return max(0.0, once - (0.001 * len(rest.strip()) if closed else 0.0))


# Each from 0 to 1; (answer) -> reward.
FUNCTIONS: dict[Reward, Callable[[Answer], float]] = {
    "exact_match": lambda answer: float(exact_match(answered(answer.text), answer.target)),
    "numeric_match": lambda answer: float(numeric_match(answered(answer.text), answer.target)),
    "integer": lambda answer: float(re.fullmatch(r"-?\d+", answered(answer.text)) is not None),
    "strict_format": lambda answer: float(_STRICT.fullmatch(answer.text) is not None),
    "soft_format": lambda answer: float(_SOFT.fullmatch(answer.text) is not None),
    "tags": _tags,
    # Shorter is better, all else being equal; an answer of the maximum length gets nothing.
    "length": lambda answer: 1 - min(answer.tokens, answer.room) / answer.room,
}
