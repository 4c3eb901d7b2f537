"""Labels in the data and the random split."""

import json

import pytest

from hub.lora.core.examples import BadExample, Example
from hub.lora.par.systems import check_labelled, drawn, of_system, read_labels


def lines(*systems: object) -> str:
    rows = [{"input": "a", "target": "b"} | ({} if each == "none" else {"system": each}) for each in systems]
    return "\n".join(json.dumps(row) for row in rows) + "\n\n"


def test_labels_are_read_as_people_write_them() -> None:
    text = "\ufeff" + lines(1, "2", "System1", "system 2", "SYSTEM_1", None, "none")
    assert read_labels(text) == [1, 2, 1, 2, 1, None, None]


@pytest.mark.parametrize("wrong", [3, "fast", "", True, ["1"]])
def test_anything_else_is_refused_with_its_line(wrong: object) -> None:
    with pytest.raises(BadExample, match="Line 2: system is"):
        read_labels(lines(1, wrong))


def test_examples_without_a_label_are_counted() -> None:
    check_labelled([1, 2])
    with pytest.raises(BadExample, match="2 of 3"):
        check_labelled([1, None, None])


def test_the_random_split_halves_and_is_its_seeds() -> None:
    one = drawn(101, seed=1)
    assert (one.count(1), one.count(2)) == (50, 51)
    assert drawn(101, seed=1) == one != drawn(101, seed=2)


def test_examples_of_a_system_keep_their_order() -> None:
    examples = [Example(str(number), "x") for number in range(4)]
    assert [each.input for each in of_system(examples, [2, 1, None, 2], 2)] == ["0", "3"]
