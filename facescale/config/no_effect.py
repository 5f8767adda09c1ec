"""Values that a user set and that nothing reads; defaults are not among the tables as written, nor meant."""

from collections.abc import Iterator, Mapping
from typing import Any

from facescale.config.mistakes import Mistake, dotted
from facescale.config.schema import DataConfig, OptimConfig

Table = Mapping[str, Any]

_OF_OPTIMIZER = {"momentum": "sgd", "nesterov": "sgd", "betas": "adamw"}
_OF_SCHEDULE = {"power": "polynomial", "milestones": "multistep", "gammas": "multistep"}


def unread_data(data: Table) -> Iterator[Mistake]:
    """Keys of [data] that the chosen sampling does not read."""
    sampling = data.get("sampling", DataConfig.model_fields["sampling"].default)
    why = f"data.sampling = '{sampling}'"
    if sampling != "pxk":
        yield from _no_effect(data, ("data", "images_per_identity"), why, "data.sampling = 'pxk'")
    if sampling != "images":
        yield from _no_effect(data, ("data", "weights"), why, "data.sampling = 'images'")


def unread_optim(optim: Table, head: Table) -> Iterator[Mistake]:
    """Keys of [optim] that neither the optimizer of the backbone nor that of the class centres reads.

    Args:
        optim: the section.
        head: options of the head.
    """
    name, schedule = _chosen(optim, "name"), _chosen(optim, "schedule")
    for key, wanted in _OF_OPTIMIZER.items():
        if wanted not in (name, head.get("optimizer")):
            yield from _no_effect(optim, ("optim", key), f"optim.name = '{name}'", f"optim.name = '{wanted}'")
    for key, wanted in _OF_SCHEDULE.items():
        if wanted != schedule:
            why, instead = f"optim.schedule = '{schedule}'", f"optim.schedule = '{wanted}'"
            yield from _no_effect(optim, ("optim", key), why, instead)
    if schedule == "multistep" and not optim.get("milestones"):
        yield from _no_effect(optim, ("optim", "gammas"), "optim.milestones = []", "optim.milestones")


def unread_by_head(optim: Table, head: Table) -> Iterator[Mistake]:
    """Options of the head that it does not read.

    Args:
        optim: the section.
        head: options of the head.
    """
    if head.get("size"):
        yield from _no_effect(head, ("head", "share"), f"head.size = {head['size']}", "head.size = 0")
    optimizer = head.get("optimizer", _chosen(optim, "name"))
    for key, wanted in _OF_OPTIMIZER.items():
        if wanted != optimizer:
            why, instead = f"optimizer '{optimizer}' of the class centres", f"head.optimizer = '{wanted}'"
            yield from _no_effect(head, ("head", key), why, instead)


def unread_twin(twin: Table, head_name: str) -> Iterator[Mistake]:
    """Keys of [twin], for a head without one."""
    why, instead = f"head.name = '{head_name}', which has no twin", "head.name = 'attfc' or 'f2c'"
    for key in twin:
        yield from _no_effect(twin, ("twin", key), why, instead)


def unread_train(train: Table) -> Iterator[Mistake]:
    """Keys of [train] that nothing reads."""
    if not train.get("roll_back_after"):
        why, instead = "train.roll_back_after = 0", "train.roll_back_after = 5"
        yield from _no_effect(train, ("train", "roll_back_rate"), why, instead)


def _chosen(optim: Table, key: str) -> Any:
    return optim.get(key, OptimConfig.model_fields[key].default)


def _no_effect(table: Table, key: tuple[str, ...], why: str, instead: str) -> Iterator[Mistake]:
    if key[-1] in table:
        text = f"has no effect with {why}; take it out (--set {dotted(key)}=), or set {instead}"
        yield Mistake((key,), text, table[key[-1]])
