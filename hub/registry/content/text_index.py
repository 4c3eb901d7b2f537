"""The text that searches look in, and how a word is looked for in it."""

import re
import unicodedata
from itertools import pairwise

from sqlalchemy import ColumnElement

from hub.registry.models.adapters import AdapterFacts

_ASCII_WORD = re.compile(r"[a-z0-9]+")


def searchable(text: str) -> str:
    """As it is kept to be searched and as it is searched for: without case, and full-width letters as any other (NFKC)."""
    return unicodedata.normalize("NFKC", text).lower()


def short_words(text: str) -> list[str]:
    """What words of one or two characters are found by, which no trigram index can find: how words of ASCII letters and digits begin,
    and marks; of other scripts, which may do without spaces, each character and each two in a row."""
    found = {start[:length] for start in _ASCII_WORD.findall(text) for length in (1, 2)}
    for piece in text.split():
        found.update(char for char in piece if not (char.isascii() and char.isalnum()))
        found.update(first + second for first, second in pairwise(piece) if not (first + second).isascii())
    return sorted(found)


def has_word(word: str) -> ColumnElement[bool]:
    """The condition on facts for a word as `searchable` makes it: it occurs anywhere, or, if it is short, as `short_words` says."""
    if len(word) > 2:
        return AdapterFacts.search.contains(word, autoescape=True)
    return AdapterFacts.short.contains(short_words(word))
