"""What is said of whole trees: facts of sound adapters of every kind, and which trees are legal where."""

import json
import struct
import warnings
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from hub.formats.adapter_config import CONFIG, WEIGHTS
from hub.registry.inspection.facts import NOT_PLAIN
from hub.registry.inspection.inspect import BadAdapter, Inspection, inspect, require_adapter
from hub.registry.inspection.sketches import NONE
from tests.support.files import LAYERS, TINY, floats, peft_folder, safetensors
from tests.support.trees import BASE, LLAMA, SOUND, ZERO, Bytes, Tensors, codes, config, look, only, saved, weights
from tests.tiny_models import llama

# PEFT 0.21 asks transformers 5 for an attribute that has been renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def test_the_facts_of_a_plain_adapter() -> None:
    files = {**SOUND, "loraloom.json": b'{"method": "lorahub", "template": "plain"}'}
    inspection = look(files)
    assert inspection.findings == ()
    facts = require_adapter(inspection)
    assert facts.to_dict() == {
        "folder": "",
        "base_model": TINY,
        "base_id": TINY,
        "base_revision": None,
        "peft_type": "LORA",
        "method": "lorahub",
        "task_type": "CAUSAL_LM",
        "rank": 2,
        "ranks": [2],
        "alphas": [2],
        "scaling": "alpha/r",
        "target_modules": ["q_proj"],
        "layers": 2,
        "dtype": "F32",
        "parameters": 64,
        "size_bytes": len(SOUND[WEIGHTS]),
        "shapes": {layer: [8, 8, 2] for layer in LAYERS},
        "flags": [],
        "template": "plain",
        "licence": "apache-2.0",
        "tags": ["tiny", "test"],
        "description": "",
        "card": {"license": "apache-2.0", "library_name": "peft", "tags": ["tiny", "test"]},
    }
    assert json.loads(json.dumps(facts.to_dict())) == facts.to_dict()


@pytest.mark.parametrize(
    ("lora", "flags", "ranks"),
    [
        ({}, set(), {4}),
        ({"use_dora": True}, {"dora"}, {4}),
        ({"use_rslora": True}, {"rslora"}, {4}),
        ({"rank_pattern": {"v_proj": 2}, "r": 3}, {"rank_pattern"}, {2, 3}),
        ({"alpha_pattern": {"v_proj": 2}}, {"alpha_pattern"}, {4}),
        ({"target_modules": ["q_proj", "embed_tokens"]}, {"embeddings"}, {4}),
        ({"target_modules": ["lm_head"]}, set(), {4}),
        ({"target_modules": r".*\.layers\.1\..*(q|k)_proj"}, set(), {4}),
        ({"modules_to_save": ["lm_head"]}, {"modules_to_save"}, {4}),
        ({"lora_bias": True}, {"lora_bias"}, {4}),
        ({"trainable_token_indices": [0, 3]}, {"trainable_tokens"}, {4}),
        ({"layer_replication": [[0, 2], [1, 2]]}, {"layer_replication"}, {4}),
        ({"target_modules": [], "target_parameters": ["q_proj.weight"]}, {"target_parameters"}, {4}),
        ({"target_modules": "all-linear"}, set(), {4}),
        ({"init_lora_weights": "pissa"}, {"pissa"}, {4}),
    ],
)
def test_what_peft_writes_is_sound(tmp_path: Path, lora: dict[str, Any], flags: set[str], ranks: set[int]) -> None:
    inspection = look(saved(tmp_path, **lora), LLAMA)
    facts = require_adapter(inspection)
    assert (set(facts.flags), set(facts.ranks), facts.base_id) == (flags, ranks, LLAMA.id)
    assert facts.rank == max(ranks)
    assert facts.scaling == ("alpha/sqrt(r)" if lora.get("use_rslora") else "alpha/r")
    expected = {"no_card"} | ({"changed_base"} if "pissa" in flags else set())
    assert {item.code for item in inspection.findings} == expected
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = PeftModel.from_pretrained(llama(), str(tmp_path))
    adapted = {
        name.split(".lora_")[0].removeprefix("base_model.model.")
        for name, _ in loaded.named_parameters()
        if ".lora_" in name
    }
    assert set(facts.shapes) == adapted
    count = sum(tensor.numel() for tensor in load_file(tmp_path / WEIGHTS).values())
    assert facts.parameters == count


def test_a_convolution_and_half_precision_are_sound() -> None:
    tensors = {
        "base_model.model.conv.lora_A.weight": ((2, 3, 5, 5), b"\1" * 300),
        "base_model.model.conv.lora_B.weight": ((7, 2, 1, 1), b"\1" * 28),
    }
    files = config({**SOUND, WEIGHTS: safetensors(tensors, "BF16")}, target_modules=["conv"])
    facts = only(look(files))
    assert (facts.dtype, facts.shapes, facts.flags) == ("BF16", {"conv": (3, 7, 2)}, ("convolution",))


def test_a_base_is_known_by_any_of_its_names() -> None:
    assert only(look(peft_folder(base="team/alias"))).base_id == TINY
    assert only(look(peft_folder(base="team/other"))).base_id is None


def test_several_adapters_are_legal_in_a_tree_but_not_in_an_upload() -> None:
    files = {
        **{f"a/{path}": data for path, data in SOUND.items()},
        **{f"b/x/{path}": data for path, data in SOUND.items()},
    }
    inspection = look(files)
    assert [facts.folder for facts in inspection.adapters] == ["a", "b/x"]
    assert inspection.findings == ()
    with pytest.raises(BadAdapter, match="2 adapters"):
        require_adapter(inspection)


