"""The whole way on an encoder-decoder: a random T5, its losses and answers against transformers' own, composition against `lorahub`."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from lorahub.algorithm import default_get_loss, get_score
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration

from hub.lora.compose.composition import compose_at_weights
from hub.lora.compose.forms import Mixture
from hub.lora.compose.gradient import GradientSearch, compose_by_gradient
from hub.lora.compose.population import mean_losses
from hub.lora.compose.search import Search, compose
from hub.lora.core.adapter import Adapter, applied, read, write
from hub.lora.core.bases import Base, load
from hub.lora.core.evaluate import evaluate
from hub.lora.core.examples import IGNORED, Example, encode, generate, target_losses
from hub.lora.core.losses import encode_batches, mean_loss
from hub.lora.train.loop import Recipe, train
from tests.lora.runs import ignore_progress
from tests.tiny_models import byte_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

EXAMPLES = [Example("one", "eins"), Example("twenty", "zwanzig"), Example("a longer one", "ja")]
WEIGHTS = [0.7, -0.4]


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Random weights, from the folder that a user would register."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    model = T5ForConditionalGeneration(config)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("t5")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load(folder, id="tests/t5", device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def folders(t5: Base, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        config = LoraConfig(
            r=4, lora_alpha=4, target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM", init_lora_weights=False
        )
        peft = get_peft_model(copy.deepcopy(t5.model), config)
        found.append(tmp_path_factory.mktemp("modules") / f"module{seed}")
        peft.save_pretrained(found[-1])
    return found


@pytest.fixture(scope="module")
def modules(folders: list[Path]) -> list[Adapter]:
    return [read(folder) for folder in folders]


def test_losses_are_those_of_the_model_given_each_example_alone(t5: Base) -> None:
    losses = target_losses(t5.model, encode(t5.tokenizer, EXAMPLES, "plain"))
    for example, loss in zip(EXAMPLES, losses.tolist(), strict=True):
        prompt = torch.tensor([t5.tokenizer(f"{example.input}\nAnswer:")["input_ids"]])
        target = torch.tensor([[*t5.tokenizer(f" {example.target}")["input_ids"], t5.tokenizer.eos_token_id]])
        with torch.inference_mode():
            assert loss == pytest.approx(t5.model(input_ids=prompt, labels=target).loss.item(), rel=1e-5)


def test_answers_are_those_of_each_prompt_alone(t5: Base) -> None:
    inputs = [example.input for example in EXAMPLES]
    together = generate(t5, inputs, "plain", max_new_tokens=8, batch_size=3)
    for text, answer in zip(inputs, together, strict=True):
        prompt = torch.tensor([t5.tokenizer(f"{text}\nAnswer:")["input_ids"]])
        output = t5.model.generate(input_ids=prompt, max_new_tokens=8, do_sample=False)
        assert answer == t5.tokenizer.decode(output[0], skip_special_tokens=True).strip()
    assert len(set(together)) > 1
    scores = evaluate(
        t5,
        None,
        [Example(text, answer) for text, answer in zip(inputs, together, strict=True)],
        template="plain",
        metrics=("exact_match", "target_loss"),
        max_new_tokens=8,
        on_progress=ignore_progress,
    )
    assert scores.values["exact_match"] == [1.0, 1.0, 1.0]


def test_a_composition_is_what_lorahub_computes(t5: Base, folders: list[Path], modules: list[Adapter]) -> None:
    """Its own get_score, on the kind of model that it was written for."""
    peft = PeftModel.from_pretrained(copy.deepcopy(t5.model), folders[0]).eval()
    state = {folder.name: load_file(folder / "adapter_model.safetensors") for folder in folders}
    prompts = t5.tokenizer([f"{example.input}\nAnswer:" for example in EXAMPLES], padding=True, padding_side="right")
    targets = [[*t5.tokenizer(f" {example.target}")["input_ids"], t5.tokenizer.eos_token_id] for example in EXAMPLES]
    longest = max(map(len, targets))
    labels = [target + [IGNORED] * (longest - len(target)) for target in targets]
    columns = {"input_ids": prompts["input_ids"], "attention_mask": prompts["attention_mask"], "labels": labels}
    dataset = Dataset.from_dict({**columns, "input": [example.input for example in EXAMPLES]})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'pin_memory' argument is set as true")
        theirs = get_score(WEIGHTS, peft, state, dataset, 3, default_get_loss, lambda _: 0.0) * len(EXAMPLES)
    mixture = Mixture(modules, "product", t5.device)
    batches = encode_batches(t5, EXAMPLES, "plain")
    with applied(t5.model, Adapter("composition", {}, mixture.pairs(WEIGHTS))):
        assert mean_loss(t5, batches) == pytest.approx(theirs, rel=1e-5)
    assert mean_losses(t5, mixture, [WEIGHTS], batches)[0] == pytest.approx(theirs, rel=1e-5)


def test_searches_lower_the_loss_and_stock_peft_loads_the_result(
    t5: Base, modules: list[Adapter], tmp_path: Path
) -> None:
    batches = encode_batches(t5, EXAMPLES, "plain")
    alone = mean_loss(t5, batches)
    searched = compose(
        t5, modules, EXAMPLES, Search(form="sum", template="plain", budget=20, l1=0.0), on_progress=ignore_progress
    )
    by_gradient = compose_by_gradient(
        t5,
        modules,
        EXAMPLES,
        GradientSearch(form="sum", template="plain", per_layer=True, budget=20, l1=0.0),
        on_progress=ignore_progress,
    )
    for found in (searched, by_gradient):
        assert found.loss is not None
        assert found.loss < alone
    write(by_gradient.adapter, tmp_path / "result", dtype=torch.float32)
    fresh = AutoModelForSeq2SeqLM.from_pretrained(t5.model.config._name_or_path)
    peft = PeftModel.from_pretrained(fresh, tmp_path / "result").eval()
    assert peft.peft_config["default"].task_type == "SEQ_2_SEQ_LM"
    assert target_losses(peft, batches[0]).mean().item() == pytest.approx(
        target_losses_with(t5, by_gradient.adapter, EXAMPLES), rel=1e-4
    )


def target_losses_with(base: Base, adapter: Adapter, examples: list[Example]) -> float:
    with applied(base.model, adapter), torch.inference_mode():
        return float(target_losses(base.model, encode(base.tokenizer, examples, "plain")).mean())


def test_training_learns(t5: Base) -> None:
    recipe = Recipe(rank=4, target_modules="all-linear", steps=60, learning_rate=2e-2)
    trained = train(t5, EXAMPLES, recipe, template="plain", on_progress=ignore_progress)
    assert trained.losses[-1] < 0.9 * trained.losses[0]
    assert trained.adapter.config["task_type"] == "SEQ_2_SEQ_LM"
    batches = encode_batches(t5, EXAMPLES, "plain")
    with applied(t5.model, trained.adapter):
        assert mean_loss(t5, batches) < 0.9 * trained.losses[0]
    compose_at_weights(t5, [trained.adapter], [1.0], form="sum")
