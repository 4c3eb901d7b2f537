"""What people paste: every line is an example or a problem that names the line."""

import pytest

from hub.registry.datasets.examples import ExampleText
from hub.registry.datasets.parse_examples import MAX_PROBLEMS, held_back, parse


def pairs(text: str) -> list[tuple[str, str]]:
    found = parse(text)
    assert found.problems == []
    return [(example.input, example.target) for example in found.examples]


def problems(text: str) -> list[tuple[int, str]]:
    return [(problem.line, problem.message) for problem in parse(text).problems]


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ("a\tb\nc\td\n", "tab-separated"),
        ("a,b\nc,d", "comma-separated"),
        ('{"input": "a", "target": "b"}\n{"input": "c", "target": "d"}', "JSON lines"),
        ("\n  \na\tb\n\n\t\nc\td\n\n", "tab-separated"),
        ("\ufeffa\tb\r\nc\td\r\n", "tab-separated"),
        ("a,b\rc,d\r", "comma-separated"),
        ("Input\tTarget\na\tb\nc\td", "tab-separated"),
        ("id,completion,prompt\n1,b,a\n2,d,c", "comma-separated"),
        ("输入\t输出\na\tb\nc\td", "tab-separated"),
        ('{"prompt": "a", "completion": "b"}\n{"question": "c", "answer": "d"}', "JSON lines"),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n{"input": "c", "target": "d"}',
            "JSON lines",
        ),
    ],
)
def test_the_same_two_examples(text: str, format: str) -> None:
    assert parse(text).format == format
    assert pairs(text) == [("a", "b"), ("c", "d")]


def test_a_cell_in_quotes_may_hold_anything() -> None:
    text = 'one\t"two ""quoted"", with a\ttab\nand a line"\nthree\tfour'
    assert pairs(text) == [("one", 'two "quoted", with a\ttab\nand a line'), ("three", "four")]
    assert parse(text).lines == [1, 3], "where each begins"
    assert pairs('"a, b",c') == [("a, b", "c")]
    assert pairs('the 5" disc\tfive inches') == [('the 5" disc', "five inches")]


def test_text_of_any_script_stays_as_it_is() -> None:
    assert pairs("把“你好”译成英文\tHello\nمرحبا\tسلام") == [("把“你好”译成英文", "Hello"), ("مرحبا", "سلام")]
    # U+2028 ends a line for str.splitlines, and neither for JSON nor for a spreadsheet.
    assert pairs('{"input": "a\u2028b", "target": "c"}') == [("a\u2028b", "c")]
    assert pairs("a\u2028b\tc") == [("a\u2028b", "c")]


def test_a_missing_column_is_reported_with_its_line() -> None:
    found = parse("a\tb\nlonely\nc\td\n\tonly a target\ne\tf")
    assert [(example.input, example.target) for example in found.examples] == [("a", "b"), ("c", "d"), ("e", "f")]
    assert [problem.line for problem in found.problems] == [2, 4]
    assert "one column only" in found.problems[0].message
    assert "a tab between" in found.problems[0].message


def test_a_comma_that_parts_a_sentence_is_reported() -> None:
    assert problems("Well, what is it,an answer\na,b") == [
        (1, "There are 3 columns where two are needed; put a cell that holds a comma in quotes.")
    ]


def test_a_quotation_mark_that_is_not_closed_spoils_one_line() -> None:
    found = parse('a\tb\n"never closed\tx\nc\td')
    assert [example.input for example in found.examples] == ["a", "c"]
    assert [problem.line for problem in found.problems] == [2]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{oops", "not JSON"),
        ('["a", "b"]', "not an object"),
        ('{"input": "a"}', "The target is missing"),
        ('{"input": "", "target": "b"}', "The input is missing"),
        ('{"input": " ", "target": "b"}', "The input is empty"),
        ('{"input": "a", "target": 42}', "put it in quotes"),
        ('{"input": "a", "target": "\\ud800"}', "half a character"),
        ('{"input": "a", "target": "b", "choices": ["c"]}', "not one of the choices"),
        ('{"input": "a", "target": "b", "choices": "bc"}', "choices"),
        ('{"input": "a", "target": "b", "system": 3}', "system"),
        ('{"input": "a\\u0000", "target": "b"}', "NUL"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "assistant"),
    ],
)
def test_a_line_of_json_that_is_no_example(line: str, said: str) -> None:
    ((number, message),) = problems('{"input": "a", "target": "b"}\n' + line)
    assert number == 2
    assert said in message


def test_choices_and_systems_come_along() -> None:
    wanted = ExampleText(input="a", target="b", choices=["b", "c"], system=2)
    assert parse("input\ttarget\tchoices\tsystem\na\tb\tb | c\t2").examples == [wanted]
    assert parse('{"input": "a", "target": "b", "choices": ["b", "c"], "system": 2}').examples == [wanted]
    assert problems("input,target,system\na,b,three")[0][0] == 2


def test_nothing_is_nothing() -> None:
    assert parse("").examples == parse(" \n\t\n").examples == []
    assert problems("") == []


def test_problems_are_reported_up_to_a_number() -> None:
    found = parse("only\n" * 1_000)
    assert len(found.problems) == MAX_PROBLEMS + 1
    assert len(parse('"x\ty\n' * 2_000).problems) <= MAX_PROBLEMS + 1


def test_a_share_is_held_back_at_random_and_again_the_same() -> None:
    examples = [ExampleText(input=str(index), target="x") for index in range(10)]
    kept, held = held_back(examples, 0.3, seed=1)
    assert len(held) == 3
    assert sorted([*kept, *held], key=lambda example: int(example.input)) == examples
    assert held_back(examples, 0.3, seed=1) == (kept, held)
    assert held_back(examples, 0.3, seed=2) != (kept, held)
    assert [len(part) for part in held_back(examples[:2], 0.01, seed=0)] == [1, 1]
    assert held_back(examples[:1], 0.5, seed=0) == (examples[:1], [])
