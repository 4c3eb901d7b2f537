"""Short names for the layers that an adapter targets."""

from collections.abc import Collection

from torch import nn


def target_names(model: nn.Module, paths: Collection[str]) -> list[str]:
    """Short names ("q_proj") where they mean exactly these layers, as serving engines prefer them; else the full paths."""
    leaves = {path.rpartition(".")[2] for path in paths}
    named = {path for path, _ in model.named_modules() if path.rpartition(".")[2] in leaves}
    return sorted(leaves) if named == set(paths) else sorted(paths)
