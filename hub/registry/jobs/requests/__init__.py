"""What may be asked of the workers: one module a kind of job, each with its request and how that is checked and pinned."""

from typing import Annotated

from pydantic import Field

from hub.registry.datasets.examples import AmbiguousFile, Examples, ExampleText
from hub.registry.jobs.requests.common import (
    IncompatibleModules,
    NotAnAdapter,
    Request,
    WiderThanInputs,
    check_not_wider,
)
from hub.registry.jobs.requests.compose import ComposeRequest
from hub.registry.jobs.requests.convert import ConvertRequest
from hub.registry.jobs.requests.evaluate import EvaluateRequest
from hub.registry.jobs.requests.generate import GenerateRequest
from hub.registry.jobs.requests.par import ParRequest
from hub.registry.jobs.requests.reduce import ReduceRequest
from hub.registry.jobs.requests.train import TrainRequest

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
