"""The text index: normalized text, and the tokens that find short words."""

import re
import unicodedata
from itertools import pairwise

from sqlalchemy import ColumnElement

from hub.registry.models.adapters import AdapterFacts

_ASCII_WORD = re.compile(r"[a-z0-9]+")


def searchable(text: str) -> str:
    """Normalize text for the index and for queries: case folded, and full-width letters as plain ones (NFKC)."""
    return unicodedata.normalize("NFKC", text).lower()


def short_words(text: str) -> list[str]:
    """Tokens that find words of one or two characters, which a trigram index cannot find.

    They are the first one and two characters of ASCII words, and punctuation. Scripts other than ASCII may have no spaces, so each of
    their characters and each pair of neighbours is a token.
    """
    tokens = {start[:length] for start in _ASCII_WORD.findall(text) for length in (1, 2)}
    for piece in text.split():
        tokens.update(char for char in piece if not (char.isascii() and char.isalnum()))
        tokens.update(first + second for first, second in pairwise(piece) if not (first + second).isascii())
    return sorted(tokens)


def has_word(word: str) -> ColumnElement[bool]:
    """The condition that facts contain a normalized word: anywhere in the text, or, if it is short, among the `short_words`."""
    if len(word) > 2:
        return AdapterFacts.search.contains(word, autoescape=True)
    return AdapterFacts.short.contains(short_words(word))
