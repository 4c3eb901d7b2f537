"""Every defect has its code and its remedy, and what we say that PEFT does with it, PEFT is asked to do."""

import json
import struct
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from hub.formats.adapter_config import CONFIG, WEIGHTS
from hub.registry.inspection.findings import BROKEN, KNOWN
from hub.registry.inspection.inspect import BadAdapter, require_adapter
from tests.support.files import LAYERS, TINY, floats, peft_folder, safetensors
from tests.support.trees import (
    LLAMA,
    SOUND,
    ZERO,
    Files,
    Tensors,
    codes,
    config,
    look,
    plus,
    renamed,
    saved,
    tiny_llama,
    weights,
    without,
)

# PEFT 0.21 asks transformers 5 for an attribute that has been renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

A0, B0 = f"base_model.model.{LAYERS[0]}.lora_A.weight", f"base_model.model.{LAYERS[0]}.lora_B.weight"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n"

LORALIB: Tensors = {
    "roberta.encoder.0.query.lora_A": ((2, 8), floats(16, 1)),
    "roberta.encoder.0.query.lora_B": ((8, 2), floats(16, 2)),
}
MLX: Tensors = {
    "model.layers.0.q_proj.lora_a": ((8, 2), floats(16, 1)),
    "model.layers.0.q_proj.lora_b": ((2, 8), floats(16, 2)),
}
KOHYA: Tensors = {"lora_unet_mid.lora_down.weight": ((2, 8), floats(16, 1)), "lora_unet_mid.alpha": ((), floats(1, 1))}
DIFFUSERS: Tensors = {
    "unet.mid.attn.to_q.lora_A.weight": ((2, 8), floats(16, 1)),
    "unet.mid.attn.to_q.lora_B.weight": ((8, 2), floats(16, 2)),
}
PLAIN_MODEL: Tensors = {"base_model.model.wte.weight": ((2, 2), floats(4, 1))}


def foreign(tensors: Tensors, name: str = WEIGHTS) -> Files:
    return {name: safetensors(tensors)}


ERRORS: dict[str, tuple[Files, str]] = {
    "not safetensors": ({**SOUND, WEIGHTS: b"PK\x03\x04" + bytes(80)}, "not_safetensors"),
    "truncated": ({**SOUND, WEIGHTS: SOUND[WEIGHTS][:-5]}, "truncated"),
    "empty": ({**SOUND, WEIGHTS: b""}, "truncated"),
    "an LFS pointer for weights": ({**SOUND, WEIGHTS: POINTER}, "lfs_pointer"),
    "an LFS pointer for the config": ({**SOUND, CONFIG: POINTER}, "lfs_pointer"),
    "an absurd header": ({**SOUND, WEIGHTS: struct.pack("<Q", 1 << 40) + b"{}"}, "header_too_large"),
    "a base model that is a pointer": ({"model.safetensors": POINTER}, "lfs_pointer"),
    "a pickle": ({**without(SOUND, WEIGHTS), "adapter_model.bin": b"PK\x03\x04"}, "pickle_weights"),
    "a base model as a pickle": ({"pytorch_model.bin": b"PK\x03\x04", "config.json": b"{}"}, "pickle_weights"),
    "no peft_type": (config(SOUND, peft_type=None), "no_peft_type"),
    "config not JSON": ({**SOUND, CONFIG: b"{'r': 8}"}, "config_not_json"),
    "config no object": ({**SOUND, CONFIG: b"[]"}, "config_not_json"),
    "a rank of text": (config(SOUND, r="2"), "bad_config"),
    "a pattern that is no regex": (config(SOUND, rank_pattern={"(": 2}), "bad_pattern"),
    "patterns that take too long": (config(SOUND, rank_pattern={".*a.*b.*c.*d.*e.*f.*g.*h": 2}), "bad_pattern"),
    "another method": (config(SOUND, peft_type="IA3"), "unsupported_peft_type"),
    "merged q-k-v of old": (config(SOUND, enable_lora=[True, False, True]), "merged_linear"),
    "another rank in the config": (config(SOUND, r=8), "rank_mismatch"),
    "another rank by pattern": (config(SOUND, rank_pattern={LAYERS[1]: 4}), "rank_mismatch"),
    "no B": (weights(SOUND, lambda t: {k: v for k, v in t.items() if k != B0}), "unpaired"),
    "A and B of different ranks": (weights(SOUND, lambda t: {**t, B0: ((8, 3), floats(24, 1))}), "pair_mismatch"),
    "B with too many axes": (weights(SOUND, lambda t: {**t, B0: ((8, 2, 1), floats(16, 1))}), "pair_mismatch"),
    "empty shards": (weights(SOUND, lambda t: {**t, A0: ((0,), b""), B0: ((0,), b"")}), "ungathered"),
    "magnitudes without DoRA": (
        plus(SOUND, **{f"{LAYERS[0]}.lora_magnitude_vector": ((8,), floats(8, 1))}),
        "dora_mismatch",
    ),
    "DoRA without magnitudes": (config(SOUND, use_dora=True), "dora_mismatch"),
    "shapes of another base": (peft_folder(width=16), "wrong_shape"),
    "layers of another base": (
        config(renamed(SOUND, "model.layers", "transformer.h"), target_modules=["q_proj"]),
        "wrong_base",
    ),
    "no config": (without(SOUND, CONFIG), "missing_config"),
    "no weights": (without(SOUND, WEIGHTS), "missing_weights"),
    "a whole model": ({**SOUND, **foreign(PLAIN_MODEL)}, "no_lora_tensors"),
    "loralib": ({**SOUND, **foreign(LORALIB)}, "loralib_names"),
    "loralib alone": (foreign(LORALIB, "lora.safetensors"), "loralib_names"),
    "MLX": ({CONFIG: b'{"fine_tune_type": "lora"}', **foreign(MLX, "adapters.safetensors")}, "mlx_names"),
    "kohya": (foreign(KOHYA, "style.safetensors"), "kohya_names"),
    "diffusers": (foreign(DIFFUSERS, "pytorch_lora_weights.safetensors"), "diffusers_names"),
}


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