def test_the_card_of_the_top_folder_serves_for_all() -> None:
    files = {"a/" + WEIGHTS: SOUND[WEIGHTS], "a/" + CONFIG: SOUND[CONFIG], "README.md": SOUND["README.md"]}
    assert only(look(files)).licence == "apache-2.0"


def test_trees_that_are_no_adapters_are_legal() -> None:
    model = safetensors({"model.embed_tokens.weight": ((2, 2), bytes(16))})
    for files in ({}, {"data.jsonl": b"{}"}, {"model.safetensors": model, "config.json": b"{}"}):
        inspection = look(files)
        assert inspection == Inspection((), (), {})
        with pytest.raises(BadAdapter) as caught:
            require_adapter(inspection)
        assert caught.value.details["reason"] == "no_adapter"


def test_a_sound_adapter_may_lie_beside_what_other_tools_wrote() -> None:
    other = safetensors({"lora_unet_down.lora_down.weight": ((2, 2), floats(4, 1))})
    assert codes({**SOUND, "extra/comfy.safetensors": other}) == []


def test_sound_weights_are_read_once_for_the_sketch_and_little_more() -> None:
    files = {path: Bytes(data) for path, data in peft_folder(rank=8, width=8192).items()}
    inspect(files, [])
    weights_ = files[WEIGHTS]
    assert weights_.size > 1_000_000
    assert sum(weights_.reads) < weights_.size + 400_000  # more than once: the header, and one lora_B that is not zero


def test_the_header_and_the_config_are_read_once() -> None:
    files = {path: Bytes(data) for path, data in SOUND.items()}
    inspection = inspect(files, [BASE])
    assert inspection.sketches[""] != NONE
    assert len(files[CONFIG].reads) == 1
    (length,) = struct.unpack("<Q", SOUND[WEIGHTS][:8])
    assert files[WEIGHTS].reads.count(length) == 1


def test_little_is_read_of_weights_that_are_refused() -> None:
    files = {path: Bytes(data) for path, data in peft_folder(rank=8, width=8192, r=4).items()}
    inspect(files, [])
    assert files[WEIGHTS].size > 1_000_000
    assert sum(files[WEIGHTS].reads) < 400_000


def test_b_that_is_zero_but_for_its_last_number_is_not_zero() -> None:
    def nearly(tensors: Tensors) -> Tensors:
        last = max(name for name in tensors if "lora_B" in name)
        zeros = {k: (shape, bytes(len(raw)) if "lora_B" in k else raw) for k, (shape, raw) in tensors.items()}
        return {**zeros, last: (zeros[last][0], zeros[last][1][:-4] + struct.pack("<f", 1e-30))}

    assert codes(weights(SOUND, nearly)) == []
    assert "zero_b" in only(look(ZERO)).flags


def test_of_an_embedding_it_is_a_that_starts_at_zero(tmp_path: Path) -> None:
    model = get_peft_model(llama(), LoraConfig(r=4, target_modules=["embed_tokens"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert "zero_b" in codes(files, LLAMA)


def test_text_in_an_upload_cannot_harm_a_page_or_a_database() -> None:
    card = b'---\nlicense: "a\\0b\\uD800"\ntags: [x, 1, null, {a: b}]\ndate: 2024-01-01\nn: .nan\n---\n<script>\n\nHello \0 there.'
    facts = only(look({**SOUND, "README.md": card}))
    text = json.dumps(facts.to_dict(), allow_nan=False, ensure_ascii=False)
    assert "\\u0000" not in text
    text.encode()
    assert facts.tags == ("x",)
    assert facts.description == "Hello there."
    assert codes(config(SOUND, base_model_name_or_path="a\0b")) == ["bad_config"]


def test_a_large_tree_is_looked_at_quickly() -> None:
    """The work grows with the number of layers, not with its square, whatever lists the config brings."""
    layers = {f"base_model.model.model.layers.{i}.mlp.experts.{j}.up_proj": 0 for i in range(20) for j in range(100)}
    tensors: Tensors = {}
    for layer in layers:
        tensors |= {
            f"{layer}.lora_A.weight": ((2, 8), floats(16, 1)),
            f"{layer}.lora_B.weight": ((8, 2), floats(16, 2)),
        }
    targets = [layer.removeprefix("base_model.model.") for layer in layers]
    files = config({**SOUND, WEIGHTS: safetensors(tensors)}, target_modules=targets, modules_to_save=targets)
    inspection = look(files)
    assert {item.code for item in inspection.findings} == {"wrong_base", "target_also_saved", "missing_saved_modules"}


def test_flags_that_are_no_plain_sum_are_flags_that_we_give() -> None:
    given = set(only(look(SOUND)).flags)
    settings: dict[str, dict[str, Any]] = {
        "alora": {"alora_invocation_tokens": [1]},
        "arrow": {"arrow_config": {"top_k": 2}},
        "bdlora": {"use_bdlora": {"nblocks": 2}},
        "bias": {"bias": "all"},
        "corda": {"init_lora_weights": "corda"},
        "kasa": {"kasa_config": {"beta": 1}},
        "loftq": {"init_lora_weights": "loftq"},
        "lora_ga": {"init_lora_weights": "lora_ga"},
        "monteclora": {"monteclora_config": {"a": 1}},
        "olora": {"init_lora_weights": "olora"},
        "qalora": {"use_qalora": True},
    }
    for name, setting in settings.items():
        flags = set(only(look(config(SOUND, **setting))).flags)
        assert name in flags
        given |= flags
    # The others come from real adapters above.
    assert NOT_PLAIN - given == {
        "convolution",
        "dora",
        "embeddings",
        "layer_replication",
        "lora_bias",
        "modules_to_save",
        "pissa",
        "target_parameters",
        "trainable_tokens",
    }
