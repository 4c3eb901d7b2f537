"""What other tools wrote becomes a PEFT adapter that computes the same, or is refused by name; pickles run nothing.

For each style a PEFT adapter is written as that tool would write it and converted back: the tensors must be the same bits. Where PEFT has
no such layer (merged ones), the tool's own forward pass, as its source has it, is the reference.
"""

import contextlib
import io
import json
import os
import pickle
import random
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2LMHeadModel

from hub.lora.convert.convert import Converted, convert
from hub.lora.convert.errors import FactMissing, NotConvertible
from hub.lora.convert.read_pickle import UnreadablePickle, read_pickle
from hub.lora.core.errors import LoraError
from tests import tiny_models
from tests.tiny_models import llama

# PEFT 0.21 asks transformers 5 for an attribute that has been renamed; and it says that it turns fan_in_fan_out on for a Conv1D.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning", "ignore:fan_in_fan_out")

PREFIX = "base_model.model."
BASE = "org/base"
IDS = torch.arange(12).reshape(2, 6)
Tensors = dict[str, Tensor]


def gpt2() -> GPT2LMHeadModel:
    return tiny_models.gpt2(initializer_range=0.3)


class Attention(nn.Module):
    """The names of diffusers' attention, and what it computes with a LoRA of its old processors."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q = nn.Linear(8, 8)
        self.to_out = nn.ModuleList([nn.Linear(8, 8), nn.Dropout(0.0)])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.to_out[0](torch.tanh(self.to_q(x)))
        return out


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down_blocks = nn.ModuleList([Attention(), Attention()])
        self.conv_in = nn.Conv2d(2, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_blocks[1](self.down_blocks[0](x))
        return out


def trained(base: nn.Module, **lora: Any) -> tuple[PeftModel, Tensors, dict[str, Any]]:
    """An adapter with B drawn at random: the model, and what save_pretrained writes."""
    model = get_peft_model(
        base, LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"], **lora})
    )
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.3)
    tensors = {name: tensor.clone() for name, tensor in state_of(model).items()}
    return model.eval(), tensors, json.loads(json.dumps(model.peft_config["default"].to_dict(), default=list))


def state_of(model: PeftModel) -> Tensors:
    from peft import get_peft_model_state_dict  # noqa: PLC0415 - beside its only use

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensors: Tensors = get_peft_model_state_dict(model)
    return tensors


def loaded(made: Converted, base: nn.Module, folder: Path) -> PeftModel:
    """Stock PEFT on the files; it warns of any tensor that it does not find, which fails the test."""
    folder.mkdir()
    save_file(made.tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(made.config))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys.*")
        return PeftModel.from_pretrained(base, str(folder)).eval()


def same(one: Tensors, other: Tensors) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)


def plain(tensors: Tensors) -> Tensors:
    return {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}


# --- each style there and back ----------------------------------------------------------------------------------------


def as_loralib(tensors: Tensors) -> Tensors:
    return {name.removesuffix(".weight") if "lora_" in name else name: t for name, t in plain(tensors).items()}


def as_mlx(tensors: Tensors) -> Tensors:
    leaves = {"lora_A.weight": "lora_a", "lora_B.weight": "lora_b", "lora_magnitude_vector": "m"}
    found = {}
    for name, tensor in plain(tensors).items():
        module, _, leaf = name.partition(".lora_")
        found[f"{module}.{leaves['lora_' + leaf]}"] = tensor.T.contiguous() if tensor.ndim == 2 else tensor
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loralib_there_and_back(tmp_path: Path, dtype: torch.dtype) -> None:
    model, tensors, _ = trained(llama())
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    for wrapped in ("", "module."):
        made = convert({wrapped + name: t for name, t in as_loralib(tensors).items()}, base=BASE, alpha=6)
        same(made.tensors, tensors)
    assert (made.style, made.config["r"], made.config["lora_alpha"], made.config["base_model_name_or_path"]) == (
        "loralib",
        4,
        6,
        BASE,
    )
    if dtype == torch.float32:
        assert torch.equal(loaded(made, llama(), tmp_path / "x")(IDS).logits, model(IDS).logits)


def test_loralib_with_a_classifier_of_its_own() -> None:
    _, tensors, _ = trained(llama())
    head = {
        "classifier.dense.weight": torch.ones(2, 2),
        "classifier.dense.bias": torch.ones(2),
        "lm_head.weight": torch.ones(40, 16),
    }
    made = convert({**as_loralib(tensors), **head}, base=BASE, alpha=6)
    assert made.config["modules_to_save"] == ["classifier", "lm_head"]
    same(
        {name: t for name, t in made.tensors.items() if "lora" not in name},
        {PREFIX + name: t for name, t in head.items()},
    )


def grouped(base: nn.Module, tensors: Tensors, enable_lora: list[bool], scaling: float) -> Callable[[Tensor], Tensor]:
    """The base with loralib's MergedLinear.forward added to every c_attn."""

    def add(a: Tensor, b: Tensor) -> Callable[..., Tensor]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            after_a = functional.linear(inputs[0], a)
            after_b = functional.conv1d(after_a.mT, b.reshape(*b.shape[:2], 1), groups=sum(enable_lora)).mT
            padded = output.new_zeros(*output.shape[:-1], len(enable_lora), output.shape[-1] // len(enable_lora))
            padded[..., enable_lora, :] = after_b.reshape(*after_b.shape[:-1], sum(enable_lora), -1)
            return output + padded.flatten(-2) * scaling

        return hook

    for name, layer in base.named_modules():
        if name.endswith("c_attn"):
            layer.register_forward_hook(add(tensors[f"{name}.lora_A"], tensors[f"{name}.lora_B"]))
    return lambda ids: base(ids).logits


@pytest.mark.parametrize("lanes", [[True, False, True], [True, True, True], [False, True, False]])
@pytest.mark.parametrize("old_peft", [False, True])
def test_merged_layers_become_pairs_of_the_whole_layer(tmp_path: Path, lanes: list[bool], old_peft: bool) -> None:
    torch.manual_seed(1)
    count, rank = sum(lanes), 2
    fused = {}
    for layer in range(2):
        name = f"transformer.h.{layer}.attn.c_attn"
        fused[f"{name}.lora_A"] = torch.randn(count * rank, 16) / 4
        fused[f"{name}.lora_B"] = torch.randn(count * 16, rank) / 4
    if old_peft:
        tensors = {f"{PREFIX}{name}.weight": t.unsqueeze(-1) if "B" in name[-1] else t for name, t in fused.items()}
        config = {
            "peft_type": "LORA",
            "r": rank,
            "lora_alpha": 3,
            "enable_lora": lanes,
            "target_modules": ["c_attn"],
            "fan_in_fan_out": True,
        }
        made = convert(tensors, config, base=BASE)
        assert "enable_lora" not in made.config
    else:
        made = convert(fused, base=BASE, alpha=3, enable_lora=lanes)
    assert (made.config["r"], made.config["lora_alpha"]) == (count * rank, 3 * count)
    expected = grouped(gpt2(), fused, lanes, 3 / rank)(IDS)
    assert torch.allclose(loaded(made, gpt2(), tmp_path / "x")(IDS).logits, expected, atol=1e-5)
    assert not torch.allclose(gpt2()(IDS).logits, expected, atol=1e-3)


@pytest.mark.parametrize("dora", [False, True])
def test_mlx_there_and_back(tmp_path: Path, dora: bool) -> None:
    model, tensors, _ = trained(llama(), use_dora=dora)
    config = {
        "fine_tune_type": "dora" if dora else "lora",
        "model": BASE,
        "lora_parameters": {"rank": 4, "scale": 1.5, "alpha": 16, "dropout": 0.1},
    }
    made = convert(as_mlx(tensors), config)
    same(made.tensors, tensors)
    written = made.config
    assert (written["r"], written["lora_alpha"], written["use_dora"], written["base_model_name_or_path"]) == (
        4,
        6,
        dora,
        BASE,
    )
    assert (written["task_type"], written["lora_dropout"]) == ("CAUSAL_LM", 0.1)
    assert torch.allclose(loaded(made, llama(), tmp_path / "x")(IDS).logits, model(IDS).logits, atol=1e-6)


def test_mlx_layers_of_different_ranks_keep_the_scale() -> None:
    _, tensors, _ = trained(llama(), rank_pattern={"v_proj": 2}, alpha_pattern={"v_proj": 3})
    made = convert(as_mlx(tensors), {"model": BASE, "lora_parameters": {"scale": 1.5}})
    same(made.tensors, tensors)
    assert (made.config["r"], made.config["lora_alpha"]) == (4, 6)
    assert set(made.config["rank_pattern"].values()) == {2}
    assert set(made.config["alpha_pattern"].values()) == {3}


def diffusers_names(form: str) -> Callable[[str], str]:
    def old(name: str) -> str:
        module, _, leaf = name.partition(".lora_")
        layer = module.replace("to_out.0", "to_out").rpartition(".")
        return f"{layer[0]}.processor.{layer[2]}_lora.{'down' if leaf[0] == 'A' else 'up'}.weight"

    def middle(name: str) -> str:
        return "unet." + name.replace("lora_A", "lora.down").replace("lora_B", "lora.up")

    return {"old": old, "middle": middle, "new": lambda name: f"unet.{name}"}[form]


@pytest.mark.parametrize("form", ["old", "middle", "new"])
@pytest.mark.parametrize("said", ["nothing", "alphas", "asked"])
def test_diffusers_there_and_back(tmp_path: Path, form: str, said: str) -> None:
    alpha = 4 if said == "nothing" else 6  # what the file does not scale is added as it is
    model, tensors, _ = trained(Blocks(), lora_alpha=alpha, target_modules=["to_q", "to_out.0"])
    rename = diffusers_names(form)
    theirs = {rename(name): tensor for name, tensor in plain(tensors).items()}
    if said == "alphas":
        theirs |= {
            f"{name.removesuffix('.down.weight').removesuffix('.lora_A.weight')}.alpha": torch.tensor(6.0)
            for name in theirs
            if "down" in name.split(".")[-2] or "lora_A" in name
        }
    made = convert(theirs, base=BASE, alpha=6 if said == "asked" else None)
    same(made.tensors, tensors)
    assert made.config["lora_alpha"] == alpha
    x = torch.randn(3, 8)
    assert torch.equal(loaded(made, Blocks(), tmp_path / "x")(x), model(x))


def test_diffusers_text_encoder_convolution_and_the_header_of_today() -> None:
    down, up = torch.randn(2, 8), torch.randn(8, 2)
    for name in (
        "text_model.layers.0.self_attn.to_q_lora",
        "text_encoder.text_model.layers.0.self_attn.q_proj.lora_linear_layer",
    ):
        made = convert({f"{name}.down.weight": down, f"{name}.up.weight": up}, base=BASE)
        module = f"{PREFIX}text_model.layers.0.self_attn.q_proj"
        same(made.tensors, {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up})
    _, tensors, config = trained(Blocks(), target_modules=["conv_in"], use_rslora=True)
    header = {"lora_adapter_metadata": json.dumps({f"unet.{name}": value for name, value in config.items()})}
    made = convert({f"unet.{name}": t for name, t in plain(tensors).items()}, None, header, base=BASE)
    same(made.tensors, tensors)
    assert made.config["lora_alpha"] == pytest.approx(6 * 4**0.5), "alpha/sqrt(r) said as alpha/r"


def test_one_component_of_a_pipeline_is_chosen() -> None:
    pair = {"lora.down.weight": torch.ones(2, 8), "lora.up.weight": torch.ones(8, 2)}
    both = {f"{part}.x.{name}": t for part in ("unet", "text_encoder") for name, t in pair.items()}
    made = convert(both, base=BASE, component="text_encoder")
    assert set(made.tensors) == {f"{PREFIX}x.lora_A.weight", f"{PREFIX}x.lora_B.weight"}
    with pytest.raises(FactMissing, match=r"several parts of a pipeline \(text_encoder, unet\).*`component`"):
        convert(both, base=BASE)
    with pytest.raises(NotConvertible, match="no component vae"):
        convert(both, base=BASE, component="vae")


# --- PEFT's own names, from a pickle or unreadable --------------------------------------------------------------------


def test_a_pickle_of_anything_that_peft_writes_stays_as_it_is(tmp_path: Path) -> None:
    variants: list[dict[str, Any]] = [
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"use_rslora": True, "rank_pattern": {"v_proj": 2}},
    ]
    for number, lora in enumerate(variants):
        model, tensors, config = trained(llama(), **lora)
        torch.save(tensors, tmp_path / "adapter_model.bin")
        made = convert(read_pickle(tmp_path / "adapter_model.bin"), {**config, "base_model_name_or_path": BASE})
        same(made.tensors, tensors)
        assert made.config == {**config, "base_model_name_or_path": BASE}
        assert torch.equal(loaded(made, llama(), tmp_path / str(number))(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda name: name.removeprefix(PREFIX),
        lambda name: PREFIX * 2 + name,
        lambda name: name.replace(".weight", ".default.weight"),
    ],
)
def test_names_that_peft_would_not_read_are_made_whole(spoilt: Callable[[str], str]) -> None:
    _, tensors, config = trained(llama())
    made = convert({spoilt(name): t for name, t in tensors.items()}, config, base=BASE)
    same(made.tensors, tensors)


