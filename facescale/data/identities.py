"""The names of a run's identities, and which of them another run had."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facescale.config import Config
from facescale.data.readers.base import Reader
from facescale.data.readers.known import WithKnownPeople
from facescale.data.spec import split_sources
from facescale.files import read_json, write_atomically


def write_identities(file: Path, config: Config, reader: Reader) -> None:
    """Save the names of a run's identities; without names (synthetic faces) identity i is called i."""
    names: Sequence[str] | None = getattr(reader, "names", None)
    known = {"source": _source(config), "num_ids": reader.num_ids, "names": names and list(names)}
    write_atomically(file, json.dumps(known))


def old_numbers(file: Path, config: Config, reader: Reader) -> Tensor:
    """For every identity of the data, int64 (N,), its number in the run that wrote ``file``, or -1.

    Identities are the same if their names are; without names, if their numbers are. Where one run has a
    single source and the other joins it with more, the label that joining puts before a name is ignored.

    Raises:
        ValueError: there is no such file.
    """
    old = _read(file)
    new_names: Sequence[str] | None = getattr(reader, "names", None)
    if old["names"] is None and new_names is None:
        number_N = torch.arange(reader.num_ids)
        return torch.where(number_N < old["num_ids"], number_N, -1)
    old_names = _names(old["names"], old["num_ids"], _source(config))
    numbers = {name: number for number, name in enumerate(old_names)}
    return torch.tensor([numbers.get(name, -1) for name in _names(new_names, reader.num_ids, old["source"])])


def with_people_of(file: Path, config: Config, reader: Reader) -> Reader:
    """The data, with all people of the run that wrote ``file`` as identities, with images or without.

    Raises:
        ValueError: there is no such file.
    """
    old, old_N = _read(file), old_numbers(file, config, reader).numpy()
    new_names: Sequence[str] | None = getattr(reader, "names", None)
    names = None
    if old["names"] is not None or new_names is not None:
        cleaned = _names(new_names, reader.num_ids, old["source"])
        names = _names(old["names"], old["num_ids"], _source(config))
        names += [name for name, number in zip(cleaned, old_N, strict=True) if number < 0]
    return WithKnownPeople(reader, old_N, old["num_ids"], names)


def check_identities(file: Path, config: Config, reader: Reader) -> None:
    """Check that the data has the identities of the run that wrote ``file``, in the same order.

    Raises:
        ValueError: it has others, so the run cannot continue with it.
    """
    number_N, before = old_numbers(file, config, reader), _read(file)["num_ids"]
    if len(number_N) != before or not torch.equal(number_N, torch.arange(before)):
        kept = int((number_N >= 0).sum())
        raise ValueError(
            f"the data has other identities than when {file.parent} was started ({before}; now "
            f"{len(number_N)}, {len(number_N) - kept} of them new); start another run with "
            f"--set train.init={file.parent}"
        )


def _read(file: Path) -> dict[str, Any]:
    """What ``write_identities`` wrote."""
    network_alone = (
        "to start from the network alone, set train.init to the model.safetensors of one of its checkpoints"
    )
    if not file.exists():
        raise ValueError(f"{file.parent} does not name its identities (no {file.name}); {network_alone}")
    then = f"put it back from a copy; or, {network_alone}"
    old: dict[str, Any] = read_json(file, dict, then)
    names, count = old.get("names"), old.get("num_ids")
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not (names is None or (is_list and len(names) == count)) or not isinstance(count, int):
        raise ValueError(f"'{file}' is damaged (it does not list {count} names); {then}")
    if not isinstance(old.get("source"), str):
        raise ValueError(f"'{file}' is damaged (it names no source); {then}")
    return old


def _source(config: Config) -> str:
    """The source of the data if it is a single one, else nothing."""
    sources = split_sources(config.data.train)
    return sources[0] if len(sources) == 1 else ""


def _names(names: Sequence[str] | None, num_ids: int, single: str) -> list[str]:
    """Names, without the label that joining put before those of the source ``single``."""
    found = [str(number) for number in range(num_ids)] if names is None else names
    return [name.removeprefix(f"{single}/") for name in found] if single else list(found)
