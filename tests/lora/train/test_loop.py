"""hub.lora.train.loop: it learns, stock PEFT agrees with what it made, a killed run goes on with the same bytes,
and the base never notices."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer

from hub.lora.core import memory
from hub.lora.core.adapter import applied, write
from hub.lora.core.bases import Base
from hub.lora.core.batches import plan, split
from hub.lora.core.checkpoint import CheckpointMismatch
from hub.lora.core.examples import Example, encode, generate, target_loss
from hub.lora.core.losses import encode_batches, mean_loss
from hub.lora.core.memory import NotEnoughMemory
from hub.lora.train import loop as module
from hub.lora.train.loop import Recipe, Trained, TrainingDiverged
from hub.lora.train.loraplus import DEFAULT_RATIO, make_optimizer, share_of_rate
from hub.lora.train.lr_search import search_rate
from hub.lora.train.trainable_layers import NothingToTrain, trainable_layers
from hub.vocabulary import INITS
from tests.lora.runs import EXAMPLES, Cancelled, CheckpointFolder, adapter_of, digest, loss_of, run, unchanged
from tests.tiny_models import byte_tokenizer, gpt2

# PEFT 0.21 asks a transformers 5.23 model for a property by its deprecated name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def test_it_learns_the_examples_and_leaves_the_base_as_it_was(tiny_base: Base) -> None:
    heard: list[dict[str, float]] = []
    with unchanged(tiny_base):
        trained = run(
            tiny_base, steps=80, batch_size=5, rank=8, alpha=16, on_progress=lambda *event: heard.append(event[2])
        )
    assert loss_of(tiny_base, trained.adapter) < 0.2 * loss_of(tiny_base, None)
    assert heard[0]["loss"] == pytest.approx(loss_of(tiny_base, None), rel=1e-4), "B starts at zero"
    assert trained.losses == [numbers["loss"] for numbers in heard]
    assert (len(heard), trained.ending, trained.step) == (80, "finished", 80)
    assert heard[-1]["seconds_left"] == 0.0 < heard[0]["seconds_left"]
    assert heard[-1]["tokens_per_second"] == pytest.approx(trained.tokens / trained.seconds)
    with applied(tiny_base.model, trained.adapter):
        answers = generate(tiny_base, [example.input for example in EXAMPLES], "plain", max_new_tokens=4, batch_size=5)
    assert answers == [example.target for example in EXAMPLES]


@pytest.mark.parametrize(
    ("schedule", "falling"),
    [
        ("linear", [1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ("cosine", [(1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]),
        ("constant", [1.0] * 8),
    ],
)
def test_both_rates_rise_over_the_warm_up_and_then_fall(tiny_base: Base, schedule: str, falling: list[float]) -> None:
    rates: list[tuple[float, float]] = []
    run(
        tiny_base,
        steps=10,
        warmup=0.2,
        schedule=schedule,
        learning_rate=1.0e-3,
        ratio=8.0,
        on_progress=lambda *event: rates.append((event[2]["learning_rate_a"], event[2]["learning_rate_b"])),
    )
    assert [a for a, _ in rates] == pytest.approx([1e-3 * share for share in [0.5, 1.0, *falling]])
    assert [b for _, b in rates] == pytest.approx([8 * a for a, _ in rates])


def test_without_a_ratio_it_depends_on_the_initialisation() -> None:
    assert {init: Recipe(init=init).rate_ratio for init in INITS} == DEFAULT_RATIO
    assert (Recipe().rate_ratio, Recipe(init="a_zero").rate_ratio, Recipe(init="pissa").rate_ratio) == (4.0, 16.0, 1.0)
    assert Recipe(init="pissa", ratio=3.0).rate_ratio == 3.0


SHAPES: dict[str, dict[str, Any]] = {
    "some layers": {"target_modules": ["q_proj", "down_proj"], "alpha": 6},
    "gaussian": {"init": "gaussian"},
    "A zero": {"init": "a_zero"},
    "orthogonal": {"init": "orthogonal"},
    "PiSSA": {"init": "pissa"},
    "fast PiSSA": {"init": "pissa_niter_4"},
    "rsLoRA": {"rslora": True, "target_modules": ["v_proj"]},
    "DoRA": {"dora": True},
    "dropout": {"dropout": 0.3},
    "rsLoRA PiSSA": {"rslora": True, "init": "pissa", "ratio": None},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_stock_peft_computes_the_same_with_what_was_trained(
    tiny_base: Base, tmp_path: Path, shape: dict[str, Any]
) -> None:
    """Also with what PiSSA trained, which is brought back to the base that stock PEFT loads."""
    with unchanged(tiny_base):
        losses = run(tiny_base, steps=30, batch_size=5, **shape).losses
        trained = adapter_of(tiny_base, steps=30, batch_size=5, **shape)
    write(trained, tmp_path, dtype=torch.float32)
    tokens = torch.tensor([[3, 1, 4, 1, 5, 9]])
    stock = PeftModel.from_pretrained(copy.deepcopy(tiny_base.model), tmp_path).eval()
    with torch.no_grad():
        with applied(tiny_base.model, trained):
            ours = tiny_base.model(tokens).logits
        torch.testing.assert_close(ours, stock(tokens).logits, rtol=1e-4, atol=1e-4)
        assert (ours - tiny_base.model(tokens).logits).abs().max() > 0.01
    assert losses[0] == pytest.approx(loss_of(tiny_base, None), rel=1e-3), "every start leaves what the base computes"
    # What was written is what was trained, and not only sound: the loss it has is the one that training had reached.
    assert loss_of(tiny_base, trained) < 0.75 * loss_of(tiny_base, None)
    config = stock.peft_config["default"]
    assert config.base_model_name_or_path == tiny_base.id
    assert config.use_dora == bool(shape.get("dora"))
    assert config.init_lora_weights is True
    assert not config.use_rslora


def test_conv1d_layers_are_trained_and_written_the_right_way_round(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    model = gpt2(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=4, n_positions=64).requires_grad_(False)
    base = Base("tests/gpt2", model, tokenizer, fingerprint="0" * 64)
    tokens = torch.tensor([[3, 1, 4, 1, 5, 9]])
    shapes: dict[str, dict[str, Any]] = {"plain": {}, "dora": {"dora": True}, "pissa": {"init": "pissa"}}
    for name, shape in shapes.items():
        with unchanged(base):
            trained = adapter_of(base, target_modules=["c_attn", "c_proj"], **shape)
        write(trained, tmp_path / name, dtype=torch.float32)
        stock = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / name).eval()
        with torch.no_grad(), applied(model, trained):
            torch.testing.assert_close(model(tokens).logits, stock(tokens).logits, rtol=1e-4, atol=1e-4)


def test_the_same_seed_gives_the_same_bytes(tiny_base: Base, tmp_path: Path) -> None:
    same = digest(adapter_of(tiny_base, seed=3, dropout=0.2), tmp_path / "same")
    torch.rand(7)  # nobody else's random numbers matter
    assert digest(adapter_of(tiny_base, seed=3, dropout=0.2), tmp_path / "again") == same
    assert digest(adapter_of(tiny_base, seed=4, dropout=0.2), tmp_path / "other") != same


def test_pairs_are_float32_on_a_bfloat16_base(tiny_base: Base) -> None:
    half = replace(tiny_base, model=copy.deepcopy(tiny_base.model).bfloat16())
    with unchanged(half):
        trained = adapter_of(half, steps=20)
    assert {tensor.dtype for pair in trained.pairs.values() for tensor in (pair.a, pair.b)} == {torch.float32}
    assert loss_of(half, trained) < loss_of(half, None)


def test_one_step_is_that_of_an_adamw_with_two_rates_written_out(tiny_base: Base) -> None:
    """The first update of AdamW (arXiv 1711.05101, algorithm 2), by hand, from gradients that stock PEFT computes."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    torch.manual_seed(0)
    peft_model = get_peft_model(copy.deepcopy(tiny_base.model), config)
    torch.autograd.backward(target_loss(peft_model, encode(tiny_base.tokenizer, EXAMPLES, "plain")))
    gradients = {name: each.grad for name, each in peft_model.named_parameters() if each.requires_grad}
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(each) for each in gradients.values()]))
    rate, ratio, decay = 1e-2, 4.0, 0.1
    one = run(
        tiny_base,
        steps=1,
        warmup=0.0,
        batch_size=5,
        target_modules=["q_proj", "v_proj"],
        learning_rate=rate,
        ratio=ratio,
        weight_decay=decay,
    ).adapter
    for path, pair in one.pairs.items():
        for ours, factor, eta in ((pair.a, "lora_A", rate), (pair.b, "lora_B", ratio * rate)):
            name = f"base_model.model.{path}.{factor}.default.weight"
            before = peft_model.get_parameter(name).detach()
            gradient = gradients[name] * min(1.0, 1.0 / (norm + 1e-6))  # clipped to norm 1
            # With both moments corrected for their start, the first step divides the gradient by its own size.
            expected = before * (1 - eta * decay) - eta * gradient / (gradient.abs() + 1e-8)
            if factor == "lora_B":
                torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5)
            else:  # B is zero, so A has no gradient yet: it only decays
                assert not gradient.any()
                torch.testing.assert_close(ours, before * (1 - eta * decay), rtol=1e-6, atol=1e-7)