# --- refusals ---------------------------------------------------------------------------------------------------------

PAIR = {"a.q_proj.lora_A": torch.ones(2, 8), "a.q_proj.lora_B": torch.ones(8, 2)}
FUSED = {"a.c_attn.lora_A": torch.ones(4, 8), "a.c_attn.lora_B": torch.ones(16, 2)}
MLX = {"a.q_proj.lora_a": torch.ones(8, 2), "a.q_proj.lora_b": torch.ones(2, 8)}
SCALE = {"lora_parameters": {"scale": 2.0, "rank": 2}}
UNET = {"unet.a.to_q.lora.down.weight": torch.ones(2, 8), "unet.a.to_q.lora.up.weight": torch.ones(8, 2)}
OLD = {f"{PREFIX}a.lora_A.weight": torch.ones(4, 8), f"{PREFIX}a.lora_B.weight": torch.ones(16, 2, 1)}
OLD_CONFIG = {"peft_type": "LORA", "r": 2, "enable_lora": [True, False, True]}

REFUSED: dict[str, tuple[Tensors, dict[str, Any] | None, dict[str, Any], type[LoraError], str]] = {
    "no base": (PAIR, None, {"base": None, "alpha": 1}, FactMissing, "name it as `base`"),
    "loralib without alpha": (PAIR, None, {}, FactMissing, "give the one it was trained with as `alpha`"),
    "merged lanes unknown": (
        FUSED,
        None,
        {"alpha": 1},
        FactMissing,
        r"a\.c_attn is a merged layer \(4 rows .* `enable_lora`",
    ),
    "other lanes": (FUSED, None, {"alpha": 1, "enable_lora": [True] * 3}, NotConvertible, r"a\.c_attn .* not 3 lanes"),
    "half a pair": (
        {"a.q.lora_A": torch.ones(2, 8)},
        None,
        {"alpha": 1},
        NotConvertible,
        r"a\.q has only the half lora_A",
    ),
    "no matrix": (
        {"a.lora_A": torch.ones(2), "a.lora_B": torch.ones(2)},
        None,
        {"alpha": 1},
        NotConvertible,
        "a has a first matrix",
    ),
    "a whole model": (
        {**PAIR, "a.q_proj.weight": torch.ones(8, 8)},
        None,
        {"alpha": 1},
        NotConvertible,
        r"a\.q_proj\.weight is a weight of the base",
    ),
    "a bias": (
        {**PAIR, "a.q_proj.bias": torch.ones(8)},
        None,
        {"alpha": 1},
        NotConvertible,
        r"a\.q_proj\.bias is a trained bias",
    ),
    "a parameter above": (
        {**PAIR, "a.gate": torch.ones(8)},
        None,
        {"alpha": 1},
        NotConvertible,
        r"a\.gate is a parameter of a module that holds",
    ),
    "an embedding of loralib": (
        {"wte.lora_A": torch.ones(2, 8), "wte.lora_B": torch.ones(8, 2)},
        None,
        {"alpha": 1},
        NotConvertible,
        "wte looks like an embedding",
    ),
    "MLX without its config": (
        MLX,
        None,
        {},
        FactMissing,
        r"lora_parameters\.scale.*`alpha`, which is scale times rank",
    ),
    "MLX of the first releases": (
        MLX,
        {"lora_parameters": {"scale": 10.0, "alpha": 16, "rank": 8}},
        {},
        FactMissing,
        "scale 10.0 and alpha 16",
    ),
    "MLX experts": (
        {"a.lora_a": torch.ones(4, 8), "a.lora_b": torch.ones(2, 8, 2)},
        SCALE,
        {},
        NotConvertible,
        r"a has a first matrix of shape \[4, 8\] and a second of \[2, 8, 2\]",
    ),
    "MLX of two ranks": (
        {"a.lora_a": torch.ones(8, 4), "a.lora_b": torch.ones(2, 8)},
        SCALE,
        {},
        NotConvertible,
        "which is not a pair",
    ),
    "an MLX embedding": (
        {"embed_tokens.lora_a": torch.ones(8, 2), "embed_tokens.lora_b": torch.ones(2, 8)},
        SCALE,
        {},
        NotConvertible,
        "embed_tokens looks like an embedding",
    ),
    "MLX with a norm": (
        {**MLX, "a.norm.weight": torch.ones(8)},
        SCALE,
        {},
        NotConvertible,
        r"a\.norm\.weight is not a LoRA matrix",
    ),
    "magnitudes here and there": (
        {**MLX, "a.q_proj.m": torch.ones(8), "b.lora_a": torch.ones(8, 2), "b.lora_b": torch.ones(2, 8)},
        SCALE,
        {},
        NotConvertible,
        "Some layers have DoRA's magnitude",
    ),
    "kohya": (
        {"lora_unet_a_b.lora_down.weight": torch.ones(2, 8)},
        None,
        {},
        NotConvertible,
        "kohya's .* have _ where the model has dots",
    ),
    "a pair that does not multiply": (
        {**UNET, "unet.a.to_q.lora.up.weight": torch.ones(8, 3)},
        None,
        {},
        NotConvertible,
        r"a\.to_q has down \[2, 8\] and up \[8, 3\]",
    ),
    "an alpha of nothing": (
        {**UNET, "unet.b.alpha": torch.ones(())},
        None,
        {},
        NotConvertible,
        r"unet\.b\.alpha is the alpha of no pair",
    ),
    "a norm of diffusers": (
        {**UNET, "unet.norm.weight": torch.ones(8)},
        None,
        {},
        NotConvertible,
        r"unet\.norm\.weight is not half",
    ),
    "a plain layer where all are merged": (
        {f"{PREFIX}a.lora_A.weight": torch.ones(2, 8), f"{PREFIX}a.lora_B.weight": torch.ones(8, 2, 1)},
        OLD_CONFIG,
        {},
        NotConvertible,
        "not 2 lanes",
    ),
    "merged with biases": (OLD, {**OLD_CONFIG, "bias": "all"}, {}, NotConvertible, "trained biases"),
    "lanes that are no list": (
        OLD,
        {**OLD_CONFIG, "enable_lora": 3},
        {},
        NotConvertible,
        "enable_lora in adapter_config.json",
    ),
    "PEFT without its config": (OLD, None, {}, NotConvertible, "adapter_config.json is not PEFT's: .*peft_type"),
    "two adapters in one": (
        {f"x.lora_A.{name}.weight": torch.ones(2, 8) for name in "ab"},
        {"peft_type": "LORA"},
        {},
        NotConvertible,
        "more than one adapter",
    ),
    "no LoRA at all": (
        {"model.action.alpha": torch.ones(())},
        None,
        {},
        NotConvertible,
        r"None of the 1 tensors .* begin with model\.action\.alpha",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_mapped_is_refused_by_name(name: str) -> None:
    tensors, config, facts, error, words = REFUSED[name]
    with pytest.raises(error, match=words) as caught:
        convert(tensors, config, **{"base": BASE, **facts})
    assert str(caught.value).endswith(".")


# --- pickles ----------------------------------------------------------------------------------------------------------


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_malicious_pickle_runs_nothing_and_says_what_it_asked_for(tmp_path: Path) -> None:
    proof = tmp_path / "pwned"
    torch.save({"x.lora_A": torch.ones(2), "y": Evil(proof)}, tmp_path / "zip.bin")
    torch.save({"y": Evil(proof)}, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.bin").write_bytes(pickle.dumps({"y": Evil(proof)}, protocol=2))
    for name in ("zip.bin", "old.bin", "bare.bin"):
        with pytest.raises(
            UnreadablePickle, match=rf"{name} asks for \w+\.mkdir, which is not a tensor; nothing of it was run"
        ):
            read_pickle(tmp_path / name)
        assert not proof.exists()
    torch.load(tmp_path / "zip.bin", weights_only=False)
    assert proof.exists(), "it would have, elsewhere"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_pickles_are_unreadable_and_nothing_else(tmp_path: Path) -> None:
    source = random.Random(0)
    for zipped in (True, False):
        kept = io.BytesIO()
        torch.save({"a.lora_A": torch.randn(4, 4), "b": torch.randn(3)}, kept, _use_new_zipfile_serialization=zipped)
        sound = kept.getvalue()
        for _ in range(150):
            spoilt = bytearray(sound[: source.randrange(len(sound))] if source.random() < 0.3 else sound)
            for _ in range(source.randrange(1, 4)):
                if spoilt:
                    spoilt[source.randrange(len(spoilt))] = source.randrange(256)
            path = tmp_path / "x.bin"
            path.write_bytes(spoilt)
            with contextlib.suppress(UnreadablePickle):
                assert all(isinstance(tensor, Tensor) for tensor in read_pickle(path).values())


def test_a_pickle_that_grows_when_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, path)
    with pytest.raises(UnreadablePickle, match="far more numbers than it has bytes"):
        read_pickle(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data/0", bytes(1 << 22))
    with pytest.raises(UnreadablePickle, match="is packed"):
        read_pickle(path)


@pytest.mark.parametrize("held", [[torch.ones(2)], {}, {"epoch": 3}, {"a": {"b": torch.ones(2)}}, {1: torch.ones(2)}])
def test_a_pickle_of_other_things_is_refused(tmp_path: Path, held: Any) -> None:
    torch.save(held, tmp_path / "x.bin")
    with pytest.raises(UnreadablePickle, match=r"holds no named tensors|is not a plain tensor"):
        read_pickle(tmp_path / "x.bin")


def test_a_state_dict_within_is_found_and_shared_memory_is_parted(tmp_path: Path) -> None:
    shared = torch.randn(4, 4)
    torch.save({"model_state_dict": {"a.lora_A": shared, "b.lora_A": shared, "c": shared.T}}, tmp_path / "x.bin")
    found = read_pickle(tmp_path / "x.bin")
    save_file(found, tmp_path / "x.safetensors")
    same(load_file(tmp_path / "x.safetensors"), {"a.lora_A": shared, "b.lora_A": shared, "c": shared.T.contiguous()})
