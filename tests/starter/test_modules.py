"""The starter adapters: small, alike, sound, and with cards that say what was measured."""

import json
from pathlib import Path

import pytest

from hub.formats.ranged_file import LocalFile
from hub.lora.core.built_in import BUILT_IN_ID
from hub.lora.train.loop import Recipe
from hub.registry.inspection.inspect import inspect
from hub.starter import train
from hub.starter.publish import MODULES
from hub.starter.tasks import TASKS, Task


def test_there_is_one_module_a_task_and_they_are_small() -> None:
    assert len(TASKS) >= 8
    assert {path.name for path in MODULES.iterdir()} == {task.name for task in TASKS}
    sizes = [sum(file.stat().st_size for file in folder.iterdir()) for folder in MODULES.iterdir()]
    assert max(sizes) < 1_000_000
    assert sum(sizes) < 10_000_000


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_module_is_sound_and_its_card_says_what_was_measured(task: Task) -> None:
    folder: Path = MODULES / task.name
    inspection = inspect({path.name: LocalFile(path) for path in folder.iterdir()}, [])
    assert [finding.code for finding in inspection.findings if finding.severity == "error"] == []
    (facts,) = inspection.adapters
    assert (facts.base_model, facts.rank, facts.target_modules) == (BUILT_IN_ID, 8, ("q_proj", "v_proj"))
    assert (facts.template, facts.licence, facts.dtype) == ("plain", "apache-2.0", "BF16")
    manifest = json.loads((folder / "loraloom.json").read_text())
    assert manifest["settings"] == {**train.RECIPE, "ratio": Recipe(**train.RECIPE).rate_ratio}
    assert manifest["task"] == {"name": task.name, "train": len(task.train), "held_out": len(task.held_out)}
    card = (folder / "README.md").read_text()
    for arm in ("base", "module"):
        exact = manifest["metrics"][arm]["exact_match"]
        assert f"| {arm} | {exact['mean']:.3f} [{exact['low']:.3f}, {exact['high']:.3f}] |" in card
    assert manifest["metrics"]["module"]["exact_match"]["mean"] > manifest["metrics"]["base"]["exact_match"]["mean"]
