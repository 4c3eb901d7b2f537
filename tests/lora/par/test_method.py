"""LoRA-PAR from start to end on a model that has something to gain, beside its controls."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hub.lora.core.bases import Base
from hub.lora.core.checkpoint import CheckpointMismatch
from hub.lora.par.method import PRESETS, Systems, as_json, described, run_arm
from hub.lora.par.partition import NothingToPartition
from hub.vocabulary import PAR_ARMS
from tests.lora.habits import HELD_OUT, fast, habitual_base, one_thread, slow
from tests.lora.par.arms import SYSTEMS, arm, right, settings
from tests.lora.runs import Cancelled, CheckpointFolder, ignore_progress, unchanged


@pytest.fixture(scope="module")
def habitual() -> Iterator[Base]:
    with one_thread():
        yield habitual_base()


@pytest.mark.parametrize("start", ["pissa", "probe"])
def test_reinforcement_gains_on_questions_it_has_not_seen_and_copying_is_not_forgotten(
    habitual: Base, start: Any
) -> None:
    with unchanged(habitual):
        done = arm(habitual, given=settings(start=start))
    sft, grpo = done.stages
    after_sft, after_grpo = (right(habitual, slow(HELD_OUT), each.adapter) for each in (sft, grpo))
    assert 0.2 <= after_sft <= 0.7
    assert after_grpo >= after_sft + 0.1
    assert right(habitual, fast(HELD_OUT), grpo.adapter) >= 0.95
    assert done.partition is not None
    found = described(done.partition)
    assert found["system1"] == len(done.partition.system1) / found["elements"] < 0.6, (
        "theta 0.9 needs far fewer elements"
    )
    assert 0 < found["jaccard"] < 1
    assert max(found["stage1"], found["stage2"]) < found["active"] <= found["stage1"] + found["stage2"]
    assert len(found["matrices"]) == 2 * 2 * 7
    assert found["matrices"][0]["matrix"] == "model.layers.0.self_attn.q_proj A"
    for stage, mask in ((sft, done.partition.stage1), (grpo, done.partition.stage2)):
        assert stage.done.optimizer_bytes == pytest.approx(8 * len(mask) + found["elements"] / 8, rel=1e-3)


def test_the_arms_differ_in_what_they_say_and_in_nothing_else(habitual: Base) -> None:
    quick = settings(steps=2)
    partition = arm(habitual, given=quick).partition
    assert partition is not None
    done = {name: arm(habitual, name, quick, found=partition) for name in PAR_ARMS}
    stages = {name: [stage.name for stage in each.stages] for name, each in done.items()}
    assert stages["rl_first"] == ["grpo", "sft"]
    assert stages["lora"] == stages["loraplus"] == ["sft"]
    assert all(stages[name] == ["sft", "grpo"] for name in ("par", "random", "swapped", "unpartitioned", "pissa_rl"))
    assert done["lora"].stages[0].done.steps == 22, "as many updates as both stages have"
    kept = {name: [stage.done.optimizer_bytes for stage in each.stages] for name, each in done.items()}
    assert kept["random"] == kept["par"]
    assert kept["swapped"] == kept["rl_first"] == kept["par"][::-1]
    assert kept["unpartitioned"] == [8 * partition.layout.size] * 2
    ranks = {name: {pair.rank for pair in each.adapter.pairs.values()} for name, each in done.items()}
    assert ranks["unpartitioned"] == ranks["lora"] == {8}
    assert ranks["pissa_rl"] == ranks["par"] == {16}, "what PiSSA took out of the base comes back"
    assert {name for name, each in done.items() if each.partition} == {"par", "random", "swapped", "rl_first"}


@pytest.mark.parametrize("killed_in", ["par score", "par sft", "par grpo"])
def test_a_run_that_was_stopped_goes_on_at_its_stage_and_step(habitual: Base, tmp_path: Path, killed_in: str) -> None:
    quick = settings(steps=4)
    whole = arm(habitual, given=quick).adapter

    def places(killed_after: int) -> Any:
        def place(part: str) -> CheckpointFolder:
            folder = tmp_path / part.replace(" ", "-")
            folder.mkdir(exist_ok=True)
            return CheckpointFolder(folder, killed_after=killed_after if part == killed_in else 10**9)

        return place

    with pytest.raises(Cancelled):
        arm(habitual, given=quick, place=places(1 if killed_in == "par score" else 3))
    heard: list[tuple[str, int]] = []
    part = ""

    def enter(name: str) -> None:
        nonlocal part
        part = name

    rest = arm(
        habitual,
        given=quick,
        place=places(10**9),
        enter=enter,
        on_progress=lambda step, *_: heard.append((part, step)),
    )
    first = {"par score": ("par sft", 1), "par sft": ("par sft", 4), "par grpo": ("par grpo", 4)}
    assert heard[0] == first[killed_in]
    for path, pair in rest.adapter.pairs.items():
        assert torch.equal(pair.a, whole.pairs[path].a)
        assert torch.equal(pair.b, whole.pairs[path].b)
    if killed_in == "par score":
        with pytest.raises(CheckpointMismatch, match="partition of other settings"):
            arm(habitual, given=settings(steps=4, theta=0.5), place=places(10**9))


def test_a_system_without_examples_is_refused(habitual: Base) -> None:
    with pytest.raises(NothingToPartition, match="no example of System 2"):
        run_arm(
            habitual, Systems(SYSTEMS.system1, []), settings(), "par", template="plain", on_progress=ignore_progress
        )


def test_presets_can_be_kept_as_json() -> None:
    paper = as_json(PRESETS["paper"])
    assert json.loads(json.dumps(paper)) == paper
    supervised, reinforced = paper["supervised"], paper["reinforced"]
    assert (supervised["rank"], supervised["alpha"], supervised["accumulation"]) == (8, 64, 32)
    assert (reinforced["kl"], reinforced["temperature"], reinforced["loss"]) == (0.04, 0.9, "grpo")
    assert reinforced["prompts"] * reinforced["generations"] == 32
