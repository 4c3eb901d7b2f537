"""A matrix to edit, and the check that no edit is left behind."""

import torch
from torch import Tensor

from hub.lora.core.bases import Base
from hub.lora.core.examples import Example

EXAMPLES = [Example("first", "one"), Example("a second one", "two"), Example("third", "three and more")]
PATH = "model.layers.1.mlp.down_proj"


def bits(base: Base) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in base.model.state_dict().items()}


def assert_untouched(base: Base, before: dict[str, Tensor]) -> None:
    after = base.model.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in base.model.parameters())
    assert not any(module._forward_pre_hooks for name, module in base.model.named_modules() if "layers" in name)
    assert not any("forward" in vars(module) for module in base.model.modules())
