"""hub.lora.reduce.scan: trials that compute only what changes, harm that is found and cut, the variants,
edits undone however a scan ends."""

import math

import pytest
import torch

from hub.lora.core.bases import Base
from hub.lora.core.examples import Batch, Example
from hub.lora.core.losses import encode_batches, mean_loss
from hub.lora.reduce import scan as module
from hub.lora.reduce.gains import Cut, NothingToReduce, cut_weight, edited, gains, gradients, matrices
from hub.lora.reduce.objective import batches_of
from hub.lora.reduce.prefixes import Prefixes
from hub.lora.reduce.scan import GRID, VARIANTS, Scan, Variant, _promising, grid, scan
from hub.vocabulary import VariantName
from tests.lora.reduce.edits import EXAMPLES, PATH, assert_untouched, bits
from tests.lora.runs import ignore_progress
from tests.tiny_models import likely_letters


@pytest.mark.parametrize("path", ["model.layers.0.self_attn.q_proj", PATH])
def test_what_comes_before_the_cut_is_not_computed_again(tiny_base: Base, path: str) -> None:
    layers, batches = matrices(tiny_base), encode_batches(tiny_base, EXAMPLES, "plain")
    before, prefixes = bits(tiny_base), Prefixes(tiny_base, batches)
    with edited(layers, [Cut(path, 0.3, 1)]):
        assert prefixes.mean_loss_from(path) == pytest.approx(mean_loss(tiny_base, batches), rel=1e-6)
    ran: list[str] = []
    handle = tiny_base.model.model.layers[0].mlp.register_forward_hook(lambda *_: ran.append("first block"))
    prefixes.mean_loss_from(PATH)
    handle.remove()
    assert ran == []
    assert_untouched(tiny_base, before)


@pytest.mark.parametrize("whole", [False, True])
def test_a_planted_direction_is_found_and_cut(tiny_base: Base, whole: bool) -> None:
    """A matrix of half the rank, and one more direction that is weaker than its others and along which the loss rises."""
    spoilt = [Example(text, likely_letters(tiny_base, text, 4)) for text in ("a?", "bb?", "ccc?", "d?", "ee?", "f?")]
    before = bits(tiny_base)
    batches, layers = encode_batches(tiny_base, spoilt, "plain"), matrices(tiny_base)
    layer = layers[PATH]
    low = cut_weight(layer.weight.detach(), Cut(PATH, 0.5, 1))
    try:
        with torch.no_grad():
            layer.weight.copy_(low)
        clean = mean_loss(tiny_base, batches)
        slope = gradients(tiny_base, batches, {PATH: layer})[PATH]
        left, sigma, right = torch.linalg.svd(low)
        # Outside of what is there, so that the singular values of the sum are those of the parts.
        u, _, vt = torch.linalg.svd(left[:, 16:] @ left[:, 16:].T @ slope @ right[16:].T @ right[16:])
        with torch.no_grad():
            layer.weight.add_(0.9 * sigma[15] * torch.outer(u[:, 0], vt[0]))
        harmed = mean_loss(tiny_base, batches)
        assert harmed > clean
        steps: list[tuple[int, int]] = []
        found = scan(
            tiny_base,
            spoilt,
            Scan(
                template="plain",
                variant=Variant((0.5,), (1,), None if whole else 100, 100, joined=not whole),
                top=14,
                budget=14,
            ),
            on_progress=lambda step, total, _: steps.append((step, total)),
        )
        assert found.before == pytest.approx(harmed, rel=1e-5)
        assert gains(layer.weight, gradients(tiny_base, batches, {PATH: layer})[PATH], shares=[0.5])[0.5, 1] > 0, (
            "it is predicted"
        )
        assert found.loss <= clean + 1e-5, "that one direction was cut, or something better"
        scored, most = (0, 4) if whole else (14, 14 + 28)
        assert [step for step, _ in steps] == list(range(1, scored + len(found.trials) + 1))
        assert all(step <= total == most for step, total in steps)
        for trial in found.trials:
            with edited(layers, trial.cuts):
                assert mean_loss(tiny_base, batches) == pytest.approx(trial.loss, rel=1e-5), "whatever was tried before"
        with edited(layers, found.cuts):
            assert mean_loss(tiny_base, batches) == pytest.approx(found.loss, rel=1e-5), (
                "the loss is of these very cuts"
            )
        assert len(found.matrices) == scored
        assert all((trial.predicted is None) == whole for trial in found.trials)
        assert list(found.matrices) == list(layers)[:scored]
    finally:
        with torch.no_grad():
            layer.weight.copy_(before[f"{PATH}.weight"])
    assert_untouched(tiny_base, before)


def test_a_scan_that_is_stopped_leaves_the_base_as_it_was(tiny_base: Base) -> None:
    class Stopped(Exception):
        pass

    def stop(step: int, _total: int, _values: dict[str, float]) -> None:
        if step == 3:
            raise Stopped

    before = bits(tiny_base)
    with pytest.raises(Stopped):
        scan(tiny_base, EXAMPLES, Scan(template="plain"), on_progress=stop)
    assert_untouched(tiny_base, before)


def test_lasers_grid_is_the_first_and_last_matrix_of_every_mlp_by_every_share(tiny_base: Base) -> None:
    cells = grid(matrices(tiny_base), VARIANTS["laser"])
    assert {cut.path.rpartition(".")[2] for cut in cells} == {"gate_proj", "down_proj"}
    assert [cut.share for cut in cells] == [*GRID] * 4
    assert {cut.blocks for cut in cells} == {1}
    attention = {path: layer for path, layer in matrices(tiny_base).items() if "self_attn" in path}
    with pytest.raises(NothingToReduce, match="choose another variant"):
        grid(attention, VARIANTS["laser"])


@pytest.mark.parametrize(("name", "graded", "tried"), [("100g-std", 2, 3), ("100g-100e", 2, 2), ("cl-100g-100e", 2, 2)])
def test_a_variant_says_how_many_examples_give_the_gradient_and_measure_a_cut(
    tiny_base: Base, name: VariantName, graded: int, tried: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = VARIANTS[name]
    variant = Variant(named.shares, named.blocks, 2, 2 if named.tried else None)
    asked: list[int] = []

    def counting(base: Base, examples: list[Example], template: str, *rows: int) -> list[Batch]:
        asked.append(len(examples))
        return batches_of(base, examples, template, *rows)

    monkeypatch.setattr(module, "batches_of", counting)
    found = scan(tiny_base, EXAMPLES, Scan(template="plain", variant=variant, budget=2), on_progress=ignore_progress)
    assert asked == [graded, tried]
    blocks = {cut.blocks for trial in found.trials for cut in trial.cuts}
    assert blocks == {1} or name.startswith("cl")


def test_trials_go_to_different_matrices_first_and_to_nothing_that_promises_more_than_there_is() -> None:
    def cells(path: str, *gains: float) -> dict[Cut, float]:
        return {Cut(path, share, 1): gain for share, gain in zip((0.9, 0.8, 0.6), gains, strict=True)}

    tables = {"a": cells("a", 0.1, 3.0, 0.9), "b": cells("b", 0.5, 0.2, -0.1), "c": cells("c", 5.0, 6.0, 7.0)}
    chosen = [(cut.path, gain) for cut, gain in _promising(tables, 2, 4, 1.0)]
    assert chosen == [("a", 0.9), ("b", 0.5), ("a", 0.1), ("b", 0.2)]
    assert [cut.path for cut, _ in _promising(tables, 3, 3, math.inf)] == ["c", "a", "b"]
