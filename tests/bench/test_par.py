"""bench.par measures two ways to the same masks."""

from bench.par import by_dictionaries, drawn, llama, ours
from hub.lora.train.masks import Layout


def test_both_ways_come_to_the_same_stage() -> None:
    layout = Layout({"a": (8, 40), "b": (30, 8)})
    assert ours(layout, *drawn(layout)) == by_dictionaries(layout, *drawn(layout)) > 100


def test_the_layout_is_the_one_that_the_paper_trains() -> None:
    assert llama(32).size == 17_891_328
