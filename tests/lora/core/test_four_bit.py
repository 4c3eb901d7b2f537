"""A base in four bits: near the whole one, trainable, as it was afterwards; what needs its weights is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from hub.lora.core.adapter import Adapter, UnsupportedAdapter, applied, write
from hub.lora.core.bases import Base, NeedsGpu, load
from hub.lora.core.evaluate import evaluate
from hub.lora.core.examples import Example
from hub.lora.core.losses import encode_batches, mean_loss
from hub.lora.train.loop import Recipe, train
from hub.lora.train.trainable_layers import NothingToTrain
from tests.lora.runs import ignore_progress
from tests.tiny_models import draw_weights, llama_of

EXAMPLES = [Example("first", "one"), Example("a second one", "two"), Example("third", "three and more")]
RECIPE = Recipe(rank=4, steps=12, learning_rate=1e-2)


@pytest.fixture(scope="module")
def whole(tiny_base: Base) -> Base:
    """Twice as wide as the tiny base, as a block of quantised numbers must not go over the end of a row."""
    model = llama_of(
        tiny_base.tokenizer,
        hidden_size=64,
        intermediate_size=128,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
    )
    draw_weights(model, 0.1)
    return Base("tests/wide", model.requires_grad_(False), tiny_base.tokenizer, "1" * 64)


@pytest.fixture(scope="module")
def folder(whole: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "wide"
    whole.model.save_pretrained(folder)
    whole.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def four_bit(folder: Path) -> Base:
    return load(folder, id="tests/wide", device=torch.device("cuda"), dtype=torch.float32, four_bit=True)


@pytest.fixture(scope="module")
def trained(four_bit: Base) -> Adapter:
    return train(four_bit, EXAMPLES, RECIPE, template="plain", on_progress=ignore_progress).adapter


@pytest.mark.gpu
def test_its_linear_layers_take_an_eighth_and_compute_nearly_the_same(four_bit: Base, whole: Base) -> None:
    layer = four_bit.model.model.layers[0].mlp.up_proj
    assert layer.weight.numel() * layer.weight.element_size() == 128 * 64 // 2
    ids = torch.arange(40, device=four_bit.device).view(2, 20) + 50
    with torch.inference_mode():
        rounded, exact = four_bit.model(ids).logits.cpu(), whole.model(ids.cpu()).logits
    assert float(torch.cosine_similarity(rounded.flatten(), exact.flatten(), dim=0)) > 0.95
    assert not torch.equal(rounded, exact)


@pytest.mark.gpu
def test_a_module_learns_on_it_and_it_is_as_it_was(four_bit: Base, folder: Path, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in four_bit.model.state_dict().items()}
    batches = encode_batches(four_bit, EXAMPLES, "plain")
    alone = mean_loss(four_bit, batches)
    made = train(four_bit, EXAMPLES, RECIPE, template="plain", on_progress=ignore_progress).adapter
    after = four_bit.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    with applied(four_bit.model, made):
        assert mean_loss(four_bit, batches) < 0.7 * alone
    scores = evaluate(four_bit, made, EXAMPLES, template="plain", metrics=("exact_match",), on_progress=ignore_progress)
    assert len(scores.answers) == 3
    write(made, tmp_path / "made", dtype=torch.float32)
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "made")


@pytest.mark.gpu
def test_what_was_learnt_in_four_bits_helps_the_whole_base(trained: Adapter, whole: Base) -> None:
    batches = encode_batches(whole, EXAMPLES, "plain")
    alone = mean_loss(whole, batches)
    with applied(whole.model, trained):
        assert mean_loss(whole, batches) < 0.8 * alone


@pytest.mark.gpu
@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(rank=4, steps=2, dora=True),
        Recipe(rank=4, steps=2, init="pissa"),
        Recipe(rank=4, steps=2, init="orthogonal"),
    ],
    ids=["dora", "pissa", "orthogonal"],
)
def test_what_needs_the_weights_is_refused(four_bit: Base, recipe: Recipe) -> None:
    with pytest.raises(NothingToTrain, match="Load the base whole"):
        train(four_bit, EXAMPLES, recipe, template="plain", on_progress=ignore_progress)


@pytest.mark.gpu
def test_a_dora_cannot_be_applied_to_it(four_bit: Base, trained: Adapter) -> None:
    magnitudes = {path: replace(pair, magnitude=torch.ones(len(pair.b))) for path, pair in trained.pairs.items()}
    with (
        pytest.raises(UnsupportedAdapter, match="four bits"),
        applied(four_bit.model, replace(trained, pairs=magnitudes)),
    ):
        pass


def test_a_worker_without_a_gpu_says_so(folder: Path) -> None:
    with pytest.raises(NeedsGpu, match="Leave load_in_4bit out"):
        load(folder, id="tests/wide", device=torch.device("cpu"), four_bit=True)