def test_the_groups_are_those_of_peft_and_of_the_paper(tiny_base: Base) -> None:
    """The authors' rule for the same names: lora_B, and what has one dimension, at ratio times the rate; all else at the rate."""
    shape = Recipe(rank=4, dora=True).shape
    with trainable_layers(tiny_base, shape, None, seed=0):
        model = tiny_base.model
        names = {id(each): name for name, each in model.named_parameters() if each.requires_grad}
        ours = make_optimizer(model, 1e-3, 16.0, 0.1).param_groups
        theirs = create_loraplus_optimizer(
            model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16.0, loraplus_weight_decay=0.1
        ).param_groups
        assert [(group["lr"], group["weight_decay"], group["params"]) for group in ours] == [
            (group["lr"], group["weight_decay"], group["params"]) for group in theirs if group["params"]
        ]
        found = {names[id(each)]: group["lr"] for group in ours for each in group["params"]}
        fast = {
            name for name, each in model.named_parameters() if name in found and ("lora_B" in name or each.ndim == 1)
        }
        assert found == {name: 16e-3 if name in fast else 1e-3 for name in names.values()}
        assert any("magnitude" in name for name in fast)
        assert {group["weight_decay"] for group in ours} == {0.1}


def test_accumulated_batches_are_one_large_batch(tiny_base: Base) -> None:
    examples = [*EXAMPLES, Example("say zeta", "a much longer target"), *EXAMPLES[:2]]
    large = adapter_of(tiny_base, examples, steps=1, batch_size=8)
    small = adapter_of(tiny_base, examples, steps=1, batch_size=2, accumulation=4)
    for path, pair in large.pairs.items():
        # The first step of AdamW is the sign of the gradient, but where that is nearly nothing.
        assert (pair.b.sign() == small.pairs[path].b.sign()).float().mean() > 0.99


