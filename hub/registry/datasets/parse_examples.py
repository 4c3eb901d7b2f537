"""Parse pasted examples: rows copied out of a spreadsheet, CSV, or JSON lines -> examples, and a problem for each bad line."""

import csv
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from hub.registry.datasets.examples import ExampleText

MAX_PROBLEMS = 100  # reported at once; further ones repeat the same mistake

# Common names of the columns and fields, in lower case.
INPUTS = ("input", "prompt", "question", "instruction", "source", "输入", "问题")
TARGETS = ("target", "output", "answer", "response", "completion", "label", "输出", "答案")

Format = Literal["JSON lines", "tab-separated", "comma-separated"]


@dataclass(frozen=True)
class Problem:
    line: int
    message: str


@dataclass(frozen=True)
class Pasted:
    format: Format
    examples: list[ExampleText]
    lines: list[int]  # where each example begins
    problems: list[Problem]


class _Unusable(Exception):
    """The line is not an example; the message says why."""


def parse(text: str) -> Pasted:
    """Parse each line into an example or a problem. Blank lines are skipped; nothing raises."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    first = next((line for line in text.split("\n") if line.strip()), "")
    if first.lstrip().startswith("{"):
        return _gathered("JSON lines", _objects(text))
    if "\t" in first:
        return _gathered("tab-separated", _cells(text, "\t"))
    return _gathered("comma-separated", _cells(text, ","))


def held_back(examples: Sequence[ExampleText], share: float, seed: int) -> tuple[list[ExampleText], list[ExampleText]]:
    """Split into training examples and a random held-out share, each in its order. Neither is empty if there are two or more."""
    count = min(max(round(share * len(examples)), 1), len(examples) - 1)
    drawn = set(random.Random(seed).sample(range(len(examples)), max(count, 0)))  # noqa: S311 - a reproducible draw
    train = [example for index, example in enumerate(examples) if index not in drawn]
    return train, [example for index, example in enumerate(examples) if index in drawn]


def _gathered(format: Format, rows: Iterator[tuple[int, Mapping[str, Any] | _Unusable]]) -> Pasted:
    result = Pasted(format, [], [], [])
    for line, values in rows:
        try:
            if isinstance(values, _Unusable):
                raise values
            result.examples.append(_example(values))
            result.lines.append(line)
        except _Unusable as error:
            result.problems.append(Problem(line, str(error)))
            if len(result.problems) == MAX_PROBLEMS:
                result.problems.append(
                    Problem(line, "There are too many problems; the lines after this one were not read.")
                )
                break
    return result


def _example(values: Mapping[str, Any]) -> ExampleText:
    for name in ("input", "target"):
        value = values.get(name)
        if value is None or value == "":
            raise _Unusable(f"The {name} is missing.")
        if not isinstance(value, str):
            raise _Unusable(f"The {name} is {json.dumps(value)[:40]}, which is not text; put it in quotes.")
        if not value.strip():
            raise _Unusable(f"The {name} is empty.")
        if any(0xD800 <= ord(char) <= 0xDFFF for char in value):
            raise _Unusable(f"The {name} holds half a character (a lone surrogate); correct the escape.")
    if values.get("choices") and values["target"] not in values["choices"]:
        raise _Unusable(f"The target {values['target'][:40]!r} is not one of the choices.")
    try:
        return ExampleText.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _Unusable(f"{where}: {first['msg']}.") from error


# --- JSON lines -------------------------------------------------------------------------------------------------------


def _objects(text: str) -> Iterator[tuple[int, Mapping[str, Any] | _Unusable]]:
    # Not splitlines(), which also ends lines at characters that JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _object(line)


def _object(line: str) -> Mapping[str, Any] | _Unusable:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return _Unusable(f"This is not JSON ({error}); each line must be one object.")
    if not isinstance(row, dict):
        return _Unusable('This is JSON, but not an object such as {"input": "...", "target": "..."}.')
    if "messages" in row:
        return _of_chat(row["messages"])
    named = {"input": _first(row, INPUTS), "target": _first(row, TARGETS)}
    return named | {name: row[name] for name in ("choices", "system") if row.get(name) is not None}


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if name in row), None)


def _of_chat(messages: Any) -> Mapping[str, Any] | _Unusable:
    turns = messages if isinstance(messages, list) and all(isinstance(turn, dict) for turn in messages) else []
    if [turn.get("role") for turn in turns] != ["user", "assistant"]:
        return _Unusable("messages must be one turn of the user and the assistant's answer, and nothing else.")
    return {"input": turns[0].get("content"), "target": turns[1].get("content")}


# --- tables -----------------------------------------------------------------------------------------------------------


def _cells(text: str, between: str) -> Iterator[tuple[int, Mapping[str, Any] | _Unusable]]:
    columns: Mapping[str, int] | None = None
    for number, row in _rows(text, between):
        if isinstance(row, _Unusable):
            yield number, row
            continue
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if columns is None:
            header = _columns(cells)
            columns = header or {"input": 0, "target": 1}
            if header:
                continue
        yield number, _named(cells, columns, between)


def _rows(text: str, between: str) -> Iterator[tuple[int, list[str] | _Unusable]]:
    """Each row with the line it begins on. A quoted cell may hold line breaks; after an unclosed one, parsing resumes on the next line."""
    lines = text.split("\n")
    start, faults = 0, 0
    while start < len(lines):
        reader = csv.reader((line + "\n" for line in lines[start:]), delimiter=between, strict=True)
        begin = start
        try:
            for row in reader:
                yield begin + 1, row
                begin = start + reader.line_num
            return
        except csv.Error:
            yield (
                begin + 1,
                _Unusable(
                    "A cell opens with a quotation mark that does not close it; close it, or double those inside."
                ),
            )
            start, faults = begin + 1, faults + 1
            if faults == MAX_PROBLEMS:  # each is looked for up to the end of the text
                return


def _columns(cells: Sequence[str]) -> Mapping[str, int]:
    """Where the columns are, if this row names them."""
    names = [cell.lower() for cell in cells]
    indices = {
        "input": next((names.index(name) for name in INPUTS if name in names), None),
        "target": next((names.index(name) for name in TARGETS if name in names), None),
        "choices": names.index("choices") if "choices" in names else None,
        "system": names.index("system") if "system" in names else None,
    }
    if indices["input"] is None or indices["target"] is None:
        return {}
    return {name: place for name, place in indices.items() if place is not None}


def _named(cells: Sequence[str], columns: Mapping[str, int], between: str) -> Mapping[str, Any] | _Unusable:
    what = "a tab" if between == "\t" else "a comma"
    if len([cell for cell in cells if cell]) == 1 and len(columns) == 2:
        return _Unusable(f"There is one column only; an input and a target are needed, with {what} between them.")
    if columns == {"input": 0, "target": 1} and any(cells[2:]):
        return _Unusable(
            f"There are {len(cells)} columns where two are needed; put a cell that holds {what} in quotes."
        )
    values: dict[str, Any] = {
        name: cells[place] for name, place in columns.items() if place < len(cells) and cells[place]
    }
    if "choices" in values:
        values["choices"] = [choice.strip() for choice in values["choices"].split("|")]
    if "system" in values:
        values["system"] = {"1": 1, "2": 2}.get(values["system"], values["system"])
    return values
