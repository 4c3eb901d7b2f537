"""How much a job computes, in bytes of examples that go through the model; of use only beside other jobs of its kind.

Settings come by the names of the request: those of a job that was queued, or those of a form as far as it is filled in.
"""

from collections.abc import Mapping, Sequence, Sized

Settings = Mapping[str, object]

ANSWERS = 4  # passes over the held-out examples: those of some arms, whose answers are written out


def composition(settings: Settings, examples: int, held_out: int) -> float:
    evaluations = number(settings, "budget", 10 if settings.get("search") == "gradient" else 40)
    tune = settings.get("tune")
    tuning = number(tune, "steps", 0) if isinstance(tune, Mapping) else 0
    tried = count(settings, "modules") if number(settings, "choose", 0) else 0
    return examples * (evaluations + tuning + tried) + ANSWERS * held_out + 1


def training(settings: Settings, examples: int, held_out: int) -> float:
    passes = number(settings, "epochs", 3)
    if steps := number(settings, "steps", 0):
        # How many bytes an example has is not known before it is read; 200 is a question and its answer.
        rows = steps * number(settings, "batch_size", 8) * number(settings, "accumulation", 1)
        passes = rows * 200 / max(examples, 1)
    searched = settings.get("compare") or settings.get("lr_search") is not None
    rates = count(settings, "rates") or (5 if searched else 0)
    arms = 1 + count(settings, "compare")
    return examples * passes * arms * (1 + rates / 5) + ANSWERS * held_out + 1


def par_training(settings: Settings, examples: int, held_out: int) -> float:
    return examples * (1 + count(settings, "compare")) + ANSWERS * held_out + 1


def reduction(settings: Settings, examples: int, held_out: int) -> float:
    trials = 20 if settings.get("subject") == "module" else 2 * number(settings, "budget", 10) + 3
    return examples * trials + ANSWERS * held_out + 1


def evaluation(settings: Settings, examples: int, held_out: int) -> float:
    return examples * (count(settings, "modules") + bool(settings.get("include_base"))) + 1


def same_for_all(settings: Settings, examples: int, held_out: int) -> float:
    """Of a kind that reads no examples."""
    return 1.0


def number(settings: Settings, name: str, default: float) -> float:
    """The default also where what was typed is not a number yet."""
    value = settings.get(name)
    try:
        return float(value or default) if isinstance(value, int | float | str) else default
    except ValueError:
        return default


def count(settings: Settings, name: str) -> int:
    values = settings.get(name)
    return len(values) if isinstance(values, Sequence | Sized) else 0
