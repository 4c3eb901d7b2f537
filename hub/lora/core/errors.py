"""The root of what a method can refuse or fail at. Each cause is a small subclass beside the code that raises it."""

from typing import ClassVar


class LoraError(Exception):
    """An error a person may read: the message says which thing, why, and what to do; `code` tells causes apart in a job's record."""

    code: ClassVar[str] = "lora_error"