def test_epochs_show_every_example_as_often_and_steps_cut_them(tiny_base: Base) -> None:
    for lengths in ([5, 3, 9, 7, 2, 8, 4], list(range(1, 700))):
        planned = plan(lengths, batch_size=3, accumulation=2, steps=None, epochs=4, seed=0)
        seen = [index for step in planned for batch in step for index in batch]
        assert sorted(seen) == sorted(list(range(len(lengths))) * 4)
    assert run(tiny_base, steps=None, epochs=4, batch_size=2).steps == 12
    padded = sum(max(lengths[i] for i in batch) * len(batch) for step in planned for batch in step)
    assert padded < 1.05 * 4 * sum(lengths), "batches are of like length"


def test_examples_over_the_length_are_left_out_and_counted(tiny_base: Base) -> None:
    long = Example("say " + "very " * 50 + "long", "lo")
    trained = run(tiny_base, [*EXAMPLES, long, long], max_length=60, validation=[EXAMPLES[0], long])
    assert trained.too_long == 3
    assert trained.losses == run(tiny_base, EXAMPLES, max_length=60).losses
    with unchanged(tiny_base), pytest.raises(NothingToTrain, match=r"All 2 examples have more than 60 tokens"):
        run(tiny_base, [long, long], max_length=60)


def test_the_best_state_is_kept_and_training_stops_when_it_stops_getting_better(tiny_base: Base) -> None:
    against = [Example(example.input, "zq") for example in EXAMPLES]  # the better it learns, the worse it does here
    heard: list[int] = []
    trained = run(
        tiny_base,
        EXAMPLES,
        validation=against,
        steps=60,
        learning_rate=3e-3,
        validate_every=2,
        patience=3,
        on_progress=lambda step, *_: heard.append(step),
    )
    assert trained.ending == "stopped_early"
    assert len(heard) < 60
    steps, losses = zip(*trained.validations, strict=True)
    assert steps == tuple(range(0, len(heard) + 1, 2))
    assert trained.step == steps[1:][losses[1:].index(min(losses[1:]))] == steps[-1] - 6
    with applied(tiny_base.model, trained.adapter):
        kept = mean_loss(tiny_base, encode_batches(tiny_base, against, "plain"))
    assert kept == pytest.approx(min(losses[1:]), rel=1e-4), "the adapter is the one of that step"


