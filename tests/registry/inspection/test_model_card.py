"""Front matter as people and tools write it, and as someone would who means harm."""

import json
import time
from typing import Any

import pytest

from hub.registry.inspection.model_card import MAX_CARD_BYTES, CardError, parse_card


def card(front: str, body: str = "# Title\n") -> bytes:
    return f"---\n{front}\n---\n{body}".encode()


def test_front_matter_and_text() -> None:
    found = parse_card(card("license: mit\ntags:\n- a\n- b\nbase_model: org/x\nn: 3\nok: true", "# T\n\nText.\n"))
    assert found.front == {"license": "mit", "tags": ["a", "b"], "base_model": "org/x", "n": 3, "ok": True}
    assert found.text == "# T\n\nText.\n"
    assert found.values("tags") == ["a", "b"]
    assert found.values("license") == ["mit"]
    assert found.values("n") == found.values("absent") == []


@pytest.mark.parametrize("data", [b"", b"# Only text\n", b"---", b"--- \nx: 1\n---\n"])
def test_a_card_without_front_matter(data: bytes) -> None:
    assert parse_card(data).front == {}


@pytest.mark.parametrize(
    "data", [b"---\n---\ntext", b"---\n# nothing\n---\ntext", b"---\r\nlicense: mit\r\n---\r\ntext"]
)
def test_empty_front_matter_and_lines_of_windows(data: bytes) -> None:
    found = parse_card(data)
    assert found.text == "text"
    assert found.front in ({}, {"license": "mit"})


@pytest.mark.parametrize(
    ("front", "said"),
    [
        ("a: [", "not YAML"),
        ("a: b: c", "not YAML"),
        ("- a list", "not a mapping"),
        ("just text", "not a mapping"),
        ("a: &x [1]\nb: *x", "alias"),
        ("a: !!python/object/apply:os.system ['true']", "not YAML"),
        ("a: " + "[" * 5_000, "not YAML"),
        ("a: " + "[" * 30 + "]" * 30, "too deeply"),
        ("a: " + "x" * 70_000, "64 KiB"),
    ],
)
def test_front_matter_that_is_not_taken(front: str, said: str) -> None:
    with pytest.raises(CardError, match=said):
        parse_card(card(front))


def test_front_matter_that_never_ends() -> None:
    with pytest.raises(CardError, match="closing ---"):
        parse_card(b"---\nlicense: mit\n")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024-01-01", "2024-01-01"),
        (".nan", "nan"),
        (".inf", "inf"),
        ("1.5", 1.5),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        (r'"a\0b"', "a\ufffdb"),
        (r'"\ud800"', "\ufffd"),
        ("!!set {a}", ["a"]),
        ("!!binary aGk=", "b'hi'"),
        ("null", None),
        ("{1: 2}", {"1": 2}),
    ],
)
def test_values_become_what_json_and_a_database_can_hold(text: str, value: Any) -> None:
    front = parse_card(card(f"x: {text}")).front
    assert front == {"x": value}
    assert json.loads(json.dumps(front, allow_nan=False)) == front


@pytest.mark.parametrize(
    ("body", "description"),
    [
        ("# Title\n\nIt answers\nquestions.\n\nMore.", "It answers questions."),
        ("<!-- made by\n\na tool -->\n# Title\n\n- a list\n\n| a | table |\n\nThe text.", "The text."),
        ("# Title\n\n[More Information Needed]\n\nMore information needed for recommendations.\n", ""),
        ("", ""),
        ("<!-- never closed\n\nText.", ""),
        ("x" * 400, "x" * 299 + "…"),
    ],
)
def test_the_description_is_the_first_prose(body: str, description: str) -> None:
    assert parse_card(card("a: 1", body)).description == description


def test_large_cards_are_read_in_part_and_quickly() -> None:
    start = time.perf_counter()
    found = parse_card(b"<!--" * 10**6)
    assert len(found.text) == MAX_CARD_BYTES
    assert found.description == ""
    assert time.perf_counter() - start < 2
