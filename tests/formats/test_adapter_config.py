"""What we say about a PEFT file is compared with what PEFT and safetensors themselves do with it."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file

from hub.formats.adapter_config import CONFIG, WEIGHTS, config_from, parse_config, pattern_steps, rank_of, scaling_of
from hub.formats.errors import FormatError, printable
from hub.formats.patterns import check_pattern
from hub.formats.tensor_names import group_keys, parse_key
from tests.tiny_models import llama

# PEFT 0.21 asks transformers 5 for an attribute that has been renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


# --- adapter_config.json ----------------------------------------------------------------------------------------------


def test_the_config_that_peft_writes(tmp_path: Path) -> None:
    LoraConfig(
        r=16,
        lora_alpha=32,
        target_modules=["v_proj", "q_proj"],
        use_dora=True,
        bias="lora_only",
        modules_to_save=["score"],
        task_type="SEQ_CLS",
        base_model_name_or_path="team/base",
        revision="main",
        init_lora_weights="pissa_niter_4",
    ).save_pretrained(str(tmp_path))
    config = parse_config((tmp_path / CONFIG).read_bytes())
    assert (config.r, config.lora_alpha, config.task_type, config.bias) == (16, 32, "SEQ_CLS", "lora_only")
    assert (config.base_model, config.revision) == ("team/base", "main")
    assert set(config.target_modules) == {"q_proj", "v_proj"}
    assert config.modules_to_save == ("score",)
    assert config.use_dora
    assert config.changes_base
    assert not config.use_rslora
    assert config.variants == ()


def test_missing_and_null_fields_have_the_defaults_of_peft() -> None:
    default = LoraConfig()
    for settings_ in (
        {"peft_type": "LORA"},
        {"peft_type": "LORA", "r": None, "lora_alpha": None, "rank_pattern": None},
    ):
        config = config_from(settings_)
        assert (config.r, config.lora_alpha, config.bias) == (default.r, default.lora_alpha, default.bias)
        assert config.init_lora_weights is default.init_lora_weights
        assert (config.base_model, config.target_modules, config.rank_pattern) == (None, (), {})
        assert not config.changes_base


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (b"\xff\xfe", "config_not_json", "not JSON"),
        (b"{'r': 8}", "config_not_json", "not JSON"),
        (b"[1]", "config_not_json", "no JSON object"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "lfs_pointer", "git lfs pull"),
        (b'{"peft_type": "LORA", "r": 8, "r": 16}', "duplicate_key", "r occurs twice"),
        (b'{"base_model": "x"}', "no_peft_type", "save_pretrained"),
        (b'{"peft_type": "LORA", "r": "8"}', "bad_config", "r in adapter_config.json"),
        (b'{"peft_type": "LORA", "r": true}', "bad_config", "whole number"),
        (b'{"peft_type": "LORA", "r": 0}', "bad_config", "above 0"),
        (b'{"peft_type": "LORA", "lora_alpha": 1e999}', "bad_config", "lora_alpha"),
        (b'{"peft_type": "LORA", "rank_pattern": {"q": 1.5}}', "bad_config", "rank_pattern"),
        (b'{"peft_type": "LORA", "alpha_pattern": ["q"]}', "bad_config", "alpha_pattern"),
        (b'{"peft_type": "LORA", "use_dora": "yes"}', "bad_config", "use_dora"),
        (b'{"peft_type": "LORA", "target_modules": {"q": 1}}', "bad_config", "target_modules"),
        (b'{"peft_type": "LORA", "base_model_name_or_path": "a\\u0000b"}', "bad_config", "base_model_name_or_path"),
        (b'{"peft_type": "LORA", "rank_pattern": {"(q": 1}}', "bad_pattern", "(q"),
    ],
)
def test_a_broken_config_is_refused_by_its_cause(text: bytes, code: str, said: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse_config(text)
    assert caught.value.code == code
    assert said in str(caught.value)


def test_the_fields_of_other_methods_are_not_taken_for_loras() -> None:
    config = config_from({"peft_type": "ADALORA", "rank_pattern": {"q": [True, False]}, "base_model_name_or_path": "x"})
    assert (config.peft_type, config.base_model, config.rank_pattern) == ("ADALORA", "x", {})


def test_unknown_keys_are_left_alone_and_variants_are_named() -> None:
    found = config_from(
        {"peft_type": "LORA", "from_the_future": {"x": [1]}, "use_qalora": True, "enable_lora": [True, False]}
    )
    assert found.variants == ("enable_lora", "use_qalora")


# --- patterns ---------------------------------------------------------------------------------------------------------

NAMES = st.lists(st.sampled_from(["model", "layers", "0", "11", "q_proj", "k", "qk"]), min_size=1, max_size=5).map(
    ".".join
)
PIECES = [
    "model",
    "layers",
    "q_proj",
    "k",
    "q",
    ".",
    r"\.",
    r"\d+",
    ".*",
    "[0-9]",
    "^",
    "$",
    "(q|k)",
    "(?:qk)?",
    "|",
    "q?",
]


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join), max_size=4), NAMES)
def test_patterns_mean_what_they_mean_to_peft(patterns: list[str], module: str) -> None:
    ranks = {pattern: 10 + i for i, pattern in enumerate(patterns)}
    config = config_from({"peft_type": "LORA", "r": 3, "rank_pattern": ranks})
    assert rank_of(config, module) == ranks.get(get_pattern_key(ranks.keys(), module), 3)


@pytest.mark.parametrize("rslora", [False, True])
def test_rank_and_scaling_are_those_of_pefts_layers(rslora: bool) -> None:
    lora = LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["q_proj", "v_proj", "down_proj", "embed_tokens"],
        rank_pattern={r"^model\.layers\.0\.self_attn\.q_proj": 2, "down_proj": 8, r"layers\.\d+\.mlp\.down_proj": 16},
        alpha_pattern={"v_proj": 32, r"self_attn\..*": 5},
        use_rslora=rslora,
    )
    model = get_peft_model(llama(), lora)
    config = config_from(json.loads(json.dumps(lora.to_dict(), default=list)))
    layers = {name: layer for name, layer in model.base_model.model.named_modules() if isinstance(layer, LoraLayer)}
    assert len(layers) == 7
    assert {rank_of(config, name) for name in layers} == {2, 4, 8}
    for name, layer in layers.items():
        assert rank_of(config, name) == layer.r["default"]
        assert scaling_of(config, name) == layer.scaling["default"]


@pytest.mark.parametrize(
    "pattern", ["(a+)+", "(a|aa)*", "(?=a)", "(?i)a", r"(a)\1", "((ab)+c)*", "(a{1,9}){1,9}", "a{9999999999}"]
)
def test_patterns_of_unbounded_work_are_refused(pattern: str) -> None:
    with pytest.raises(FormatError) as caught:
        check_pattern(pattern)
    assert caught.value.code == "bad_pattern"


def test_the_work_of_patterns_is_known_before_it_is_done() -> None:
    def steps(*patterns: str) -> int:
        return pattern_steps(config_from({"peft_type": "LORA", "rank_pattern": dict.fromkeys(patterns, 4)}), modules)

    modules = [f"model.layers.{i}.self_attn.q_proj" for i in range(200)]
    assert steps() == 0
    assert steps(*modules) < 10**7  # a rank for each module, as EVA and PEFT's conversion write
    assert steps(r"model\.layers\.\d+\.self_attn\.(q|k)_proj") < 10**6
    assert steps(".*a.*a.*a.*a.*a.*b") > 10**9
    assert steps("(m|m)" * 40) > 10**9


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rename", "ignored"),
    [
        ((".lora_", ".lora_"), None),
        (("base_model.model.", "base_model.model.base_model.model.base_model.model."), "nested"),
        (("base_model.model.", ""), "prefix"),
        (("base_model.model.", "base_model.net."), "prefix"),
        ((".weight", ".task.weight"), "adapter"),
        ((".weight", ""), "suffix"),
    ],
)
def test_keys_we_call_ignored_are_ignored_by_peft(tmp_path: Path, rename: tuple[str, str], ignored: str | None) -> None:
    model = get_peft_model(llama(), LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    model.save_pretrained(tmp_path)
    tensors = {name.replace(*rename, 1): tensor for name, tensor in load_file(tmp_path / WEIGHTS).items()}
    save_file(tensors, tmp_path / WEIGHTS)
    assert {parse_key(name).ignored for name in tensors} == {ignored}
    # PEFT starts from B = 0 when it loads, so a B that is not zero has come from the file.
    (tmp_path / CONFIG).write_text(
        (tmp_path / CONFIG).read_text().replace('"init_lora_weights": false', '"init_lora_weights": true')
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = PeftModel.from_pretrained(llama(), str(tmp_path))
    came = [bool(tensor.any()) for name, tensor in loaded.named_parameters() if "lora_B" in name]
    assert len(came) == 2
    assert set(came) == {ignored is None}


def test_a_name_left_inside_is_read_under_that_name_alone() -> None:
    key = parse_key(f"{Q0}.lora_A.task.weight")
    assert (key.module, key.part, key.adapter, key.ignored) == (
        "model.layers.0.self_attn.q_proj",
        "A",
        "task",
        "adapter",
    )
    assert parse_key("base_model.model.e.lora_embedding_A.task").adapter == "task"
    assert parse_key("base_model.model.q.lora_magnitude_vector.task.weight").adapter == "task"
    assert parse_key("base_model.model.score.modules_to_save.task.weight").adapter == "task"


@pytest.mark.parametrize(
    ("lora", "parts"),
    [
        ({"target_modules": ["q_proj"], "use_dora": True}, {"A", "B", "magnitude"}),
        ({"target_modules": ["q_proj"], "lora_bias": True}, {"A", "B", "B_bias"}),
        ({"target_modules": ["embed_tokens"]}, {"embedding_A", "embedding_B", "saved"}),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, {"A", "B", "saved"}),
        ({"target_modules": ["q_proj"], "trainable_token_indices": [1, 2]}, {"A", "B", "saved"}),
    ],
)
def test_every_name_that_peft_writes_is_understood(tmp_path: Path, lora: dict[str, Any], parts: set[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a bias cannot be merged, and that embeddings are saved: both as we want
        model = get_peft_model(llama(), LoraConfig(r=4, **lora))
        model.save_pretrained(tmp_path)
    names = list(load_file(tmp_path / WEIGHTS))
    keys = [parse_key(name) for name in names]
    assert {key.part for key in keys} == parts
    assert not any(key.ignored for key in keys)
    modules = {name for name, layer in model.base_model.model.named_modules() if isinstance(layer, LoraLayer)}
    assert set(group_keys(names)) == modules


def test_a_name_that_peft_reads_wins_over_one_that_it_ignores() -> None:
    good, bad = f"{Q0}.lora_A.weight", f"{Q0}.lora_A.other.weight".removeprefix("base_model.model.")
    for names in ([good, bad], [bad, good]):
        assert group_keys(names) == {"model.layers.0.self_attn.q_proj": {"A": good}}


def test_text_from_a_file_is_made_safe_to_show() -> None:
    assert printable("q_proj") == "q_proj"
    assert printable("a\x1b[2J\ud800") == r"'a\x1b[2J\ud800'"
    assert len(printable("x" * 1000)) == 120
