"""Why a file of another tool cannot become a PEFT adapter."""

from hub.lora.core.errors import LoraError


class FactMissing(LoraError):
    """The format does not record something that PEFT needs."""

    code = "fact_missing"


class NotConvertible(LoraError):
    """No PEFT adapter computes the same."""

    code = "not_convertible"
