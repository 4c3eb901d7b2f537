"""Supervised training of a LoRA on a loaded base: two learning rates (LoRA+), a loss on the targets only, and runs that can be resumed.

PEFT provides the trainable layers, their initialisations, DoRA and the parameter groups of LoRA+. The loop is ours, because a run that
was killed must resume and end with the same bytes, and because logits over the prompts would be wasted (docs/decisions/0007).
"""

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from hub.lora.core import checkpoint
from hub.lora.core.adapter import Adapter
from hub.lora.core.bases import Base
from hub.lora.core.batches import fitting, plan
from hub.lora.core.checkpoint import TrainingState
from hub.lora.core.errors import LoraError
from hub.lora.core.examples import Example, OnProgress, Tokens, pad, target_loss
from hub.lora.core.memory import check_memory, translate_out_of_memory
from hub.lora.core.repeatable import repeatable_attention
from hub.lora.train.loraplus import DEFAULT_RATIO, make_optimizer, set_share, share_of_rate
from hub.lora.train.masked_optimizer import PackedAdamW, masks_of, state_bytes, without_gradient_outside
from hub.lora.train.masks import Mask
from hub.lora.train.trainable_layers import NothingToTrain, Shape, TrainableLayers, trainable_layers
from hub.vocabulary import Ending, Init, Schedule

VALIDATIONS = 10  # validations per run if `validate_every` is not given


