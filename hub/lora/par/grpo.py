"""Reinforcement of a LoRA by GRPO (arXiv 2402.03300, section 4), with TRL's trainer on existing trainable layers.

The loss, the sampling and the advantages are TRL's. This module adds what TRL lacks: only the elements of a mask are trained, with
optimiser state for those only; a killed run resumes from a checkpoint that needs no unpickling; and no telemetry is sent. Every
step has a random state of its own, so that a resumed run ends with the same bytes.
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
from hub.lora.core.checkpoint import TrainingState
from hub.lora.core.errors import LoraError
from hub.lora.core.examples import Example, OnProgress, tokenize
from hub.lora.core.memory import translate_out_of_memory
from hub.lora.core.repeatable import repeatable_attention
from hub.lora.par.rewards import FUNCTIONS, Answer
from hub.lora.train.loop import CheckpointStore, TrainingDiverged
from hub.lora.train.loraplus import make_optimizer, share_of_rate
from hub.lora.train.masked_optimizer import PackedAdamW, masks_of, state_bytes, without_gradient_outside
from hub.lora.train.masks import Mask
from hub.lora.train.trainable_layers import NothingToTrain, TrainableLayers
from hub.vocabulary import GrpoLoss, Reward, Schedule


class NotReinforceable(LoraError):
    code = "not_reinforceable"


@dataclass(frozen=True)
class Reinforcement:
    """Everything that decides a run besides layers and examples. The defaults are TRL 1.16's, except the learning rate.

    TRL's 1e-6 is for whole models; a LoRA needs ten times as much. `kl` is the weight of the divergence from the initial policy,
    `temperature` that of sampling. An update takes `prompts` prompts with `generations` answers each, in batches of `batch_size` answers.
    Prompts of more than `max_prompt` tokens are left out and counted. Answers end after `max_answer` tokens.
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
    """`curve` has one row per step: the mean total reward, the mean of each reward, the divergence from the start if it has a weight,
    the mean length of answers in tokens, and the share of prompts whose answers all have the same reward, which give no gradient."""

    curve: list[dict[str, float]]
    steps: int
    too_long: int
    optimizer_bytes: int


