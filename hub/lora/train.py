"""Supervised training of a LoRA (arXiv 2106.09685) on a warm base, with a loss on the targets alone."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch.nn.utils import clip_grad_norm_
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hub.lora.adapter import Adapter, Pair
from hub.lora.bases import Base
from hub.lora.errors import LoraError
from hub.lora.examples import Example, OnProgress, encode, target_loss

_NAME = "default"  # what PEFT calls an adapter that has no name


class NothingToTrain(LoraError):
    code = "nothing_to_train"


class TrainingDiverged(LoraError):
    code = "training_diverged"


def train_lora(
    base: Base,
    examples: Sequence[Example],
    *,
    template: str,
    rank: int,
    alpha: float,
    target_modules: Sequence[str] | str,
    steps: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    warmup: float = 0.1,
    on_progress: OnProgress,
) -> Adapter:
    """Train a LoRA for `steps` batches, drawn in shuffled rounds of the examples, with AdamW and no weight decay.

    `target_modules` are names as PEFT takes them, "all-linear" included. B starts at zero, and the pairs are float32 whatever the
    base's dtype is. The learning rate rises linearly over the share `warmup` of the steps and then falls linearly towards zero;
    gradients are clipped to norm 1. `on_progress(step, steps, {loss, learning_rate})` may raise to stop. However it ends, the base
    is as it was. Raises NothingToTrain, or TrainingDiverged when a loss is not finite.
    """
    if not examples:
        raise NothingToTrain("There are no examples to train on. Give at least one.")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=target_modules if isinstance(target_modules, str) else list(target_modules),
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in base.model.modules()),
        task_type="CAUSAL_LM",
    )
    with _adapted(base.model, config, seed) as layers:
        parameters = [parameter for parameter in base.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share_of_rate(step, steps, warmup))
        batches = _batches(len(examples), batch_size, seed)
        for step in range(1, steps + 1):
            batch = encode(base.tokenizer, [examples[index] for index in next(batches)], template)
            loss = target_loss(base.model, batch)
            if not math.isfinite(loss.item()):
                raise TrainingDiverged(
                    f"The loss is {loss.item()} at step {step}. Lower the learning rate ({learning_rate})."
                )
            loss.backward()  # type: ignore[no-untyped-call]
            clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            on_progress(step, steps, {"loss": loss.item(), "learning_rate": float(schedule.get_last_lr()[0])})
            schedule.step()
        pairs = {
            path: Pair(
                layer.lora_A[_NAME].weight.detach().clone(),
                layer.lora_B[_NAME].weight.detach().clone(),
                layer.scaling[_NAME],
            )
            for path, layer in layers.items()
        }
    return Adapter(
        "trained",
        {
            "base_model_name_or_path": base.id,
            "fan_in_fan_out": config.fan_in_fan_out,
            "peft_type": "LORA",
            "target_modules": sorted(config.target_modules),  # PEFT has put names in place of "all-linear"
            "task_type": "CAUSAL_LM",
        },
        pairs,
    )


def _share_of_rate(step: int, steps: int, warmup: float) -> float:
    """The factor of the learning rate at a step counted from 0."""
    rising = round(steps * warmup)
    if step < rising:
        return (step + 1) / rising
    return (steps - step) / max(1, steps - rising)


def _batches(count: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Indices of examples without end: every round takes each once, in an order of its own."""
    generator = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < min(batch_size, count):
            waiting += torch.randperm(count, generator=generator).tolist()
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


@contextmanager
def _adapted(model: PreTrainedModel, config: LoraConfig, seed: int) -> Iterator[dict[str, LoraLayer]]:
    """Within the block PEFT's layers stand in for those that the config targets, by path; after it the model is as it was."""
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        try:
            _inject(model, config)
            yield _lora_layers(model.train())
        finally:
            # PEFT's own unload() needs the wrapper, which there is none of when PEFT refused half-way.
            for path, layer in _lora_layers(model).items():
                model.set_submodule(path, layer.get_base_layer())
            if hasattr(model, "peft_config"):
                del model.peft_config
            model.eval().requires_grad_(False)


def _inject(model: PreTrainedModel, config: LoraConfig) -> None:
    with warnings.catch_warnings():
        # PEFT 0.21 asks a transformers 5.23 model for a property by its deprecated name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        try:
            get_peft_model(model, config)
        except ValueError as error:
            raise NothingToTrain(f"PEFT cannot put a LoRA on {config.target_modules}: {error}") from error


def _lora_layers(model: PreTrainedModel) -> dict[str, LoraLayer]:
    return {path: layer for path, layer in model.named_modules() if isinstance(layer, LoraLayer)}
