"""hub.lora.core.adapter against stock PEFT: the same files must mean the same model to both."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaForCausalLM

from hub.lora.core.adapter import Adapter, Pair, UnreadableAdapter, UnsupportedAdapter, WrongBase, applied, read, write
from tests import tiny_models

# PEFT 0.21 asks a transformers 5.23 model for a property by its deprecated name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TOKENS = torch.tensor([[5, 9, 2, 7, 1], [3, 3, 8, 4, 6]])
Q0 = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    return tiny_models.llama(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2
    )


def saved(model: nn.Module, folder: Path, seed: int = 1, **config: Any) -> Path:
    """An adapter as PEFT saves it, with both halves drawn at random so that it changes the logits clearly."""
    peft_model = get_peft_model(copy.deepcopy(model), LoraConfig(**config))
    torch.manual_seed(seed)
    for key, parameter in peft_model.named_parameters():
        if "lora_" in key:
            nn.init.normal_(parameter, std=0.3)
    peft_model.save_pretrained(folder)
    return folder


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        answer: torch.Tensor = model(TOKENS).logits
    return answer


def stock_logits(model: nn.Module, folder: Path) -> torch.Tensor:
    return logits(PeftModel.from_pretrained(copy.deepcopy(model), folder).eval())


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj"]},
    "rslora": {"r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": "all-linear"},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "k_proj", "down_proj"],
        "rank_pattern": {"layers.1.self_attn.q_proj": 2, "down_proj": 7},
        "alpha_pattern": {"k_proj": 3, r"layers\.0\.self_attn\.q_proj": 5},
    },
    "rslora patterns": {
        "r": 4,
        "lora_alpha": 8,
        "use_rslora": True,
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {"v_proj": 3},
    },
    "dora": {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "down_proj"], "use_dora": True},
    "some layers": {"r": 3, "target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    "regular expression": {"r": 3, "target_modules": r".*\.1\.mlp\.(up|gate)_proj"},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_applied_equals_peft(llama: LlamaForCausalLM, tmp_path: Path, config: dict[str, Any]) -> None:
    folder = saved(llama, tmp_path / "module", **config)
    with applied(llama, read(folder)):
        ours = logits(llama)
    torch.testing.assert_close(ours, stock_logits(llama, folder), rtol=1e-5, atol=1e-5)
    assert (ours - logits(llama)).abs().max() > 0.01, "the adapter must change the logits, or parity says nothing"


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_peft_reads_what_write_wrote(llama: LlamaForCausalLM, tmp_path: Path, config: dict[str, Any]) -> None:
    original = saved(llama, tmp_path / "module", **config)
    write(read(original), tmp_path / "again", dtype=torch.float32)
    rewritten = PeftModel.from_pretrained(copy.deepcopy(llama), tmp_path / "again").eval()
    torch.testing.assert_close(logits(rewritten), stock_logits(llama, original), rtol=1e-5, atol=1e-5)
    assert not rewritten.peft_config["default"].use_rslora
    # The pairs survive a second reading unchanged, scaling included.
    first, second = read(original), read(tmp_path / "again")
    assert first.pairs.keys() == second.pairs.keys()
    for path, pair in first.pairs.items():
        assert torch.equal(pair.a, second.pairs[path].a)
        assert torch.equal(pair.b, second.pairs[path].b)
        assert second.pairs[path].scaling == pytest.approx(pair.scaling, rel=1e-12)


def test_write_is_deterministic_and_keeps_where_the_adapter_belongs(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    module = read(saved(llama, tmp_path / "module", task_type="CAUSAL_LM", **CONFIGS["patterns"]))
    module.config["base_model_name_or_path"] = "some/base"
    reordered = Adapter(module.name, module.config, dict(reversed(module.pairs.items())))
    write(module, tmp_path / "one", dtype=torch.float16)
    write(reordered, tmp_path / "two", dtype=torch.float16)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["task_type"]) == ("some/base", "CAUSAL_LM")
    assert config["target_modules"] == ["down_proj", "k_proj", "q_proj"]
    assert {tensor.dtype for tensor in load_file(tmp_path / "one" / "adapter_model.safetensors").values()} == {
        torch.float16
    }


def test_layers_that_the_config_does_not_name_are_written_by_path(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    module = read(saved(llama, tmp_path / "module", r=2, target_modules=["q_proj", "v_proj"]))
    module.config["target_modules"] = ["q_proj"]  # PEFT would drop v_proj with a warning
    write(module, tmp_path / "again", dtype=torch.float32)
    expected = stock_logits(llama, tmp_path / "module")
    torch.testing.assert_close(stock_logits(llama, tmp_path / "again"), expected, rtol=1e-5, atol=1e-5)


def test_written_patterns_do_not_leak_to_paths_that_end_alike(tmp_path: Path) -> None:
    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Linear(6, 6)
            self.text = nn.ModuleDict({"proj": nn.Linear(6, 6)})

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.text["proj"](self.proj(x))
            return out

    torch.manual_seed(3)
    model, x = Towers(), torch.randn(4, 6)
    wide = Pair(torch.randn(3, 6), torch.randn(6, 3), 1.0)
    module = Adapter("towers", {}, {"proj": Pair(torch.randn(2, 6), torch.randn(6, 2), 0.5), "text.proj": wide})
    with applied(model, module):
        expected = model(x)
    write(module, tmp_path, dtype=torch.float32)
    torch.testing.assert_close(PeftModel.from_pretrained(model, tmp_path)(x), expected)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
def test_conv1d_layers_of_gpt2(tmp_path: Path) -> None:
    gpt2 = tiny_models.gpt2(vocab_size=64, n_embd=32, n_head=4, n_positions=16)
    folder = saved(
        gpt2, tmp_path / "module", r=3, lora_alpha=9, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True
    )
    module = read(folder)
    with applied(gpt2, module):
        ours = logits(gpt2)
    torch.testing.assert_close(ours, stock_logits(gpt2, folder), rtol=1e-5, atol=1e-5)
    write(module, tmp_path / "again", dtype=torch.float32)
    torch.testing.assert_close(stock_logits(gpt2, tmp_path / "again"), ours, rtol=1e-5, atol=1e-5)


def test_applied_leaves_the_base_bit_identical_even_when_the_block_raises(
    llama: LlamaForCausalLM, tmp_path: Path
) -> None:
    module = read(saved(llama, tmp_path / "module", **CONFIGS["plain"]))
    weights = {key: tensor.clone() for key, tensor in llama.state_dict().items()}
    before = logits(llama)
    with pytest.raises(KeyboardInterrupt), applied(llama, module):
        raise KeyboardInterrupt
    assert torch.equal(logits(llama), before)
    assert all(torch.equal(tensor, weights[key]) for key, tensor in llama.state_dict().items())
    assert not any(layer._forward_hooks for layer in llama.modules())
    with applied(llama, None):
        assert torch.equal(logits(llama), before)


def test_applied_computes_in_the_dtype_of_the_base(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    module = read(saved(llama, tmp_path / "module", **CONFIGS["plain"]))
    half = copy.deepcopy(llama).bfloat16()
    with applied(half, module):
        ours = logits(half)
    with applied(llama, module):
        exact = logits(llama)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), exact, rtol=0.05, atol=0.05)


CONFIG_FEATURES: list[tuple[dict[str, Any], str]] = [
    ({"bias": "lora_only"}, "trained biases"),
    ({"lora_bias": True}, "bias on lora_B"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
    ({"target_parameters": ["experts.up"]}, "target_parameters"),
    ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
    ({"alora_invocation_tokens": [7]}, "alora_invocation_tokens"),
    ({"peft_type": "IA3"}, "IA3"),
    ({"init_lora_weights": "pissa"}, "pissa"),
    ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
    ({"init_lora_weights": "olora"}, "olora"),
    ({"init_lora_weights": "loftq"}, "loftq"),
    ({"init_lora_weights": "lora_ga"}, "lora_ga"),
]


@pytest.mark.parametrize(("change", "named"), CONFIG_FEATURES, ids=[named for _, named in CONFIG_FEATURES])
def test_features_that_are_no_plain_pair_are_refused_by_name(
    llama: LlamaForCausalLM, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    folder = saved(llama, tmp_path / "my-module", **CONFIGS["plain"])
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UnsupportedAdapter) as refused:
        read(folder)
    assert str(refused.value).startswith("my-module: ")
    assert named in str(refused.value)


@pytest.mark.parametrize(
    "key",
    [
        "base_model.model.model.embed_tokens.lora_embedding_A",
        f"base_model.model.{Q0}.lora_magnitude_vector",
        f"base_model.model.{Q0}.lora_B.bias",
        f"{Q0}.lora_A.weight",
        "base_model.model.lm_head.weight",
    ],
)
def test_tensors_that_are_no_half_of_a_pair_are_refused_by_name(
    llama: LlamaForCausalLM, tmp_path: Path, key: str
) -> None:
    folder = saved(llama, tmp_path / "module", **CONFIGS["plain"])
    weights = folder / "adapter_model.safetensors"
    save_file(load_file(weights) | {key: torch.zeros(4, 32)}, weights)
    with pytest.raises(UnsupportedAdapter, match=key.replace(".", r"\.")):
        read(folder)


def test_files_that_contradict_each_other_are_refused(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    folder = saved(llama, tmp_path / "module", **CONFIGS["plain"])
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    tensors = load_file(weights)

    save_file({k: v for k, v in tensors.items() if k != f"base_model.model.{Q0}.lora_B.weight"}, weights)
    with pytest.raises(UnreadableAdapter, match=r"q_proj has only lora_A"):
        read(folder)
    save_file(tensors, weights)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 8}))
    with pytest.raises(UnreadableAdapter, match="rank 8"):
        read(folder)
    save_file({}, weights)
    with pytest.raises(UnreadableAdapter, match="no tensors"):
        read(folder)
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UnreadableAdapter, match="cannot be read"):
        read(folder)
    weights.rename(folder / "adapter_model.bin")
    with pytest.raises(UnreadableAdapter, match="pickle"):
        read(folder)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(UnreadableAdapter, match=r"no weights"):
        read(folder)
    config.write_text("{")
    with pytest.raises(UnreadableAdapter, match="not JSON"):
        read(folder)
    config.write_text("[]")
    with pytest.raises(UnreadableAdapter, match="no JSON object"):
        read(folder)
    config.unlink()
    with pytest.raises(UnreadableAdapter, match=r"no adapter_config\.json"):
        read(folder)


def test_a_module_of_another_base_is_refused_before_any_hook_is_set(llama: LlamaForCausalLM) -> None:
    good = Pair(torch.zeros(2, 32), torch.zeros(32, 2), 1.0)
    cases = {
        "model.layers.9.self_attn.q_proj": (good, WrongBase, "does not have"),
        "model.layers.1.mlp.up_proj": (good, WrongBase, "48 x 32"),
        "model.embed_tokens": (good, UnsupportedAdapter, "Embedding"),
    }
    for path, (pair, error, words) in cases.items():
        with pytest.raises(error, match=words), applied(llama, Adapter("stray", {}, {Q0: good, path: pair})):
            pytest.fail("the block must not be entered")
    assert not any(layer._forward_hooks for layer in llama.modules())