class TrainingDiverged(LoraError):
    code = "training_diverged"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run besides base and examples.

    `learning_rate` is A's, and B's is `ratio` times that; the default ratio is DEFAULT_RATIO of the initialisation. `steps` counts updates
    of `batch_size * accumulation` examples; without it there are `epochs` passes over the examples. `warmup` is a share of the steps.
    Examples of more than `max_length` tokens are left out and counted. The run is validated every `validate_every` steps, and `patience`
    validations without a new best end it.
    """

    rank: int = 8
    alpha: float = 16
    target_modules: Sequence[str] | str = "all-linear"
    dropout: float = 0.0
    init: Init = "default"
    rslora: bool = False
    dora: bool = False
    learning_rate: float = 5e-4
    ratio: float | None = None
    warmup: float = 0.1
    schedule: Schedule = "linear"
    steps: int | None = None
    epochs: int = 3
    batch_size: int = 8
    accumulation: int = 1
    max_length: int = 1024
    weight_decay: float = 0.0
    validate_every: int | None = None
    patience: int | None = None
    seed: int = 0

    @property
    def rate_ratio(self) -> float:
        return DEFAULT_RATIO[self.init] if self.ratio is None else self.ratio

    @property
    def shape(self) -> Shape:
        return Shape(
            rank=self.rank,
            alpha=self.alpha,
            target_modules=self.target_modules,
            dropout=self.dropout,
            init=self.init,
            rslora=self.rslora,
            dora=self.dora,
        )


class CheckpointStore(Protocol):
    """Storage for the checkpoints of one run. `save` may raise to stop the run."""

    @property
    def seconds(self) -> float:
        """Time between two checkpoints."""
        ...

    def load(self) -> Path | None: ...

    def save(self, path: Path) -> None: ...

    def local_path(self) -> Path:
        """Where to write a checkpoint before `save` is called with it."""
        ...


@dataclass(frozen=True)
class Trained:
    """`adapter` is the state at `step`: that of the lowest validation loss, or the last one if the run was not validated.

    `losses` has the mean target loss of each step's batches before the update, `validations` (step, loss) with step 0 the untrained state.
    `tokens` and `seconds` count the training steps of this process only. `optimizer_bytes` is the size of the optimiser's state.
    """

    adapter: Adapter
    step: int
    steps: int
    ending: Ending
    losses: list[float]
    validations: list[tuple[int, float]]
    too_long: int
    tokens: int
    seconds: float
    optimizer_bytes: int

    @property
    def validation_loss(self) -> float | None:
        return min((loss for _, loss in self.validations), default=None)


def train(
    base: Base,
    examples: Sequence[Example],
    recipe: Recipe,
    *,
    template: str,
    validation: Sequence[Example] = (),
    start: Adapter | None = None,
    checkpoints: CheckpointStore | None = None,
    on_progress: OnProgress,
) -> Trained:
    """Train a LoRA on the targets of `examples`, from the recipe's initialisation or from the adapter `start`.

    After each step `on_progress(step, steps, numbers)` may raise to stop. However the run ends, the base is as it was. With
    `checkpoints` a stopped run resumes from its last checkpoint, and ends with the same bytes on the same device,
    thread count and versions. If a loss is not finite the run ends with its best state, or raises TrainingDiverged if no
    validation was better than the start. Raises NothingToTrain, CheckpointMismatch, NotEnoughMemory.
    """
    with trainable_layers(base, recipe.shape, start, recipe.seed) as layers:
        return train_layers(
            layers,
            examples,
            recipe,
            template=template,
            validation=validation,
            start=start,
            checkpoints=checkpoints,
            on_progress=on_progress,
        )


def train_layers(
    layers: TrainableLayers,
    examples: Sequence[Example],
    recipe: Recipe,
    *,
    template: str,
    validation: Sequence[Example] = (),
    start: Adapter | None = None,
    mask: Mask | None = None,
    checkpoints: CheckpointStore | None = None,
    on_progress: OnProgress,
) -> Trained:
    """`train` on existing layers, which stay. With a `mask`, only its elements are trained, and only they have optimiser state."""
    base = layers.base
    if not examples:
        raise NothingToTrain("There are no examples to train on. Give at least one.")
    if mask is not None and not len(mask):
        raise NothingToTrain("The mask lets nothing move. Raise the shares of the common elements, or theta.")
    fit, checked = (fitting(base, given, template, recipe.max_length) for given in (examples, validation))
    if not fit.rows:
        raise NothingToTrain(
            f"All {len(examples)} examples have more than {recipe.max_length} tokens. Raise max_length or shorten them."
        )
    batches = plan(
        [len(row) for row in fit.rows],
        batch_size=recipe.batch_size,
        accumulation=recipe.accumulation,
        steps=recipe.steps,
        epochs=recipe.epochs,
        seed=recipe.seed,
    )
    check_memory(base, max(len(row) for row in fit.rows), recipe.batch_size)
    digest = _digest(base, recipe, [*fit.rows, *checked.rows], start, mask)
    masks = masks_of(layers.parameters(), mask) if mask is not None else {}
    with (
        translate_out_of_memory(recipe.batch_size, recipe.max_length),
        without_gradient_outside(masks),
        repeatable_attention(base.device),
    ):
        run = _TrainingRun(layers, recipe, fit.rows, checked.rows, batches, digest, masks, checkpoints, on_progress)
        run.run()
        if run.state.best:
            for name, parameter in run.parameters.items():
                parameter.data.copy_(run.state.best[name])
        return run.result(layers.adapter(), fit.too_long + checked.too_long)


def _digest(base: Base, recipe: Recipe, rows: Sequence[Tokens], start: Adapter | None, mask: Mask | None) -> str:
    content = [base.fingerprint, str(base.dtype), asdict(recipe), [[row.prompt, row.target] for row in rows]]
    digest = hashlib.sha256(json.dumps(content).encode())
    for path, pair in sorted(start.pairs.items()) if start else ():
        digest.update(f"{path} {pair.scaling} {pair.a.double().sum()} {pair.b.double().sum()}".encode())
    if mask is not None:
        digest.update(mask.bits.tobytes())
    return digest.hexdigest()


class _TrainingRun:
    """One supervised run from its first step, or its last checkpoint, to its end."""

    def __init__(
        self,
        layers: TrainableLayers,
        recipe: Recipe,
        rows: Sequence[Tokens],
        validation: Sequence[Tokens],
        batches: Sequence[Sequence[Sequence[int]]],
        digest: str,
        masks: Mapping[nn.Parameter, Tensor],
        checkpoints: CheckpointStore | None,
        on_progress: OnProgress,
    ) -> None:
        self.base, self.recipe, self.rows, self.validation = layers.base, recipe, rows, validation
        self.batches, self.digest, self.checkpoints, self.on_progress = batches, digest, checkpoints, on_progress
        self.parameters = layers.parameters()
        self.optimizer = make_optimizer(self.base.model, recipe.learning_rate, recipe.rate_ratio, recipe.weight_decay)
        if masks:
            self.optimizer = PackedAdamW(self.optimizer.param_groups, masks)
        self.validate_every = recipe.validate_every or max(1, len(batches) // VALIDATIONS)
        self.seconds, self.tokens, self.saved_at = 0.0, 0, time.monotonic()
        self.state = TrainingState()
        if checkpoints and (saved := checkpoints.load()):
            self.state = checkpoint.load(saved, digest, self.parameters, self.optimizer)
        self.began_at = self.state.step

    def run(self) -> None:
        if self.validation and not self.state.validations:
            self._validate()
        while self.state.ending is None:
            numbers = self._step()
            if self._validation_is_due():
                numbers |= self._validate()
            self._save_if_due()
            self.on_progress(self.state.step, len(self.batches), numbers)

    def _step(self) -> dict[str, float]:
        """One update; its loss and gradients are means over all target tokens of its batches."""
        started, state, recipe = time.monotonic(), self.state, self.recipe
        share = share_of_rate(state.step, len(self.batches), recipe.warmup, recipe.schedule)
        set_share(self.optimizer, share)
        chosen = [[self.rows[index] for index in batch] for batch in self.batches[state.step]]
        loss = self._backward(chosen)
        norm = clip_grad_norm_(self.parameters.values(), 1.0)
        if math.isfinite(loss) and math.isfinite(norm.item()):
            self.optimizer.step()
            state.step += 1
            state.losses.append(loss)
            if state.step == len(self.batches):
                state.ending = "finished"
        else:
            self._stop_diverged(loss)
        self.optimizer.zero_grad()
        self.tokens += sum(len(row) for rows in chosen for row in rows)
        self.seconds += time.monotonic() - started
        return self._numbers(share)

    def _backward(self, batches: Sequence[Sequence[Tokens]]) -> float:
        """Accumulate the gradients of these batches; returns the mean loss over all their target tokens."""
        targets = sum(len(row.target) for rows in batches for row in rows)
        loss = 0.0
        for rows in batches:
            part = target_loss(self.base.model, pad(self.base.tokenizer, rows))
            part = part * (sum(len(row.target) for row in rows) / targets)
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.item()
        return loss

    def _numbers(self, share: float) -> dict[str, float]:
        per_step = self.seconds / max(1, self.state.step - self.began_at)
        return {
            "loss": self.state.losses[-1],
            "learning_rate_a": self.recipe.learning_rate * share,
            "learning_rate_b": self.recipe.learning_rate * self.recipe.rate_ratio * share,
            "tokens_per_second": self.tokens / self.seconds,
            "seconds_left": per_step * (len(self.batches) - self.state.step),
        }

    def _stop_diverged(self, loss: float) -> None:
        """End the run with its best validated state. Raises TrainingDiverged if none is better than the start."""
        state = self.state
        if state.best_step is None or state.best_loss >= state.validations[0][1]:
            what = f"The loss is {loss}" if not math.isfinite(loss) else "The gradient is not finite"
            raise TrainingDiverged(
                f"{what} at step {state.step + 1}. Lower the learning rate ({self.recipe.learning_rate})."
            )
        state.ending = "diverged"

    def _validation_is_due(self) -> bool:
        state = self.state
        if not self.validation or state.ending == "diverged":
            return False
        return state.ending == "finished" or state.step % self.validate_every == 0

    def _validate(self) -> dict[str, float]:
        """Compute the mean loss per target token of the validation examples, without dropout. Keep the parameters if they are the best."""
        state, model = self.state, self.base.model.eval()
        summed = 0.0
        order = sorted(self.validation, key=len)
        with torch.no_grad():
            for start in range(0, len(order), self.recipe.batch_size):
                rows = order[start : start + self.recipe.batch_size]
                mean = target_loss(model, pad(self.base.tokenizer, rows)).item()
                summed += mean * sum(len(row.target) for row in rows)
        model.train()
        loss = summed / sum(len(row.target) for row in order)
        if not math.isfinite(loss):
            self._stop_diverged(loss)
            return {}
        best = state.best_loss
        state.validations.append((state.step, loss))
        if state.step > 0 and loss < best:
            state.best_step = state.step
            state.best = {name: value.detach().cpu().clone() for name, value in self.parameters.items()}
        stale = sum(step > (state.best_step or 0) for step, _ in state.validations)
        if self.recipe.patience and state.ending is None and stale >= self.recipe.patience:
            state.ending = "stopped_early"
        return {"validation_loss": loss}

    def _save_if_due(self) -> None:
        if self.checkpoints is None:
            return
        if self.state.ending or time.monotonic() - self.saved_at >= self.checkpoints.seconds:
            path = self.checkpoints.local_path()
            checkpoint.save(path, self.digest, self.state, self.parameters, self.optimizer)
            self.checkpoints.save(path)
            self.saved_at = time.monotonic()

    def result(self, adapter: Adapter, too_long: int) -> Trained:
        state = self.state
        return Trained(
            adapter=adapter,
            step=state.best_step or state.step,
            steps=len(self.batches),
            ending=state.ending or "finished",
            losses=state.losses,
            validations=state.validations,
            too_long=too_long,
            tokens=self.tokens,
            seconds=self.seconds,
            optimizer_bytes=state_bytes(self.optimizer),
        )
