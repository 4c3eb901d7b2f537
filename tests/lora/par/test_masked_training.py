"""Training under a mask: only its elements move, whatever stops the run, and its optimiser's memory falls with the mask."""

from dataclasses import replace
from pathlib import Path

import pytest

from hub.lora.core.bases import Base
from hub.lora.train.trainable_layers import NothingToTrain, trainable_layers
from tests.lora.par.masked_runs import (
    RECIPE,
    check_a_stopped_run_ends_with_the_same_bits,
    check_frozen_elements_keep_their_bits,
    fit,
    mask_of,
)


def test_what_is_frozen_keeps_its_bits_and_the_memory_falls_with_the_share(tiny_base: Base) -> None:
    check_frozen_elements_keep_their_bits(tiny_base)


def test_a_masked_run_that_was_stopped_goes_on_and_ends_with_the_same_bits(tiny_base: Base, tmp_path: Path) -> None:
    check_a_stopped_run_ends_with_the_same_bits(tiny_base, tmp_path)


def test_a_mask_that_lets_nothing_move_is_refused(tiny_base: Base) -> None:
    plain = replace(RECIPE, init="default").shape
    with (
        trainable_layers(tiny_base, plain, None, 0) as layers,
        pytest.raises(NothingToTrain, match="lets nothing move"),
    ):
        fit(layers, mask_of(layers, 0.0))
