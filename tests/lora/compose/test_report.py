"""hub.lora.compose.report: its arithmetic by brute force on scores made by hand, and a whole report on the tiny base."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from hub.formats.report import Estimate, Report
from hub.intervals import paired_bootstrap, share_interval
from hub.lora.compose.composition import Composition
from hub.lora.compose.controls import Control, ControlSettings, full, losses_of, quick
from hub.lora.compose.forms import mix
from hub.lora.compose.report import composition_report, measure_controls
from hub.lora.compose.search import Search, compose
from hub.lora.core.adapter import Adapter, applied, read
from hub.lora.core.bases import Base
from hub.lora.core.evaluate import Scores
from hub.lora.core.examples import Example
from hub.lora.core.losses import encode_batches, mean_loss
from hub.lora.core.report import HeldOutUnusable, check_held_out
from hub.lora.train.loop import Recipe, train
from hub.vocabulary import ENOUGH_EXAMPLES, ComposeArm
from tests.lora.conftest import MakeAdapter
from tests.lora.runs import ignore_progress
from tests.tiny_models import likely_letters

ARMS: tuple[ComposeArm, ...] = ("base", "best_single", "average", "fresh_lora", "composition")


def scored(exact: Sequence[float], losses: Sequence[float]) -> Scores:
    return Scores({"exact_match": list(exact), "target_loss": list(losses)}, [])


def judged(exact: Mapping[Any, Sequence[float]], losses: Mapping[Any, Sequence[float]] | None = None) -> Report:
    given = losses or {name: [1.0] * len(exact[name]) for name in ARMS}
    scores = {name: scored(exact[name], given[name]) for name in ARMS}
    return composition_report(scores, {name: {"arm": name} for name in ARMS}, examples=5, seed=0)


def right(share: float, count: int = ENOUGH_EXAMPLES) -> list[float]:
    """The first ones right, so that arms differ in as few examples as their shares allow."""
    return [1.0] * round(share * count) + [0.0] * (count - round(share * count))


WEAK: dict[ComposeArm, list[float]] = {
    "base": right(0.0),
    "best_single": right(0.3),
    "average": right(0.1),
    "fresh_lora": right(0.5),
}


# --- the arithmetic ---------------------------------------------------------------------------------------------------


def test_every_figure_is_what_its_name_says() -> None:
    generator = random.Random(1)
    exact: dict[str, list[float]] = {name: [float(generator.random() < 0.4) for _ in range(130)] for name in ARMS}
    losses: dict[str, list[float]] = {name: [generator.gauss(2, 1) for _ in range(130)] for name in ARMS}
    result = judged(exact, losses)
    assert (result.examples, result.held_out) == (5, 130)
    assert [arm.name for arm in result.arms] == list(ARMS)
    for arm in result.arms:
        assert arm.made_by == {"arm": arm.name}
        assert arm.estimates["exact_match"] == Estimate(*share_interval(exact[arm.name]))
        assert arm.estimates["exact_match"].mean == pytest.approx(sum(exact[arm.name]) / 130)
        assert arm.estimates["target_loss"].mean == pytest.approx(sum(losses[arm.name]) / 130)
        assert arm.estimates["target_loss"].low < arm.estimates["target_loss"].mean < arm.estimates["target_loss"].high
    assert [comparison.against for comparison in result.comparisons] == list(ARMS[:-1])
    for comparison in result.comparisons:
        for values, found in (
            (exact, comparison.estimates["exact_match"]),
            (losses, comparison.estimates["target_loss"]),
        ):
            ours, theirs = values["composition"], values[comparison.against]
            assert found.mean == pytest.approx((sum(ours) - sum(theirs)) / 130)
            assert (found.mean, found.low, found.high) == paired_bootstrap(ours, theirs, seed=0)
            # Close to the normal interval of a mean of differences, which at 130 examples is a good one.
            differences = [left - right for left, right in zip(ours, theirs, strict=True)]
            spread = (sum((d - found.mean) ** 2 for d in differences) / 130) ** 0.5 / 130**0.5
            assert (found.low, found.high) == pytest.approx(
                (found.mean - 1.96 * spread, found.mean + 1.96 * spread), abs=0.25 * spread
            )


def test_the_strongest_control_has_the_most_right_and_then_the_least_loss() -> None:
    assert judged({**WEAK, "composition": right(0.9)}).strongest == "fresh_lora"
    level = {**WEAK, "best_single": right(0.5), "average": right(0.5), "composition": right(1.0)}
    losses = {name: [2.0] * ENOUGH_EXAMPLES for name in ARMS} | {
        "average": [1.5] * ENOUGH_EXAMPLES,
        "base": [0.1] * ENOUGH_EXAMPLES,
    }
    assert judged(level, losses).strongest == "average", "the composition is no control, and the base has fewer right"


def test_beats_only_beyond_the_interval_and_only_the_strongest() -> None:
    clear = judged({**WEAK, "composition": right(0.7)})
    assert clear.beats
    assert clear.verdict.startswith("The composition beats a fresh LoRA trained on the same examples, the strongest")
    assert "+0.20 [" in clear.verdict
    assert "does not" not in clear.verdict
    slight = judged({**WEAK, "composition": right(0.51)})
    assert not slight.beats
    assert slight.verdict.startswith("The composition does not beat a fresh LoRA")
    assert "worse" not in slight.verdict
    second = judged({**WEAK, "composition": right(0.4)})  # better than the best single module, and that is not enough
    assert not second.beats
    assert "it is worse" in second.verdict
    assert "-0.10 [" in second.verdict


def test_pairing_matters_and_is_used() -> None:
    # Ten more right among the same ones: clear. Ten more right among others: the interval holds zero.
    base = right(0.5)
    same = judged({**WEAK, "fresh_lora": base, "composition": right(0.6)})
    others = judged({**WEAK, "fresh_lora": base, "composition": right(0.6)[::-1]})
    assert same.comparisons[-1].estimates["exact_match"].mean == pytest.approx(
        others.comparisons[-1].estimates["exact_match"].mean
    )
    assert same.beats
    assert not others.beats


def test_too_few_examples_make_no_claim_however_clear() -> None:
    shorter = {name: values[::2] for name, values in WEAK.items()}
    few = judged({**shorter, "composition": [1.0] * (ENOUGH_EXAMPLES // 2)})
    assert few.comparisons[-1].estimates["exact_match"].low > 0
    assert not few.beats
    assert few.verdict.startswith("No claim: 50 held-out examples are too few, 100 are needed.")


def test_a_lower_loss_is_reported_but_is_no_win() -> None:
    generator = random.Random(2)
    losses = {name: [generator.gauss(3, 0.1) for _ in range(ENOUGH_EXAMPLES)] for name in ARMS}
    losses["composition"] = [generator.gauss(1, 0.1) for _ in range(ENOUGH_EXAMPLES)]
    result = judged({**WEAK, "composition": right(0.5)}, losses)
    assert not result.beats
    assert "does not beat" in result.verdict
    assert "Its target loss is lower beyond the interval" in result.verdict


# --- the whole report -------------------------------------------------------------------------------------------------


def report(
    base: Base, arms: Mapping[ComposeArm, Control], held_out: Sequence[Example], *, examples: int, **how: Any
) -> Report:
    scores = measure_controls(base, arms, held_out, **how)
    made_by = {name: arm.made_by for name, arm in arms.items()}
    return composition_report(scores, made_by, examples=examples, seed=how.get("seed", 0))


@pytest.fixture(scope="module")
def modules(make_adapter: MakeAdapter) -> list[Adapter]:
    return [
        read(make_adapter("small", seed=21, rank=2)),
        read(make_adapter("teacher", seed=22, rank=4)),
        read(make_adapter("elsewhere", seed=23, rank=3, targets=("down_proj",))),
    ]


@pytest.fixture(scope="module")
def examples(tiny_base: Base, modules: list[Adapter]) -> list[Example]:
    """What the module `teacher` answers."""
    with applied(tiny_base.model, modules[1]):
        return [Example(text, likely_letters(tiny_base, text, 4)) for text in ("a?", "bb?", "ccc?", "d?", "ee?", "f?")]


@pytest.fixture(scope="module")
def held_out(tiny_base: Base, modules: list[Adapter]) -> list[Example]:
    """What the module `small` answers: on these another module is the best than on the examples."""
    with applied(tiny_base.model, modules[0]):
        return [Example(text, likely_letters(tiny_base, text, 4)) for text in ("g?", "hh?", "iii?", "j?", "kk?")]


@pytest.fixture(scope="module")
def composition(tiny_base: Base, modules: list[Adapter], examples: list[Example]) -> Composition:
    return compose(
        tiny_base,
        modules,
        examples,
        Search(form="sum", template="plain", optimizer="Cobyla", budget=12),
        on_progress=ignore_progress,
    )


def reported(
    base: Base,
    modules: list[Adapter],
    composition: Composition,
    examples: list[Example],
    held_out: list[Example],
    **changes: Any,
) -> Report:
    settings: dict[str, Any] = {"batch_size": 3, "seed": 1, "on_progress": ignore_progress} | changes
    arms = quick(base, modules, examples, controls(), on_progress=ignore_progress)
    arms["composition"] = Control(composition.adapter, {})
    return report(base, arms, held_out, template="plain", examples=len(examples), **settings)


def controls(**changes: Any) -> ControlSettings:
    return ControlSettings(form="sum", template="plain", seed=1, **{"steps": 6} | changes)


def test_every_arm_is_scored_as_its_adapter_scores_alone(
    tiny_base: Base,
    modules: list[Adapter],
    composition: Composition,
    examples: list[Example],
    held_out: list[Example],
) -> None:
    heard: list[tuple[int, int]] = []
    result = reported(
        tiny_base,
        modules,
        composition,
        examples,
        held_out,
        on_progress=lambda step, total, _: heard.append((step, total)),
    )
    arms = {arm.name: arm for arm in result.arms}
    assert list(arms) == list(ARMS)
    made_by: dict[str, Any] = arms["fresh_lora"].made_by
    recipe = Recipe(**made_by)
    fresh = train(tiny_base, examples, recipe, template="plain", on_progress=ignore_progress).adapter
    adapters: dict[ComposeArm, Adapter | None] = {
        "base": None,
        "best_single": modules[1],
        "average": mix(tiny_base, modules, [1 / 3] * 3, "sum", "average"),
        "fresh_lora": fresh,
        "composition": composition.adapter,
    }
    losses = {}
    for name, adapter in adapters.items():
        with applied(tiny_base.model, adapter):
            each = [mean_loss(tiny_base, encode_batches(tiny_base, [example], "plain")) for example in held_out]
        losses[name] = sum(each) / len(each)
        assert arms[name].estimates["target_loss"].mean == pytest.approx(losses[name], rel=1e-4)
    assert len({round(loss, 4) for loss in losses.values()}) == 5, "arms that score alike could be mix up"
    # 5 arms of 5 held-out examples in batches of 3.
    assert heard == [(done, 25) for done in (3, 5, 8, 10, 13, 15, 18, 20, 23, 25)]
    for arm in arms.values():
        assert arm.seconds_an_answer
        assert arm.seconds_an_answer > 0
        assert arm.prompt_tokens == sum(len(f"{example.input}\nAnswer:") for example in held_out) / 5, (
            "a byte is a token"
        )
    assert result.verdict.startswith("No claim: 5 held-out examples are too few")


def test_the_best_single_module_is_chosen_on_the_examples_alone(
    tiny_base: Base,
    modules: list[Adapter],
    composition: Composition,
    examples: list[Example],
    held_out: list[Example],
) -> None:
    def losses(on: list[Example]) -> dict[str, float]:
        found = {}
        for module in modules:
            with applied(tiny_base.model, module):
                found[module.name] = mean_loss(tiny_base, encode_batches(tiny_base, on, "plain"))
        return found

    on_examples, on_held_out = losses(examples), losses(held_out)
    assert min(on_examples, key=on_examples.__getitem__) == "teacher"
    assert min(on_held_out, key=on_held_out.__getitem__) == "small", "or the choice could not be told apart"
    result = reported(tiny_base, modules, composition, examples, held_out)
    single = next(arm for arm in result.arms if arm.name == "best_single")
    assert single.made_by == {"module": "teacher", "loss_on_examples": pytest.approx(on_examples["teacher"], rel=1e-5)}


def test_the_fresh_lora_has_the_modules_size_and_place(
    tiny_base: Base,
    modules: list[Adapter],
    composition: Composition,
    examples: list[Example],
    held_out: list[Example],
) -> None:
    result = reported(tiny_base, modules, composition, examples, held_out)
    recipe = next(arm.made_by for arm in result.arms if arm.name == "fresh_lora")
    assert (recipe["rank"], recipe["alpha"], recipe["steps"]) == (4, 8, 6)
    assert recipe["target_modules"] == ["down_proj", "q_proj", "v_proj"]


def test_answers_are_long_enough_for_every_target(tiny_base: Base, modules: list[Adapter]) -> None:
    # One module whose answers of 30 letters are all right, and a target that is far longer than the others.
    long = "x" * 30
    recipe = Recipe(rank=8, steps=60, learning_rate=1e-2, ratio=1.0, batch_size=1)
    trained = train(tiny_base, [Example("write", long)], recipe, template="plain", on_progress=ignore_progress).adapter
    arms: dict[ComposeArm, Control] = {
        "best_single": Control(trained, {}),
        "composition": Control(trained, {}),
    }
    result = report(
        tiny_base, arms, [Example("write", long)], template="plain", examples=1, on_progress=ignore_progress
    )
    single = next(arm for arm in result.arms if arm.name == "best_single")
    assert single.estimates["exact_match"].mean == 1.0


def test_held_out_examples_that_were_seen_are_refused(examples: list[Example], held_out: list[Example]) -> None:
    shared = [*held_out, Example(f" {examples[0].input}\n", "another target")]
    with pytest.raises(HeldOutUnusable, match=r"1 of 6 held-out inputs are also among the examples"):
        check_held_out(examples, shared)
    with pytest.raises(HeldOutUnusable, match="no held-out examples"):
        check_held_out(examples, [])


@pytest.mark.parametrize("stop", [3, 14])
def test_cancelling_leaves_the_base_as_it_was(
    tiny_base: Base,
    modules: list[Adapter],
    composition: Composition,
    examples: list[Example],
    held_out: list[Example],
    stop: int,
) -> None:
    class Cancelled(Exception):
        pass

    def cancel(step: int, total: int, values: dict[str, float]) -> None:
        if step >= stop:
            raise Cancelled

    before = {key: tensor.clone() for key, tensor in tiny_base.model.state_dict().items()}
    with pytest.raises(Cancelled):
        reported(tiny_base, modules, composition, examples, held_out, on_progress=cancel)
    after = tiny_base.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in after.items())
    assert not any(layer._forward_hooks for layer in tiny_base.model.modules())


# --- all controls -----------------------------------------------------------------------------------------------------


def test_the_full_controls_are_what_they_are_called(
    tiny_base: Base, modules: list[Adapter], examples: list[Example]
) -> None:
    settings = controls(steps=3, bound=0.5)
    searched: list[list[str]] = []

    def search(chosen: Sequence[Adapter]) -> Adapter:
        searched.append([module.name for module in chosen])
        return chosen[0]

    arms = full(
        tiny_base, modules[:2], examples, settings, others=modules[2:], search=search, on_progress=ignore_progress
    )
    assert set(arms) == {
        *ARMS[:-1],
        "five_shot",
        "random_weights",
        "random_modules",
        "best_single_tuned",
    }
    assert searched == [["elsewhere"]]
    assert arms["random_modules"].made_by == {"modules": ["elsewhere"]}
    assert arms["five_shot"].adapter is None
    assert list(arms["five_shot"].shots) == examples[:5]
    weights = arms["random_weights"].made_by["weights"]
    assert len(set(weights)) == 2
    assert all(-0.5 <= weight <= 0.5 for weight in weights)
    again = full(tiny_base, modules[:2], examples, settings, on_progress=ignore_progress)
    assert again["random_weights"].made_by["weights"] == weights, "drawn from the seed"
    start, tuned = arms["best_single"], arms["best_single_tuned"]
    assert start.made_by.items() <= tuned.made_by.items()
    losses = losses_of(tiny_base, [renamed(tuned.adapter, "tuned"), renamed(start.adapter, "start")], examples, "plain")
    assert losses["tuned"] < losses["start"], "the further training was on these examples"


def renamed(adapter: Adapter | None, name: str) -> Adapter:
    assert adapter is not None
    return Adapter(name, adapter.config, adapter.pairs)


def test_without_examples_there_is_nothing_to_train_or_choose_by(tiny_base: Base, modules: list[Adapter]) -> None:
    settings = controls(bound=1.0)
    assert set(quick(tiny_base, modules[:2], [], settings, on_progress=ignore_progress)) == {"base", "average"}
    assert set(full(tiny_base, modules[:2], [], settings, on_progress=ignore_progress)) == {
        "base",
        "average",
        "random_weights",
    }