def reinforce(
    layers: TrainableLayers,
    examples: Sequence[Example],
    settings: Reinforcement,
    *,
    template: str,
    mask: Mask | None = None,
    checkpoints: CheckpointStore | None = None,
    on_progress: OnProgress,
) -> Reinforced:
    """Train the layers further by the rewards of their answers. The policy on entry is the reference.

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
    run = _ReinforcementRun(layers, fit, settings, template, mask, checkpoints, on_progress)
    with translate_out_of_memory(settings.batch_size, settings.max_prompt + settings.max_answer):
        run.run()
    return Reinforced(run.state.curve, run.steps, len(examples) - len(fit), state_bytes(run.optimizer))


def _order(count: int, settings: Reinforcement) -> list[int]:
    """The order of prompts: as many shuffled passes over all of them as the steps take."""
    steps = settings.steps or math.ceil(settings.epochs * count / settings.prompts)
    generator = torch.Generator().manual_seed(settings.seed)
    order: list[int] = []
    while len(order) < steps * settings.prompts:
        order += torch.randperm(count, generator=generator).tolist()
    return order[: steps * settings.prompts]


class _ReinforcementRun:
    """One run of GRPO from its first step, or its last checkpoint, to its end."""

    def __init__(
        self,
        layers: TrainableLayers,
        examples: Sequence[Example],
        settings: Reinforcement,
        template: str,
        mask: Mask | None,
        checkpoints: CheckpointStore | None,
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
        self.state, self.saved_at = TrainingState(), time.monotonic()

    def _optimizer(self) -> torch.optim.Optimizer:
        settings = self.settings
        dense = make_optimizer(self.layers.base.model, settings.learning_rate, 1.0, settings.weight_decay)
        for group in dense.param_groups:
            group["betas"] = settings.adam_betas
        return PackedAdamW(dense.param_groups, self.masks) if self.masks else dense

    def _digest(self, mask: Mask | None) -> str:
        """The identity of this run, which includes its initial policy."""
        base = self.layers.base
        content = [
            base.fingerprint,
            str(base.dtype),
            self.template,
            asdict(self.settings),
            [asdict(example) for example in self.examples],
        ]
        digest = hashlib.sha256(json.dumps(content).encode())
        for parameter in self.parameters.values():
            digest.update(parameter.detach().cpu().numpy().tobytes())
        if mask is not None:
            digest.update(mask.bits.tobytes())
        return digest.hexdigest()

    def run(self) -> None:
        saved = self.checkpoints.load() if self.checkpoints else None
        with tempfile.TemporaryDirectory() as folder, _restored(self.layers):
            reference = {name: value.detach().clone() for name, value in self.parameters.items()}
            if saved:
                self.state = checkpoint.load(saved, self.digest, self.parameters, self.optimizer)
            reached = {name: value.detach().clone() for name, value in self.parameters.items()}
            if self.state.step == self.steps:
                return
            # TRL copies its reference from the parameters at construction; these must be those before the first step.
            _set(self.parameters, reference)
            trainer = self._trainer(folder)
            _set(self.parameters, reached)
            with without_gradient_outside(self.masks), repeatable_attention(self.layers.base.device):
                trainer.train()

    def _trainer(self, folder: str) -> GRPOTrainer:
        settings, base, done = self.settings, self.layers.base, self.state.step
        rest = [self.examples[index] for index in self.order[done * settings.prompts :]]
        rows = [{"prompt": _prompt(example.input, self.template), "target": example.target} for example in rest]
        schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: share_of_rate(done + step, self.steps, settings.warmup, settings.schedule),
        )
        # Otherwise TRL's reference adapter would be initialised by PiSSA, which changes the base again.
        self.layers.config.init_lora_weights = True
        trainer = _Trainer(
            model=self.layers.wrapper if settings.kl else base.model,
            reward_funcs=[_reward_function(name, settings.max_answer) for name in settings.rewards],
            args=_config(settings, folder, self.steps - done, on_cpu=base.device.type == "cpu"),
            train_dataset=Dataset.from_list(rows),
            processing_class=base.tokenizer,
            optimizers=(self.optimizer, schedule),
            callbacks=[_StepCallback(self)],
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def on_step(self, logs: Mapping[str, float]) -> None:
        state = self.state
        state.step += 1
        numbers = _numbers(logs, self.settings)
        if not all(math.isfinite(value) for value in numbers.values()):
            raise TrainingDiverged(
                f"Reinforcement gives {numbers} at step {state.step}. Lower its learning rate ({self.settings.learning_rate})."
            )
        state.curve.append(numbers)
        if state.step == self.steps:
            state.ending = "finished"
        if self.checkpoints and (state.ending or time.monotonic() - self.saved_at >= self.checkpoints.seconds):
            path = self.checkpoints.local_path()
            checkpoint.save(path, self.digest, state, self.parameters, self.optimizer)
            self.checkpoints.save(path)
            self.saved_at = time.monotonic()
        self.on_progress(state.step, self.steps, numbers)


class _Trainer(GRPOTrainer):  # type: ignore[misc]
    def _send_telemetry(self) -> None:
        """Do nothing: TRL would report each run to Hugging Face."""


class _StepCallback(TrainerCallback):  # type: ignore[misc]
    def __init__(self, run: _ReinforcementRun) -> None:
        self.run = run

    def on_step_begin(self, *_: object, **__: object) -> None:
        torch.manual_seed(self.run.settings.seed * 1_000_003 + self.run.state.step)

    def on_log(self, *_: object, logs: Mapping[str, float], **__: object) -> None:
        if "reward" in logs:  # the last log is a summary of times
            self.run.on_step(logs)


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
    """The prompt in TRL's form that gives the tokens of `tokenize`: turns for the chat template, else text."""
    return [{"role": "user", "content": text}] if template == "chat" else f"{text}\nAnswer:"


def _reward_function(name: Reward, room: int) -> Callable[..., list[float]]:
    def reward(
        completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], target: Sequence[str], **_: object
    ) -> list[float]:
        texts = [item if isinstance(item, str) else item[0]["content"] for item in completions]
        rows = zip(texts, completion_ids, target, strict=True)
        return [FUNCTIONS[name](Answer(text.strip(), len(ids), room, expected)) for text, ids, expected in rows]

    reward.__name__ = name  # the name in TRL's logs
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
def _restored(layers: TrainableLayers) -> Iterator[None]:
    """After the block the model computes as before: remove TRL's forward, its tags, and the adapter that is its reference."""
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
