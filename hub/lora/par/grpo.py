"""Reinforcement of a LoRA by GRPO (arXiv 2402.03300, section 4), with TRL's trainer on layers that are trained already.

The loss, the sampling and the advantages are TRL's. Ours is what TRL does not do: only the elements of a mask move, with optimiser state
for those alone; a run that was killed goes on where it was, from a file that needs no unpickling; and nothing is sent anywhere. Every
step draws from a random state of its own, so that a run which went on ends with the same bytes.
"""

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from hub.lora.core import checkpoint
from hub.lora.core.checkpoint import Standing
from hub.lora.core.errors import LoraError
from hub.lora.core.examples import Example, OnProgress, tokenize
from hub.lora.core.memory import said_with_what_to_lower
from hub.lora.core.repeatable import repeatable_attention
from hub.lora.par.rewards import FUNCTIONS, Answer
from hub.lora.train.loop import Checkpoints, TrainingDiverged
from hub.lora.train.loraplus import make_optimizer, share_of_rate
from hub.lora.train.masked_optimizer import PackedAdamW, masks_of, state_bytes, without_gradient_outside
from hub.lora.train.masks import Mask
from hub.lora.train.trainable_layers import NothingToTrain, Tuned
from hub.vocabulary import GrpoLoss, Reward, Schedule


class NotReinforceable(LoraError):
    code = "not_reinforceable"


@dataclass(frozen=True)
class Reinforcement:
    """Everything that decides a run besides layers and examples. The defaults are TRL 1.16's, but for the learning rate.

    TRL's 1e-6 is for whole models; a LoRA wants ten times as much. `kl` is the weight of the divergence from the policy that the run
    began with, `temperature` that of the samples. An update sees `prompts` prompts with `generations` answers each, `batch_size` answers at
    a time. Prompts of more than `max_prompt` tokens are left out and counted, answers end after `max_answer`.
    """

    rewards: Mapping[Reward, float] = field(default_factory=lambda: {"exact_match": 1.0})
    learning_rate: float = 1e-5
    kl: float = 0.0
    temperature: float = 1.0
    loss: GrpoLoss = "dapo"
    generations: int = 8
    prompts: int = 4
    batch_size: int = 8
    steps: int | None = None
    epochs: int = 1
    max_prompt: int = 512
    max_answer: int = 256
    warmup: float = 0.0
    schedule: Schedule = "linear"
    weight_decay: float = 0.0
    adam_betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Reinforced:
    """`curve` has one row a step: the mean total reward, each reward's own mean, the divergence from the start if it counts, the
    answers' mean length in tokens, and the share of prompts whose answers were all rewarded alike, from which nothing is learnt."""

    curve: list[dict[str, float]]
    steps: int
    too_long: int
    optimizer_bytes: int


def reinforce(
    layers: Tuned,
    examples: Sequence[Example],
    settings: Reinforcement,
    *,
    template: str,
    mask: Mask | None = None,
    checkpoints: Checkpoints | None = None,
    on_progress: OnProgress,
) -> Reinforced:
    """Train the layers further by the rewards of what they answer; the policy they hold on entry is the reference.

    After each step `on_progress(step, steps, numbers)` may raise to stop. Raises NothingToTrain, NotReinforceable, TrainingDiverged,
    CheckpointMismatch, NotEnoughMemory.
    """
    base = layers.base
    if base.model.config.is_encoder_decoder:
        raise NotReinforceable(f"{base.id} is an encoder-decoder, which TRL's GRPO does not train. Choose a decoder.")
    if settings.prompts * settings.generations % settings.batch_size:
        raise NotReinforceable(
            f"{settings.prompts} prompts with {settings.generations} answers each cannot be cut into batches of "
            f"{settings.batch_size}. Choose a batch_size that divides {settings.prompts * settings.generations}."
        )
    if mask is not None and not len(mask):
        raise NothingToTrain("The mask lets nothing move. Raise the shares of the common elements, or theta.")
    lengths = [len(tokenize(base.tokenizer, example, template).prompt) for example in examples]
    fit = [example for example, length in zip(examples, lengths, strict=True) if length <= settings.max_prompt]
    if not fit:
        raise NothingToTrain(f"None of {len(examples)} prompts has at most {settings.max_prompt} tokens.")
    run = _Run(layers, fit, settings, template, mask, checkpoints, on_progress)
    with said_with_what_to_lower(settings.batch_size, settings.max_prompt + settings.max_answer):
        run.to_the_end()
    return Reinforced(run.standing.curve, run.steps, len(examples) - len(fit), state_bytes(run.optimizer))


