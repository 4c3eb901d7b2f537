"""Keys of rank_pattern and alpha_pattern: regular expressions from an upload, with a bound on the work of matching them.

PEFT's rule is `peft.utils.other.get_pattern_key` (PEFT 0.21), which the tests compare with.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from hub.formats.errors import FormatError, printable

_PIECE = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?:|\{\d*(?:,\d*)?\}|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Pattern:
    regex: re.Pattern[str]
    repeats: int  # how many parts of it may match a varying number of characters
    branches: int  # in how many ways its alternatives can be chosen

    def steps(self, length: int) -> int:
        """About the most ways in which Python's matcher can try this, behind PEFT's `(.*\\.)?`, on a name of this length."""
        return self.branches * math.comb(length + self.repeats + 1, self.repeats + 1)


@lru_cache(maxsize=4096)
def check_pattern(pattern: str) -> Pattern:
    """Compile a key of rank_pattern or alpha_pattern as PEFT's `get_pattern_key` does.

    The text comes from an upload, and Python's matcher needs exponential time on some expressions. Those whose work cannot
    be bounded are refused: a repeated group, a back-reference, a look-around. Raises FormatError with code bad_pattern.
    """
    repeats, branches = _count_choices(pattern)
    try:
        regex = re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, OverflowError, RecursionError) as error:
        fault = error.msg if isinstance(error, re.error) else error  # without a position, which counts PEFT's prefix
        raise _bad_pattern(pattern, f"is not a regular expression ({fault})") from error
    return Pattern(regex, repeats, branches)


def _count_choices(pattern: str) -> tuple[int, int]:
    """(repeats, branches) of the pattern, see `Pattern`."""
    repeats, branches, previous = 0, 1, ""
    alternatives = [1]  # one number for each open group
    for piece in _PIECE.findall(pattern):
        if piece in ("(", "(?:"):
            alternatives.append(1)
        elif piece == ")" and len(alternatives) > 1:
            branches *= alternatives.pop()
        elif piece == "|":
            alternatives[-1] += 1
        elif piece == "?":
            if previous == "(":
                raise _bad_pattern(pattern, "uses a look-around, a flag or a named group")
            branches *= 2
        elif piece in ("*", "+") or re.fullmatch(r"\{.+\}", piece):
            if previous == ")":
                raise _bad_pattern(pattern, "repeats a group")
            repeats += 1
        elif re.fullmatch(r"\\[1-9]", piece):
            raise _bad_pattern(pattern, "uses a back-reference")
        previous = piece
    return repeats, branches * alternatives[0]


def _bad_pattern(pattern: str, fault: str) -> FormatError:
    what = f"The key {printable(pattern)} of rank_pattern or alpha_pattern {fault}"
    return FormatError("bad_pattern", what, "name the modules plainly instead")


def first_match(patterns: Mapping[str, object], layer: str) -> str:
    """The first key that matches this layer's path, or the path itself."""
    return next((key for key in patterns if check_pattern(key).regex.match(layer)), layer)
