"""Every kind of job is whole, and what 0.1.0 wrote of each is still read."""

import importlib
import json
from pathlib import Path

import pytest

from hub.registry.jobs import kinds
from hub.registry.jobs.contracts.common import MANIFEST_VERSION, Contract
from hub.registry.jobs.kinds import KINDS, Kind
from hub.registry.models.jobs import Job
from hub.vocabulary import JOB_KINDS
from hub.web.pages.jobs.forms.kinds import FORMS, STARTED_ELSEWHERE

# Params, results and manifests of jobs that the code of 0.1.0 ran on a tiny base; the base's folder alone has been renamed.
OLD = Path(__file__).parents[2] / "data" / "0.1.0" / "jobs"
FOLDERS = sorted(OLD.iterdir())


def test_the_vocabulary_and_the_table_name_the_same_kinds() -> None:
    assert tuple(KINDS) == JOB_KINDS


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_kind_is_whole(kind: Kind) -> None:
    """It is asked for, run and shown; what cannot be asked for by a form says where it is."""
    assert kind.request.model_fields["kind"].annotation is not None
    for model in (kind.params, kind.result, *([kind.manifest] if kind.manifest else [])):
        assert model.model_config.get("frozen"), model
    module, _, function = kind.run.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert kind.title
    assert kind.stall_seconds > 0
    assert (kind.name in FORMS) != bool(STARTED_ELSEWHERE.get(kind.name)), "a form, or where it is started instead"
    assert bool(kind.card) == bool(kind.manifest), "what is published has a card and a manifest"
    assert kind.size({}, 1_000, 0) <= kind.size({}, 9_000, 0)


def read_back(model: type[Contract], written: object) -> None:
    """What 0.1.0 wrote is read, and written again it is the same; only a version may have been added."""
    again = model.model_validate(written).model_dump(mode="json")
    assert again.pop("version", MANIFEST_VERSION) == MANIFEST_VERSION
    assert again == written


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_what_0_1_0_wrote_is_read_without_loss(folder: Path) -> None:
    kept = json.loads((folder / "job.json").read_text())
    kind = KINDS[kept["kind"]]
    read_back(kind.params, kept["params"])
    read_back(kind.result, kept["result"])
    if (folder / "loraloom.json").exists():
        assert kind.manifest is not None
        read_back(kind.manifest, json.loads((folder / "loraloom.json").read_text()))
    job = Job(kind=kept["kind"], params=kept["params"], result=kept["result"])
    assert isinstance(kinds.params_of(job), kind.params)
    assert isinstance(kinds.result_of(job), kind.result)


def test_every_kind_has_a_job_that_was_kept() -> None:
    assert {json.loads((folder / "job.json").read_text())["kind"] for folder in FOLDERS} == set(JOB_KINDS)


def test_what_is_no_longer_kept_is_nothing() -> None:
    job = Job(kind="generate", params={}, result=None)
    assert kinds.params_of(job) is None
    assert kinds.result_of(job) is None