def _order(count: int, settings: Reinforcement) -> list[int]:
    """Which prompt comes when: rounds over all of them, each in an order of its own, as many as the steps take."""
    steps = settings.steps or math.ceil(settings.epochs * count / settings.prompts)
    generator = torch.Generator().manual_seed(settings.seed)
    order: list[int] = []
    while len(order) < steps * settings.prompts:
        order += torch.randperm(count, generator=generator).tolist()
    return order[: steps * settings.prompts]


class _Run:
    """One run from its first step, or from its last checkpoint, to its end."""

    def __init__(
        self,
        layers: Tuned,
        examples: Sequence[Example],
        settings: Reinforcement,
        template: str,
        mask: Mask | None,
        checkpoints: Checkpoints | None,
        on_progress: OnProgress,
    ) -> None:
        self.layers, self.examples, self.settings, self.template = layers, examples, settings, template
        self.checkpoints, self.on_progress = checkpoints, on_progress
        self.order = _order(len(examples), settings)
        self.steps = len(self.order) // settings.prompts
        self.parameters = layers.parameters()
        self.masks = masks_of(self.parameters, mask) if mask is not None else {}
        self.optimizer = self._optimizer()
        self.digest = self._digest(mask)
        self.standing, self.saved_at = Standing(), time.monotonic()

    def _optimizer(self) -> torch.optim.Optimizer:
        settings = self.settings
        dense = make_optimizer(self.layers.base.model, settings.learning_rate, 1.0, settings.weight_decay)
        for group in dense.param_groups:
            group["betas"] = settings.adam_betas
        return PackedAdamW(dense.param_groups, self.masks) if self.masks else dense

    def _digest(self, mask: Mask | None) -> str:
        """Of what decides this run; the policy it begins with is part of that."""
        base = self.layers.base
        content = [
            base.fingerprint,
            str(base.dtype),
            self.template,
            asdict(self.settings),
            [asdict(each) for each in self.examples],
        ]
        digest = hashlib.sha256(json.dumps(content).encode())
        for parameter in self.parameters.values():
            digest.update(parameter.detach().cpu().numpy().tobytes())
        if mask is not None:
            digest.update(mask.bits.tobytes())
        return digest.hexdigest()

    def to_the_end(self) -> None:
        found = self.checkpoints.load() if self.checkpoints else None
        with tempfile.TemporaryDirectory() as folder, _as_it_was(self.layers):
            reference = {name: each.detach().clone() for name, each in self.parameters.items()}
            if found:
                self.standing = checkpoint.load(found, self.digest, self.parameters, self.optimizer)
            reached = {name: each.detach().clone() for name, each in self.parameters.items()}
            if self.standing.step == self.steps:
                return
            # TRL copies its reference from the parameters when it is made, and that must be the policy before the first step.
            _set(self.parameters, reference)
            trainer = self._trainer(folder)
            _set(self.parameters, reached)
            with without_gradient_outside(self.masks), repeatable_attention(self.layers.base.device):
                trainer.train()

    def _trainer(self, folder: str) -> GRPOTrainer:
        settings, base, done = self.settings, self.layers.base, self.standing.step
        rest = [self.examples[index] for index in self.order[done * settings.prompts :]]
        rows = [{"prompt": _prompt(example.input, self.template), "target": example.target} for example in rest]
        schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: share_of_rate(done + step, self.steps, settings.warmup, settings.schedule),
        )
        # With an adapter PiSSA would start the reference by taking its pair out of the base once more.
        self.layers.config.init_lora_weights = True
        trainer = _Trainer(
            model=self.layers.wrapper if settings.kl else base.model,
            reward_funcs=[_rewarding(name, settings.max_answer) for name in settings.rewards],
            args=_config(settings, folder, self.steps - done, on_cpu=base.device.type == "cpu"),
            train_dataset=Dataset.from_list(rows),
            processing_class=base.tokenizer,
            optimizers=(self.optimizer, schedule),
            callbacks=[_EachStep(self)],
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def took_a_step(self, logs: Mapping[str, float]) -> None:
        standing = self.standing
        standing.step += 1
        numbers = _numbers(logs, self.settings)
        if not all(math.isfinite(value) for value in numbers.values()):
            raise TrainingDiverged(
                f"Reinforcement gives {numbers} at step {standing.step}. Lower its learning rate ({self.settings.learning_rate})."
            )
        standing.curve.append(numbers)
        if standing.step == self.steps:
            standing.ending = "finished"
        if self.checkpoints and (standing.ending or time.monotonic() - self.saved_at >= self.checkpoints.seconds):
            place = self.checkpoints.place()
            checkpoint.save(place, self.digest, standing, self.parameters, self.optimizer)
            self.checkpoints.save(place)
            self.saved_at = time.monotonic()
        self.on_progress(standing.step, self.steps, numbers)


class _Trainer(GRPOTrainer):  # type: ignore[misc]
    def _send_telemetry(self) -> None:
        """TRL tells Hugging Face that a trainer was started, and on what. What a hub does is nobody else's business."""


class _EachStep(TrainerCallback):  # type: ignore[misc]
    def __init__(self, run: _Run) -> None:
        self.run = run

    def on_step_begin(self, *_: object, **__: object) -> None:
        torch.manual_seed(self.run.settings.seed * 1_000_003 + self.run.standing.step)

    def on_log(self, *_: object, logs: Mapping[str, float], **__: object) -> None:
        if "reward" in logs:  # the last one of all is a summary of times
            self.run.took_a_step(logs)


def _config(settings: Reinforcement, folder: str, steps: int, *, on_cpu: bool) -> GRPOConfig:
    return GRPOConfig(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.prompts * settings.generations // settings.batch_size,
        num_generations=settings.generations,
        max_completion_length=settings.max_answer,
        temperature=settings.temperature,
        beta=settings.kl,
        loss_type=settings.loss,
        reward_weights=list(settings.rewards.values()),
        max_grad_norm=settings.clip,
        seed=settings.seed,
        shuffle_dataset=False,
        activation_checkpointing=False,
        bf16=False,  # the base computes in its own dtype, and the pairs with it
        use_cpu=on_cpu,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=not on_cpu,
    )


def _prompt(text: str, template: str) -> Any:
    """As TRL wants what `tokenize` makes of it: turns for the chat template, else the text itself."""
    return [{"role": "user", "content": text}] if template == "chat" else f"{text}\nAnswer:"


def _rewarding(name: Reward, room: int) -> Callable[..., list[float]]:
    def reward(
        completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], target: Sequence[str], **_: object
    ) -> list[float]:
        texts = [each if isinstance(each, str) else each[0]["content"] for each in completions]
        rows = zip(texts, completion_ids, target, strict=True)
        return [FUNCTIONS[name](Answer(text.strip(), len(ids), room, wanted)) for text, ids, wanted in rows]

    reward.__name__ = name  # by which TRL reports it
    return reward


def _numbers(logs: Mapping[str, float], settings: Reinforcement) -> dict[str, float]:
    numbers = {
        "reward": logs["reward"],
        **{f"reward_{name}": logs[f"rewards/{name}/mean"] for name in settings.rewards},
        "answer_tokens": logs["completions/mean_length"],
        "all_alike": logs["frac_reward_zero_std"],
        "gradient_norm": float(logs["grad_norm"]),
    }
    return numbers | ({"kl": logs["kl"]} if settings.kl else {})


def _set(parameters: Mapping[str, nn.Parameter], values: Mapping[str, torch.Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.data.copy_(values[name])


@contextmanager
def _as_it_was(layers: Tuned) -> Iterator[None]:
    """After the block the model computes as before it: TRL puts a forward of its own in place, tags, and an adapter as its reference."""
    model = layers.base.model
    tags = getattr(model, "model_tags", None)
    own = model.__dict__.get("forward")
    try:
        yield
    finally:
        model.__dict__.pop("forward", None)
        if own is not None:
            model.forward = own
        model.model_tags = tags
        if "ref" in layers.wrapper.peft_config:
            layers.wrapper.delete_adapter("ref")
        layers.wrapper.set_adapter("default")
