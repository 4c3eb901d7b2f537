"""Shared by the tests of the methods: a tiny random base, adapters that real PEFT wrote for it, and the built-in base."""

import copy
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from hub.lora.core import bases
from hub.lora.core.bases import Base
from hub.lora.core.built_in import BUILT_IN_ID, BUILT_IN_SHA256, convert_built_in
from tests import tiny_models

MakeAdapter = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_base() -> Base:
    """`tests.tiny_models.tiny_base`; tests leave it unchanged."""
    return tiny_models.tiny_base()


@pytest.fixture(scope="session")
def make_adapter(tiny_base: Base, tmp_path_factory: pytest.TempPathFactory) -> MakeAdapter:
    """make_adapter(name, seed, rank, alpha, targets, **lora_config): a folder that PEFT saved for `tiny_base`; B is not zero."""

    def make(
        name: str,
        seed: int = 0,
        rank: int = 4,
        alpha: float = 8,
        targets: str | Sequence[str] = ("q_proj", "v_proj"),
        **lora_config: Any,
    ) -> Path:
        target_modules = targets if isinstance(targets, str) else list(targets)
        config = LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=target_modules, task_type="CAUSAL_LM", **lora_config
        )
        with warnings.catch_warnings():
            # PEFT 0.21 asks a transformers 5.23 model for a property by its deprecated name.
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
            model = get_peft_model(copy.deepcopy(tiny_base.model), config)
        model.peft_config["default"].base_model_name_or_path = tiny_base.id
        generator = torch.Generator().manual_seed(seed)
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                nn.init.normal_(parameter, std=0.2, generator=generator)
        folder = tmp_path_factory.mktemp("adapters") / name
        model.save_pretrained(folder, save_embedding_layers=False)  # "auto" would ask a hub about the base's vocabulary
        return folder

    return make


@pytest.fixture(scope="session")
def built_in_folder(pytestconfig: pytest.Config) -> Path:
    """The built-in base, converted once and kept between runs in pytest's cache."""
    return convert_built_in(pytestconfig.cache.mkdir("built-in") / BUILT_IN_SHA256[:12])


@pytest.fixture(scope="session")
def built_in(built_in_folder: Path) -> Base:
    return bases.load(built_in_folder, id=BUILT_IN_ID)
