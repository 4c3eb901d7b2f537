"""Where a training run stands, in one file: what is needed to go on as if it had never stopped.

Batches and rates are functions of the recipe and the step, so parameters, AdamW's moments, the random state (of dropout) and the record of
losses are all that must be kept. The file is safetensors, because what comes back from storage is not to be unpickled.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hub.lora.core.errors import LoraError
from hub.vocabulary import Ending


class CheckpointMismatch(LoraError):
    code = "checkpoint_mismatch"


@dataclass
class Standing:
    """What has happened up to `step`: each step's loss, or its other numbers, (step, loss) of each validation, the step and parameters
    of the best one."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)
    validations: list[tuple[int, float]] = field(default_factory=list)
    ending: Ending | None = None
    best_step: int | None = None
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def best_loss(self) -> float:
        return dict(self.validations).get(self.best_step, math.inf) if self.best_step is not None else math.inf


def save(
    path: Path,
    digest: str,
    standing: Standing,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write the file beside its place and move it there whole. `digest` says what run it belongs to."""
    tensors = {"random": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random_cuda"] = torch.cuda.get_rng_state()
    for name, parameter in parameters.items():
        tensors[f"parameter {name}"] = parameter.detach().cpu()
        for moment in ("exp_avg", "exp_avg_sq"):
            if optimizer.state[parameter]:
                tensors[f"{moment} {name}"] = optimizer.state[parameter][moment].cpu()
    tensors |= {f"best {name}": tensor for name, tensor in standing.best.items()}
    record = {each.name: getattr(standing, each.name) for each in fields(standing) if each.name != "best"}
    fresh = path.with_suffix(".fresh")
    save_file(tensors, fresh, metadata={"digest": digest, "standing": json.dumps(record)})
    fresh.replace(path)


def load(path: Path, digest: str, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> Standing:
    """Set parameters, moments and random state to what the file holds. Raises CheckpointMismatch if it belongs to another run."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        if metadata.get("digest") != digest:
            raise CheckpointMismatch(
                f"{path.name} was written by a training run with another base, recipe or other examples. Start anew."
            )
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    record = json.loads(metadata["standing"])
    record["validations"] = [(step, loss) for step, loss in record["validations"]]
    standing = Standing(**record)
    torch.set_rng_state(tensors["random"])
    if "random_cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random_cuda"])
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[f"parameter {name}"])
        if f"exp_avg {name}" in tensors:
            optimizer.state[parameter] = {
                "step": torch.tensor(float(standing.step)),
                "exp_avg": tensors[f"exp_avg {name}"].to(parameter.device),
                "exp_avg_sq": tensors[f"exp_avg_sq {name}"].to(parameter.device),
            }
        if f"best {name}" in tensors:
            standing.best[name] = tensors[f"best {name}"]
    return standing
