"""hub.lora.train: it learns, stock PEFT agrees with what it made, and the base never notices."""

import copy
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import GPT2Config, GPT2LMHeadModel

from hub.lora.adapter import Adapter, applied, write
from hub.lora.bases import Base
from hub.lora.compose import encoded, mean_loss
from hub.lora.examples import Example, generate
from hub.lora.train import NothingToTrain, TrainingDiverged, train_lora
from tests.lora.conftest import byte_tokenizer

# PEFT 0.21 asks a transformers 5.23 model for a property by its deprecated name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

EXAMPLES = [Example(f"say {word}", word[:2]) for word in ("alpha", "beta", "gamma", "delta", "epsilon")]


def ignore_progress(step: int, total: int, values: dict[str, float]) -> None:
    pass


def train(base: Base, examples: Sequence[Example] = EXAMPLES, **changes: Any) -> Adapter:
    settings: dict[str, Any] = {
        "template": "plain",
        "rank": 4,
        "alpha": 8,
        "target_modules": "all-linear",
        "steps": 6,
        "learning_rate": 1e-2,
        "batch_size": 3,
        "seed": 0,
        "on_progress": ignore_progress,
    }
    return train_lora(base, examples, **settings | changes)


def loss_of(base: Base, adapter: Adapter | None) -> float:
    with applied(base.model, adapter):
        return mean_loss(base, encoded(base, EXAMPLES, "plain"))


def digest(adapter: Adapter, folder: Path) -> str:
    write(adapter, folder, dtype=torch.float32)
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.iterdir()))).hexdigest()


@contextmanager
def unchanged(base: Base) -> Iterator[None]:
    """Fails if after the block the base differs in anything: weights, layers, hooks, modes, random state, what it computes."""
    tokens = torch.tensor([[1, 2, 3]])
    before = {key: tensor.clone() for key, tensor in base.model.state_dict().items()}
    layers = dict(base.model.named_modules())
    logits = base.model(tokens).logits
    random_state = torch.get_rng_state()
    yield
    after = base.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in after.items())
    assert dict(base.model.named_modules()) == layers
    assert not any(layer._forward_hooks or layer.training for layer in layers.values())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in base.model.parameters())
    assert not hasattr(base.model, "peft_config")
    assert torch.equal(base.model(tokens).logits, logits)
    assert torch.equal(torch.get_rng_state(), random_state)


def test_it_learns_the_examples_and_leaves_the_base_as_it_was(tiny_base: Base) -> None:
    heard: list[dict[str, float]] = []
    with unchanged(tiny_base):
        trained = train(
            tiny_base, steps=80, batch_size=5, rank=8, alpha=16, on_progress=lambda *event: heard.append(event[2])
        )
    assert loss_of(tiny_base, trained) < 0.2 * loss_of(tiny_base, None)
    assert heard[0]["loss"] == pytest.approx(loss_of(tiny_base, None), rel=1e-4), "B starts at zero"
    assert len(heard) == 80
    with applied(tiny_base.model, trained):
        answers = generate(tiny_base, [example.input for example in EXAMPLES], "plain", max_new_tokens=4, batch_size=5)
    assert answers == [example.target for example in EXAMPLES]


def test_the_rate_rises_over_the_warm_up_and_then_falls(tiny_base: Base) -> None:
    rates: list[float] = []
    train(
        tiny_base,
        steps=10,
        warmup=0.2,
        learning_rate=1.0e-3,
        on_progress=lambda *event: rates.append(event[2]["learning_rate"]),
    )
    expected = [0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    assert rates == pytest.approx([1e-3 * share for share in expected])


def test_stock_peft_computes_the_same_with_what_was_trained(tiny_base: Base, tmp_path: Path) -> None:
    trained = train(tiny_base, target_modules=["q_proj", "down_proj"], alpha=6)
    write(trained, tmp_path, dtype=torch.float32)
    tokens = torch.tensor([[3, 1, 4, 1, 5, 9]])
    stock = PeftModel.from_pretrained(copy.deepcopy(tiny_base.model), tmp_path).eval()
    with torch.no_grad():
        with applied(tiny_base.model, trained):
            ours = tiny_base.model(tokens).logits
        torch.testing.assert_close(ours, stock(tokens).logits, rtol=1e-5, atol=1e-5)
        assert (ours - tiny_base.model(tokens).logits).abs().max() > 0.01
    config = stock.peft_config["default"]
    assert (config.r, config.lora_alpha, config.target_modules) == (4, 6, {"q_proj", "down_proj"})
    assert config.base_model_name_or_path == tiny_base.id


def test_conv1d_layers_are_trained_and_written_the_right_way_round(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=4, n_positions=64)
    model = GPT2LMHeadModel(config).eval().requires_grad_(False)
    base = Base("tests/gpt2", model, tokenizer, fingerprint="0" * 64)
    with unchanged(base):
        trained = train(base, target_modules=["c_attn", "c_proj"])
    write(trained, tmp_path, dtype=torch.float32)
    tokens = torch.tensor([[3, 1, 4, 1, 5, 9]])
    stock = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path).eval()
    with torch.no_grad(), applied(model, trained):
        torch.testing.assert_close(model(tokens).logits, stock(tokens).logits, rtol=1e-5, atol=1e-5)


def test_the_same_seed_gives_the_same_bytes(tiny_base: Base, tmp_path: Path) -> None:
    same = digest(train(tiny_base, seed=3), tmp_path / "same")
    torch.rand(7)  # nobody else's random numbers matter
    assert digest(train(tiny_base, seed=3), tmp_path / "again") == same
    assert digest(train(tiny_base, seed=4), tmp_path / "other") != same


def test_pairs_are_float32_on_a_bfloat16_base(tiny_base: Base) -> None:
    half = replace(tiny_base, model=copy.deepcopy(tiny_base.model).bfloat16())
    with unchanged(half):
        trained = train(half, steps=20)
    assert {tensor.dtype for pair in trained.pairs.values() for tensor in (pair.a, pair.b)} == {torch.float32}
    assert loss_of(half, trained) < loss_of(half, None)


def test_cancelling_leaves_the_base_as_it_was(tiny_base: Base) -> None:
    class Cancelled(Exception):
        pass

    def cancel(step: int, total: int, values: dict[str, float]) -> None:
        if step == 3:
            raise Cancelled

    with unchanged(tiny_base), pytest.raises(Cancelled):
        train(tiny_base, on_progress=cancel)


def test_a_loss_that_is_not_finite_is_an_error(tiny_base: Base) -> None:
    with (
        unchanged(tiny_base),
        pytest.raises(TrainingDiverged, match=r"at step \d+\. Lower the learning rate \(1e\+30\)"),
    ):
        train(tiny_base, steps=20, learning_rate=1e30)


def test_nothing_to_train_on_or_with_is_an_error(tiny_base: Base) -> None:
    with unchanged(tiny_base):
        with pytest.raises(NothingToTrain, match="no examples"):
            train(tiny_base, [])
        with pytest.raises(NothingToTrain, match="no_such_layer"):
            train(tiny_base, target_modules=["no_such_layer"])
        with pytest.raises(NothingToTrain, match="input_layernorm"):
            train(tiny_base, target_modules=["q_proj", "input_layernorm"])
