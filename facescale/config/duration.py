"""Durations such as "20 epochs", "5000 steps" or "10%"."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)\s*(epochs?|steps?|%)")


def parse_duration(text: str) -> tuple[float, Literal["epoch", "step", "%"]]:
    """Split a duration such as "20 epochs", "5000 steps" or "10%" into number and unit.

    Raises:
        ValueError: not a duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError(f"'{text}' is not a duration; write 20 epochs, 5000 steps or 10% (of the run)")
    unit = match[2].rstrip("s")
    return float(match[1]), unit  # type: ignore[return-value]


def duration_steps(text: str, steps_per_epoch: int, total_steps: int | None = None) -> int:
    """Number of optimizer steps in a duration.

    Args:
        text: the duration.
        steps_per_epoch: steps in one pass over the data.
        total_steps: length of the run, which percentages refer to.

    Raises:
        ValueError: not a duration, or a percentage where the length of the run itself is being set.
    """
    number, unit = parse_duration(text)
    if unit == "step":
        return round(number)
    if unit == "epoch":
        return round(number * steps_per_epoch)
    if total_steps is None:
        raise ValueError(f"the run's own length cannot be '{text}'; give it in epochs or steps")
    return round(number / 100 * total_steps)


def _duration(value: Any) -> Any:
    parse_duration(str(value))
    return value


def _run_length(value: Any) -> Any:
    try:
        duration_steps(str(value), 1)
    except ValueError:
        raise ValueError(f"'{value}' is not the length of a run; write 20 epochs or 5000 steps") from None
    return value


Duration = Annotated[str, BeforeValidator(_duration), "duration"]
RunLength = Annotated[str, BeforeValidator(_run_length), "duration"]
