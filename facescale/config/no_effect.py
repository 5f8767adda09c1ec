"""Values that a user set and that the optimizer or the schedule does not read."""

from collections.abc import Iterator, Mapping
from typing import Any

from facescale.config.mistakes import Mistake
from facescale.config.schema import OptimConfig

# key of [optim] -> the key that must have a certain value for it to be read
_READ_WITH = {
    "momentum": ("name", "sgd"),
    "nesterov": ("name", "sgd"),
    "betas": ("name", "adamw"),
    "power": ("schedule", "polynomial"),
    "milestones": ("schedule", "multistep"),
    "gammas": ("schedule", "multistep"),
}


def unread_optim(optim: Mapping[str, Any], head_optimizer: Any = None) -> Iterator[Mistake]:
    """Keys that are set in [optim] and not read. Only keys in ``optim`` are meant, so defaults are never.

    Args:
        optim: the section as written.
        head_optimizer: the optimizer of the class centres, where it is set apart.
    """
    for key, (chooser, wanted) in _READ_WITH.items():
        chosen = optim.get(chooser, OptimConfig.model_fields[chooser].default)
        if key in optim and chosen != wanted and not (chooser == "name" and head_optimizer == wanted):
            yield no_effect(
                ("optim", key), optim[key], f"optim.{chooser} = {chosen!r}", f"optim.{chooser} = {wanted!r}"
            )
    if optim.get("schedule") == "multistep" and "gammas" in optim and not optim.get("milestones"):
        yield no_effect(("optim", "gammas"), optim["gammas"], "optim.milestones = []", "optim.milestones")


def no_effect(key: tuple[str, ...], value: Any, why: str, instead: str) -> Mistake:
    """The mistake of a value that nothing reads."""
    return Mistake((key,), f"has no effect with {why}; leave it out, or set {instead}", value)
