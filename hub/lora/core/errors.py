"""The base class of all errors of the methods. Each cause is a small subclass beside the code that raises it."""

from typing import ClassVar


class LoraError(Exception):
    """An error for a user: the message says what is wrong, why, and what to do. `code` identifies the cause in a job's record."""

    code: ClassVar[str] = "lora_error"