HEAD: Tensors = {"lm_head.weight": ((40, 8), floats(320, 1))}
LARGER_HEAD: Tensors = {"lm_head.weight": ((48, 8), floats(384, 1))}
MORE_LAYERS = weights(SOUND, lambda t: {**t, **{k.replace("layers.0", "layers.9"): v for k, v in t.items()}})

WARNINGS: dict[str, tuple[Files, str, str]] = {
    "an unknown base": (peft_folder(base="org/model"), "unknown_base", f"By shape it fits {TINY}"),
    "a base by its Unix path": (peft_folder(base="/home/ann/models/llama"), "local_base", "/home/ann/models/llama"),
    "a base by its relative path": (peft_folder(base="../llama"), "local_base", "../llama"),
    "a base by its Windows path": (peft_folder(base="D:\\models\\llama"), "local_base", "D:"),
    "no base": (peft_folder(base=None), "no_base", "names no base"),
    "a base without some of the layers": (MORE_LAYERS, "not_in_base", "layers.9"),
    "a vocabulary of another size": (
        config(plus(SOUND, **LARGER_HEAD), modules_to_save=["lm_head"]),
        "saved_shape",
        "lm_head",
    ),
    "every B zero": (ZERO, "zero_b", "changes nothing"),
    "a rank above the matrix": (peft_folder(rank=9), "rank_above_matrix", "q_proj"),
    "no card": (without(SOUND, "README.md"), "no_card", "no model card"),
    "a card without a licence": ({**SOUND, "README.md": b"# Hello"}, "no_licence", "names no licence"),
    "a card that is not YAML": ({**SOUND, "README.md": b"---\na: [\n---\n"}, "bad_card", "not YAML"),
    "a broken manifest": ({**SOUND, "loraloom.json": b"{"}, "bad_sidecar", "loraloom.json"),
    "keys without the prefix": (renamed(SOUND, "base_model.model.", ""), "ignored_keys", "4 of 4"),
    "keys with the prefix three times": (
        renamed(SOUND, "base_model.model.", "base_model.model." * 3),
        "ignored_keys",
        "more than once",
    ),
    "keys with an adapter's name": (renamed(SOUND, ".weight", ".my_task.weight"), "ignored_keys", "my_task"),
    "a target that is also saved": (
        config(plus(SOUND, **HEAD), target_modules=["q_proj", "lm_head"], modules_to_save=["lm_head"]),
        "target_also_saved",
        "lm_head",
    ),
    "a string target that is also saved": (
        config(SOUND, target_modules="q_proj", modules_to_save=["q_proj"]),
        "target_also_saved",
        "q_proj",
    ),
    "saved modules that are not in the file": (
        config(SOUND, modules_to_save=["lm_head"]),
        "missing_saved_modules",
        "fails",
    ),
    "layers that target_modules does not name": (
        config(SOUND, target_modules=["layers.0.self_attn.q_proj"]),
        "untargeted",
        "layers.1",
    ),
    "an initialisation that changed the base": (
        config(SOUND, init_lora_weights="pissa_niter_16"),
        "changed_base",
        "pissa_niter_16",
    ),
    "targets that match nothing": (
        config(SOUND, target_modules=["q_proj", "v_proj", "c_attn"]),
        "unused_targets",
        "c_attn and v_proj",
    ),
    "a pickle that nobody reads": (
        {**SOUND, "training_args.bin": b"x", "optimizer.pt": b"x"},
        "inert_pickle",
        "1 more",
    ),
    "a pickle beside its safetensors": ({**SOUND, "adapter_model.bin": b"x"}, "inert_pickle", "adapter_model.bin"),
}


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
        model = PeftModel.from_pretrained(tiny_llama(), str(folder))
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
    before = tiny_llama().state_dict()["model.layers.0.self_attn.q_proj.weight"]
    model = PeftModel.from_pretrained(tiny_llama(), str(tmp_path))
    after = model.state_dict()["base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"]
    assert not torch.allclose(before, after, atol=1e-3)
