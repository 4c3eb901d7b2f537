"""Adapters with one defect each: those that are refused, and those that are published with a warning."""

import struct

from hub.formats.adapter_config import CONFIG, WEIGHTS
from tests.support.files import LAYERS, TINY, floats, peft_folder, safetensors
from tests.support.trees import (
    SOUND,
    ZERO,
    Files,
    Tensors,
    config,
    plus,
    renamed,
    weights,
    without,
)

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
