"""The methods on a card: the numbers that the processor gives, the same bytes however often and after a stop, and the base as it was."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hub.lora.compose.composition import Composition
from hub.lora.compose.forms import Mixture
from hub.lora.compose.gradient import GradientSearch, compose_by_gradient
from hub.lora.compose.population import mean_losses
from hub.lora.compose.search import Search, compose
from hub.lora.core.adapter import Adapter, applied, read, write
from hub.lora.core.bases import Base
from hub.lora.core.evaluate import evaluate
from hub.lora.core.examples import Example, generate
from hub.lora.core.losses import encode_batches, mean_loss
from hub.lora.par.partition import Partition
from hub.lora.reduce.gains import matrices
from hub.lora.reduce.scan import VARIANTS, Scan, scan
from hub.lora.reduce.shrink import Shrink, shrink
from hub.vocabulary import Form, VariantName
from tests.lora.conftest import MakeAdapter
from tests.lora.habits import HELD_OUT, fast, habitual_base, one_thread, slow
from tests.lora.par import masked_runs, reinforcement_runs
from tests.lora.par.arms import arm, right, settings
from tests.lora.runs import EXAMPLES, Cancelled, CheckpointFolder, digest, ignore_progress, loss_of, run, unchanged

pytestmark = [
    pytest.mark.gpu,
    # PEFT 0.21 asks a transformers 5.23 model for a property by its deprecated name.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


def on_card(base: Base) -> Base:
    return replace(base, model=copy.deepcopy(base.model).to("cuda"))


@pytest.fixture(scope="module")
def card(tiny_base: Base) -> Base:
    return on_card(tiny_base)


@pytest.fixture(scope="module")
def habitual() -> Iterator[Base]:
    with one_thread():
        yield habitual_base()


@pytest.fixture(scope="module")
def twins(make_adapter: MakeAdapter) -> list[Adapter]:
    return [read(make_adapter(f"twin{seed}", seed=seed)) for seed in (11, 12, 13)]


@pytest.mark.parametrize("form", ["sum", "product"])
def test_a_composition_has_the_losses_of_the_processor(
    tiny_base: Base, card: Base, twins: list[Adapter], form: Form
) -> None:
    points = [[0.5, -0.3, 0.2], [0.0, 0.0, 0.0], [-1.1, 0.4, 0.9], [0.0, 1.0, 0.0]]
    whole, mixture = encode_batches(tiny_base, EXAMPLES, "plain"), Mixture(twins, form, card.device)
    found = mean_losses(card, mixture, points, encode_batches(card, EXAMPLES, "plain"))
    expected = mean_losses(tiny_base, Mixture(twins, form, tiny_base.device), points, whole)
    assert found == pytest.approx(expected, rel=1e-4)
    for point, loss in zip(points, found, strict=True):
        with applied(card.model, Adapter("composition", {}, mixture.pairs(point))):
            assert mean_loss(card, whole) == pytest.approx(loss, rel=1e-4)


def test_searches_find_what_they_find_on_the_processor(tiny_base: Base, card: Base, twins: list[Adapter]) -> None:
    search = Search(form="sum", template="plain", budget=12)
    gradient = GradientSearch(form="sum", template="plain", budget=12)
    searches: list[Callable[[Base], Composition]] = [
        lambda base: compose(base, twins, EXAMPLES, search, on_progress=ignore_progress),
        lambda base: compose_by_gradient(base, twins, EXAMPLES, gradient, on_progress=ignore_progress),
    ]
    for searched in searches:
        there, here = searched(card), searched(tiny_base)
        assert there.loss == pytest.approx(here.loss, rel=1e-3)
        assert loss_of(tiny_base, there.adapter) == pytest.approx(there.loss, rel=1e-3)


@pytest.mark.parametrize("shape", [{}, {"init": "pissa"}, {"dora": True}], ids=["plain", "pissa", "dora"])
def test_training_goes_as_on_the_processor_and_leaves_the_base_as_it_was(
    tiny_base: Base, card: Base, tmp_path: Path, shape: dict[str, Any]
) -> None:
    here = run(tiny_base, **shape)
    with unchanged(card):
        there = run(card, **shape)
    assert there.losses == pytest.approx(here.losses, rel=2e-3)
    write(there.adapter, tmp_path / "there", dtype=torch.float32)
    assert loss_of(tiny_base, read(tmp_path / "there")) == pytest.approx(loss_of(card, there.adapter), rel=1e-4)


@pytest.mark.parametrize("shape", [{"dropout": 0.3, "accumulation": 2}, {"init": "pissa"}], ids=["dropout", "pissa"])
def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_bytes(
    card: Base, tmp_path: Path, shape: dict[str, Any]
) -> None:
    given = {"steps": 12, "validation": EXAMPLES[3:], "validate_every": 3, "ratio": 4.0, **shape}
    whole, again = (run(card, EXAMPLES[:3], **given) for _ in range(2))
    assert digest(again.adapter, tmp_path / "again") == digest(whole.adapter, tmp_path / "whole")
    with unchanged(card), pytest.raises(Cancelled):
        run(card, EXAMPLES[:3], checkpoints=CheckpointFolder(tmp_path, killed_after=5), **given)
    rest = run(card, EXAMPLES[:3], checkpoints=CheckpointFolder(tmp_path), **given)
    assert digest(rest.adapter, tmp_path / "rest") == digest(whole.adapter, tmp_path / "whole")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_unequal_examples_give_the_same_bytes_each_time(
    tiny_base: Base, tmp_path: Path, dtype: torch.dtype
) -> None:
    """Where several blocks of threads add to one number, their order decides its last bits."""
    base = on_card(tiny_base)
    base.model.to(dtype)
    many = [Example(f"say {'word ' * count}", "done") for count in range(1, 129)]
    given = {"steps": 8, "batch_size": 16, "target_modules": "all-linear"}
    digests = {digest(run(base, many, **given).adapter, tmp_path / str(turn)) for turn in range(4)}
    assert len(digests) == 1


def test_a_masked_run_that_was_stopped_goes_on_and_ends_with_the_same_bits(card: Base, tmp_path: Path) -> None:
    masked_runs.check_frozen_elements_keep_their_bits(card)
    masked_runs.check_a_stopped_run_ends_with_the_same_bits(card, tmp_path)


def test_an_adapter_straight_from_training_gets_smaller(card: Base) -> None:
    trained = run(card, steps=40, rank=6, target_modules=["q_proj", "up_proj"]).adapter
    found = shrink(card, trained, EXAMPLES, Shrink(template="plain", loss_budget=0.1), on_progress=ignore_progress)
    assert loss_of(card, found.adapter) == pytest.approx(found.loss, rel=1e-4)
    assert found.loss <= loss_of(card, trained) + 0.1 + 1e-4


def test_the_likeliest_answers_and_their_scores_are_those_of_the_processor(tiny_base: Base, card: Base) -> None:
    inputs = [example.input for example in EXAMPLES]
    texts = [generate(base, inputs, "plain", max_new_tokens=8, batch_size=2) for base in (card, tiny_base)]
    assert texts[0] == texts[1]
    losses = [
        evaluate(base, None, EXAMPLES, template="plain", metrics=("target_loss",), on_progress=ignore_progress).values
        for base in (card, tiny_base)
    ]
    assert losses[0]["target_loss"] == pytest.approx(losses[1]["target_loss"], rel=1e-4)


@pytest.mark.parametrize("variant", ["cl-100g-100e", "subspace-100g-100e"])
def test_a_scan_measures_what_it_measures_on_the_processor(tiny_base: Base, card: Base, variant: VariantName) -> None:
    before = {path: layer.weight.clone() for path, layer in matrices(card).items()}
    there, here = (
        scan(
            base,
            EXAMPLES,
            Scan(template="plain", variant=VARIANTS[variant], top=3, budget=3),
            on_progress=ignore_progress,
        )
        for base in (card, tiny_base)
    )
    assert there.before == pytest.approx(here.before, rel=1e-4)
    assert there.matrices == pytest.approx(here.matrices, rel=2e-2, abs=1e-4)
    assert [trial.cuts for trial in there.trials[:3]] == [trial.cuts for trial in here.trials[:3]]
    assert all(torch.equal(layer.weight, before[path]) for path, layer in matrices(card).items())


@pytest.mark.parametrize("kl", [0.0, 0.04])
def test_reinforcement_moves_the_mask_alone(card: Base, monkeypatch: pytest.MonkeyPatch, kl: float) -> None:
    reinforcement_runs.reward_vowels(monkeypatch)
    reinforcement_runs.check_only_the_mask_moves(card, kl)


def test_reinforcement_that_was_stopped_goes_on_with_the_same_bytes(
    card: Base, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reinforcement_runs.reward_vowels(monkeypatch)
    reinforcement_runs.check_the_reference_is_the_policy_on_entry(card, tmp_path)


def test_the_partition_is_the_processors_and_both_stages_gain(habitual: Base) -> None:
    there = on_card(habitual)
    here = arm(habitual, given=settings(steps=2)).partition
    with unchanged(there):
        done = arm(there, given=settings())
    assert here is not None
    assert done.partition is not None
    assert alike(here, done.partition) > 0.99
    sft, grpo = (right(there, slow(HELD_OUT), stage.adapter) for stage in done.stages)
    assert grpo >= sft + 0.1
    assert right(there, fast(HELD_OUT), done.adapter) >= 0.95
    assert right(habitual, slow(HELD_OUT), done.adapter) == pytest.approx(grpo, abs=0.01), "stock, on the processor"


def alike(one: Partition, other: Partition) -> float:
    """The smallest Jaccard index of the four sets of both."""
    both = [(getattr(one, name).chosen(), getattr(other, name).chosen()) for name in ("system1", "system2", "stage1")]
    return min(float((a & b).sum() / (a | b).sum()) for a, b in both)
