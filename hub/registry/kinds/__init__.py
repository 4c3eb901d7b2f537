"""What may be asked of the workers: one module a kind of job, each with its request and how that is checked and pinned."""

from typing import Annotated

from pydantic import Field

from hub.registry.kinds.common import (
    AmbiguousFile,
    Examples,
    ExampleText,
    IncompatibleModules,
    NotAnAdapter,
    Request,
    WiderThanInputs,
    check_not_wider,
)
from hub.registry.kinds.compose import ComposeRequest
from hub.registry.kinds.convert import ConvertRequest
from hub.registry.kinds.evaluate import EvaluateRequest
from hub.registry.kinds.generate import GenerateRequest
from hub.registry.kinds.par import ParRequest
from hub.registry.kinds.reduce import ReduceRequest
from hub.registry.kinds.train import TrainRequest

__all__ = [
    "AmbiguousFile",
    "ExampleText",
    "Examples",
    "IncompatibleModules",
    "JobRequest",
    "NotAnAdapter",
    "Request",
    "WiderThanInputs",
    "check_not_wider",
]

JobRequest = Annotated[
    ComposeRequest | ConvertRequest | EvaluateRequest | GenerateRequest | ParRequest | ReduceRequest | TrainRequest,
    Field(discriminator="kind"),
]
