"""Every defect has its code and its remedy, and what we say that PEFT does with it, PEFT is asked to do."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from hub.formats.adapter_config import CONFIG, WEIGHTS
from hub.registry.inspection.findings import BROKEN, KNOWN
from hub.registry.inspection.inspect import BadAdapter, require_adapter
from tests.support.defects import ERRORS, WARNINGS
from tests.support.trees import LLAMA, SOUND, Files, codes, config, look, saved
from tests.tiny_models import llama

# PEFT 0.21 asks transformers 5 for an attribute that has been renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_named_by_its_cause_and_refuses_the_upload(name: str) -> None:
    files, code = ERRORS[name]
    inspection = look(files)
    assert [item.code for item in inspection.errors] == [code]
    assert inspection.adapters == ()
    (error,) = inspection.errors
    assert error.message.endswith(".")
    assert error.remedy.endswith((".", ")."))
    assert error.path in {*files, CONFIG, WEIGHTS}
    with pytest.raises(BadAdapter) as caught:
        require_adapter(inspection)
    assert caught.value.status == 422
    assert caught.value.details["reason"] == code
    assert caught.value.details["findings"] == [item.to_dict() for item in inspection.findings]
    assert error.message in caught.value.message
    assert error.remedy in caught.value.message


def test_every_error_that_only_we_can_raise_is_tried_here() -> None:
    tried = {code for _, code in ERRORS.values()}
    assert {code for code, (severity, _) in KNOWN.items() if severity == "error"} - tried == {"no_adapter"}
    assert BROKEN - tried == {
        "bad_header",
        "bad_offsets",
        "duplicate_key",
    }  # tests/formats has these


def test_the_first_of_several_errors_is_said_and_the_others_counted() -> None:
    files = {**config(SOUND, peft_type=None), WEIGHTS: SOUND[WEIGHTS][:-5]}
    with pytest.raises(BadAdapter, match=r"One of 2 errors"):
        require_adapter(look(files))


@pytest.mark.parametrize("name", WARNINGS)
def test_a_warning_says_what_is_odd_and_does_not_refuse(name: str) -> None:
    files, code, said = WARNINGS[name]
    inspection = look(files)
    (found,) = [item for item in inspection.findings if item.code == code]
    assert said in found.message
    assert found.remedy
    assert found.severity == ("info" if code in ("unused_targets", "inert_pickle") else "warning")
    assert inspection.errors == ()
    assert require_adapter(inspection).rank


def test_every_warning_is_tried_here() -> None:
    known = {code for code, (severity, _) in KNOWN.items() if severity != "error"}
    # What a module is a near duplicate of, the other modules say: tests/registry/library/test_similar.py.
    assert {code for _, code, _ in WARNINGS.values()} == known - {"near_duplicate"}


# --- what we say that PEFT does ---------------------------------------------------------------------------------------


def came_through(folder: Path) -> set[bool]:
    """Load the folder with PEFT onto the tiny Llama: for each lora_B, whether numbers came into it from the file."""
    changed = json.loads((folder / CONFIG).read_text()) | {"init_lora_weights": True}
    (folder / CONFIG).write_text(json.dumps(changed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(llama(), str(folder))
    return {bool(parameter.any()) for name, parameter in model.named_parameters() if "lora_B" in name}


def changed(folder: Path, files: Files) -> Path:
    for path, data in files.items():
        (folder / path).write_bytes(data)
    return folder


def test_peft_leaves_out_untargeted_layers_in_silence(tmp_path: Path) -> None:
    files = config(saved(tmp_path), target_modules=["layers.0.self_attn.q_proj"])
    assert "untargeted" in codes(files, LLAMA)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*adapter keys")
        assert came_through(changed(tmp_path, files)) == {True}


@pytest.mark.parametrize(
    ("change", "code", "error"),
    [
        ({"r": 8}, "rank_mismatch", RuntimeError),
        ({"modules_to_save": ["lm_head"]}, "missing_saved_modules", KeyError),
        (
            {"target_modules": "model.layers.0.self_attn.q_proj", "modules_to_save": ["q_proj"]},
            "target_also_saved",
            ValueError,
        ),
    ],
)
def test_peft_fails_where_we_say_so(tmp_path: Path, change: dict[str, Any], code: str, error: type[Exception]) -> None:
    files = config(saved(tmp_path), **change)
    assert code in codes(files, LLAMA)
    with pytest.raises(error):
        came_through(changed(tmp_path, files))


def test_peft_ignores_magnitudes_without_the_setting(tmp_path: Path) -> None:
    files = config(saved(tmp_path, use_dora=True), use_dora=False)
    assert codes(files, LLAMA) == ["dora_mismatch"]
    assert came_through(changed(tmp_path, files)) == {True}


def test_pissa_changes_the_base_when_it_is_loaded(tmp_path: Path) -> None:
    files = saved(tmp_path, init_lora_weights="pissa")
    assert "changed_base" in codes(files, LLAMA)
    before = llama().state_dict()["model.layers.0.self_attn.q_proj.weight"]
    model = PeftModel.from_pretrained(llama(), str(tmp_path))
    after = model.state_dict()["base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"]
    assert not torch.allclose(before, after, atol=1e-3)
