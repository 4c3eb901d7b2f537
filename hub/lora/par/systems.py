"""Split examples into fast thinking (System 1) and slow thinking (System 2): by labels in the data, or at random as a control."""

import json
import random
import re
from collections.abc import Sequence

from hub.lora.core.examples import BadExample, Example
from hub.vocabulary import System

_LABEL = re.compile(r"(?:system)?[ _-]*([12])", re.IGNORECASE)


def read_labels(text: str) -> list[System | None]:
    """The field `system` of each example of a JSONL file that `parse_jsonl` has read: 1, 2 or None.

    "1", "System1" and "system 2" are accepted as well. Raises BadExample for anything else.
    """
    labels: list[System | None] = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if not line.strip():
            continue
        value = json.loads(line).get("system")
        match = _LABEL.fullmatch(str(value).strip())
        if value is not None and match is None:
            raise BadExample(f"Line {number}: system is {value!r}; it must be 1 or 2, or be left out.")
        labels.append(None if match is None else 1 if match[1] == "1" else 2)
    return labels


def check_labelled(labels: Sequence[System | None]) -> None:
    missing = sum(label is None for label in labels)
    if missing:
        raise BadExample(
            f"{missing} of {len(labels)} examples have no `system`. Label all of them, or let teachers vote or the split be random."
        )


def drawn(count: int, seed: int) -> list[System]:
    """The control: a random half of the examples is System 1."""
    order = list(range(count))
    random.Random(seed).shuffle(order)  # noqa: S311 - a reproducible draw
    first = set(order[: count // 2])
    return [1 if index in first else 2 for index in range(count)]


def of_system(examples: Sequence[Example], labels: Sequence[System | None], system: System) -> list[Example]:
    return [example for example, label in zip(examples, labels, strict=True) if label == system]