def test_training_goes_on_from_a_module(tiny_base: Base) -> None:
    for shape in ({}, {"dora": True}, {"init": "pissa"}):
        first = run(tiny_base, steps=30, batch_size=5, **shape)
        with unchanged(tiny_base):
            second = run(tiny_base, steps=30, batch_size=5, start=first.adapter, warmup=0.0)
        assert second.losses[0] == pytest.approx(loss_of(tiny_base, first.adapter), rel=1e-3)
        assert loss_of(tiny_base, second.adapter) < loss_of(tiny_base, first.adapter)
        assert {path: pair.rank for path, pair in second.adapter.pairs.items()} == {
            path: pair.rank for path, pair in first.adapter.pairs.items()
        }


@pytest.mark.parametrize(
    "shape",
    [{"dropout": 0.3, "accumulation": 2}, {"init": "pissa"}, {"dora": True, "patience": 4}],
    ids=["dropout", "pissa", "dora"],
)
def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_bytes(
    tiny_base: Base, tmp_path: Path, shape: dict[str, Any]
) -> None:
    settings = {"steps": 12, "validation": EXAMPLES[3:], "validate_every": 3, "ratio": 4.0, **shape}
    whole = run(tiny_base, EXAMPLES[:3], **settings)
    kept = CheckpointFolder(tmp_path, killed_after=5)
    heard: list[int] = []
    with unchanged(tiny_base), pytest.raises(Cancelled):
        run(tiny_base, EXAMPLES[:3], checkpoints=kept, **settings)
    with unchanged(tiny_base):
        rest = run(
            tiny_base,
            EXAMPLES[:3],
            checkpoints=CheckpointFolder(tmp_path),
            on_progress=lambda step, *_: heard.append(step),
            **settings,
        )
    assert heard == list(range(6, 13)), "what was done is not done again"
    assert digest(rest.adapter, tmp_path / "rest") == digest(whole.adapter, tmp_path / "whole")
    assert (rest.losses, rest.validations, rest.step) == (whole.losses, whole.validations, whole.step)
    heard.clear()
    run(
        tiny_base,
        EXAMPLES[:3],
        checkpoints=CheckpointFolder(tmp_path),
        on_progress=lambda step, *_: heard.append(step),
        **settings,
    )
    assert heard == [], "a finished run is only read"


def test_a_checkpoint_of_another_run_is_refused(tiny_base: Base, tmp_path: Path) -> None:
    run(tiny_base, checkpoints=CheckpointFolder(tmp_path))
    for change in ({"seed": 1}, {"template": "chat"}, {"start": adapter_of(tiny_base)}):
        with unchanged(tiny_base), pytest.raises(CheckpointMismatch):
            run(tiny_base, checkpoints=CheckpointFolder(tmp_path), **change)
    with pytest.raises(CheckpointMismatch):
        run(tiny_base, EXAMPLES[1:], checkpoints=CheckpointFolder(tmp_path))


def test_cancelling_leaves_the_base_as_it_was(tiny_base: Base) -> None:
    def cancel(step: int, total: int, values: dict[str, float]) -> None:
        if step == 3:
            raise Cancelled

    for shape in ({}, {"init": "pissa"}, {"dora": True}):
        with unchanged(tiny_base), pytest.raises(Cancelled):
            run(tiny_base, on_progress=cancel, **shape)


def test_a_loss_that_is_not_finite_is_an_error(tiny_base: Base) -> None:
    with (
        unchanged(tiny_base),
        pytest.raises(TrainingDiverged, match=r"at step \d+\. Lower the learning rate \(1e\+30\)"),
    ):
        run(tiny_base, steps=20, learning_rate=1e30)


def test_after_a_loss_that_is_not_finite_the_last_good_state_is_what_comes_out(
    tiny_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rate is let explode at step 9 by a schedule that no recipe can ask for."""
    monkeypatch.setattr(module, "share_of_rate", lambda step, *rest: 1e30 if step == 8 else share_of_rate(step, *rest))
    with unchanged(tiny_base):
        trained = run(tiny_base, steps=20, validation=EXAMPLES, validate_every=4)
    assert (trained.ending, trained.step) == ("diverged", 8)
    assert len(trained.losses) < 20
    assert loss_of(tiny_base, trained.adapter) == pytest.approx(dict(trained.validations)[8], rel=1e-4)


def test_memory_that_cannot_suffice_is_said_before_anything_is_computed(
    tiny_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 100_000)
    with unchanged(tiny_base), pytest.raises(NotEnoughMemory, match=r"batch of 3 .* Lower batch_size"):
        run(tiny_base)


def test_memory_that_runs_out_is_said_with_what_to_lower(tiny_base: Base) -> None:
    """A real allocation fails: more than any address space has."""

    def allocate(*_: Any) -> None:
        torch.empty(2**60, dtype=torch.uint8)

    with unchanged(tiny_base), pytest.raises(NotEnoughMemory, match=r"batch_size \(3; .*max_length \(1024\)"):
        run(tiny_base, on_progress=allocate)


def test_nothing_to_train_on_or_with_is_an_error(tiny_base: Base) -> None:
    with unchanged(tiny_base):
        with pytest.raises(NothingToTrain, match="no examples"):
            run(tiny_base, [])
        with pytest.raises(NothingToTrain, match="no_such_layer"):
            run(tiny_base, target_modules=["no_such_layer"])
        with pytest.raises(NothingToTrain, match="input_layernorm"):
            run(tiny_base, target_modules=["q_proj", "input_layernorm"])
        with pytest.raises(NothingToTrain, match="embed_tokens is not a linear layer"):
            run(tiny_base, target_modules=["q_proj", "embed_tokens"])


def test_the_split_keeps_an_input_on_one_side() -> None:
    examples = [Example(f"say {number % 20}", str(number)) for number in range(60)]
    learnt, validated = split(examples, 0.25, seed=1, at_most=100)
    assert sorted([*learnt, *validated], key=lambda each: int(each.target)) == examples
    assert len(validated) == 15
    assert not {each.input for each in learnt} & {each.input for each in validated}
    assert split(examples, 0.25, seed=1, at_most=100) == (learnt, validated)
    assert split(examples, 0.25, seed=2, at_most=100) != (learnt, validated)
    assert len(split(examples, 0.9, seed=1, at_most=2)[1]) == 6
    assert split(examples[:1], 0.9, seed=1, at_most=9) == (examples[:1], []), "something is left to learn from"


def test_the_search_takes_the_rate_of_the_least_validation_loss(tiny_base: Base) -> None:
    def train_at(rate: float) -> Trained:
        return run(tiny_base, validation=EXAMPLES, steps=10, learning_rate=rate)

    found = search_rate([1e30, 1e-2, 1e-6], train_at)
    assert [trial.learning_rate for trial in found.trials] == [1e-6, 1e-2, 1e30]
    assert found.trials[2].validation_loss is None
    losses = [trial.validation_loss for trial in found.trials[:2]]
    assert losses[0] is not None
    assert losses[1] is not None
    assert losses[1] < losses[0]
    assert (found.best, found.at_edge) == (1e-2, False)
    assert search_rate([1e-6, 1e-2], train_at).at_edge
    with pytest.raises(TrainingDiverged, match="every rate"):
        search_rate([1e30], train_at)
