"""The names of a run's identities, and which of them another run had."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facescale.config import Config
from facescale.data.readers.base import People, Reader, people_of
from facescale.data.readers.known import WithKnownPeople
from facescale.data.spec import split_sources
from facescale.files import write_atomically
from facescale.guard.reading import read_object

# N identities


def write_identities(file: Path, config: Config, reader: Reader) -> None:
    """Save the names of a run's identities; without names (synthetic faces) identity i is called i."""
    people = _people(config, reader)
    known = {
        "sources": list(people.sources),
        "identities": np.bincount(people.source_N, minlength=len(people.sources)).tolist(),
        "names": list(people.names) if people.named else None,
    }
    write_atomically(file, json.dumps(known))


def old_numbers(file: Path, config: Config, reader: Reader) -> Tensor:
    """For every identity of the data, int64 (N,), its number in the run that wrote ``file``, or -1.

    Identities are the same if their names are (without names: their numbers) and their sources are. A single
    source is the same as another single one, wherever it lies. Among joined sources, one is the same as
    another with the same path, or else with the same last folder.

    Raises:
        ValueError: there is no such file, or it is damaged.
    """
    old, new = _read(file, config), _people(config, reader)
    same = _same_sources(old.sources, new.sources)
    numbers = {who: i for i, who in enumerate(zip(old.source_N.tolist(), old.names, strict=True))}
    wanted = zip(new.source_N.tolist(), new.names, strict=True)
    return torch.tensor([numbers.get((same[source], name), -1) for source, name in wanted])


def with_people_of(file: Path, config: Config, reader: Reader) -> Reader:
    """The data, with all people of the run that wrote ``file`` as identities, with images or without.

    Raises:
        ValueError: there is no such file, or it is damaged.
    """
    old, new = _read(file, config), _people(config, reader)
    old_N = old_numbers(file, config, reader).numpy()
    fresh: list[int] = np.flatnonzero(old_N < 0).tolist()
    used, place = np.unique(new.source_N[fresh], return_inverse=True)
    people = People(
        # A name of their own, so that they are told from the old run's people of the same source.
        [*old.sources, *(f"{new.sources[i]} (new)" for i in used)],
        np.concatenate([old.source_N, len(old.sources) + place]),
        [*old.names, *(new.names[i] for i in fresh)],
        old.named or new.named,
    )
    return WithKnownPeople(reader, old_N, people)


def num_identities(file: Path, config: Config) -> int:
    """How many identities the run has that wrote ``file``.

    Raises:
        ValueError: there is no such file, or it is damaged.
    """
    return len(_read(file, config).source_N)


def people_changes(file: Path, config: Config, reader: Reader) -> list[str]:
    """Who came and who left since the run that wrote ``file`` was started; nothing if nobody did.

    Joined sources are compared by their place among the others, wherever they lie.

    Raises:
        ValueError: the file is damaged.
    """
    old, new = _read(file, config), _people(config, reader)
    before, now = (list(zip(one.source_N.tolist(), one.names, strict=True)) for one in (old, new))
    if before == now:
        return []
    there, here = set(before), set(now)
    came = [name for source, name in now if (source, name) not in there]
    left = [name for source, name in before if (source, name) not in here]
    if not came and not left:
        return ["the same people in another order"]
    pairs = ((came, "added"), (left, "removed"))
    parts = [f"{len(who):,} {word} (such as '{who[0]}')" for who, word in pairs if who]
    return [f"{len(now):,} people instead of {len(before):,}: {', '.join(parts)}"]


def _people(config: Config, reader: Reader) -> People:
    """People of the data, their sources as the config names them."""
    people, sources = people_of(reader), split_sources(config.data.train)
    return _apart(people.names, sources, people.named) if len(people.sources) == 1 else people


def _apart(names: Sequence[str], sources: Sequence[str], named: bool = True) -> People:
    """People of ``sources``; where these are joined, the names begin with the source of each."""
    if len(sources) == 1:
        return People(sources, np.zeros(len(names), np.int64), names, named)
    found_in = [next((i for i, one in enumerate(sources) if name.startswith(f"{one}/")), 0) for name in names]
    alone = [name.removeprefix(f"{sources[i]}/") for name, i in zip(names, found_in, strict=True)]
    return People(sources, np.array(found_in, np.int64), alone, named)


def _read(file: Path, config: Config) -> People:
    """What ``write_identities`` wrote."""
    network_alone = (
        "to start from the network alone, set train.init to the model.safetensors of one of its checkpoints"
    )
    if not file.exists():
        raise ValueError(f"{file.parent} does not name its identities (no {file.name}); {network_alone}")
    then = f"put it back from a copy; or, {network_alone}"
    people = _parsed(read_object(file, "the identities", advice=then), config)
    if people is None:
        raise ValueError(f"'{file}' is damaged (it does not list names by source); {then}")
    return people


def _parsed(found: dict[str, Any], config: Config) -> People | None:
    """People as saved; None if that is not what is there."""
    sources, counts, names = found.get("sources"), found.get("identities"), found.get("names")
    if sources is None:  # as version 0.1.0 saved it
        return _parsed_flat(found, config)
    if not (_texts(sources) and isinstance(counts, list) and len(counts) == len(sources)):
        return None
    if not all(isinstance(count, int) and 0 <= count < 2**40 for count in counts):
        return None
    if names is not None and not (_texts(names) and len(names) == sum(counts)):
        return None
    source_N = np.repeat(np.arange(len(sources)), counts)
    numbers = names if names is not None else [str(number) for number in range(sum(counts))]
    return People(sources, source_N, numbers, names is not None)


def _parsed_flat(found: dict[str, Any], config: Config) -> People | None:
    """People of a file in which the names of joined sources begin with the source."""
    source, count, names = found.get("source"), found.get("num_ids"), found.get("names")
    if not isinstance(source, str) or not isinstance(count, int):
        return None
    if names is None:
        return _apart([str(number) for number in range(count)], [source], named=False)
    if not _texts(names) or len(names) != count:
        return None
    return _apart(names, [source] if source else split_sources(config.data.train))


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _same_sources(old: Sequence[str], new: Sequence[str]) -> list[int]:
    """For each source of ``new`` the number of the same one in ``old``, or -1."""
    if len(old) == len(new) == 1 or list(map(_place, old)) == list(map(_place, new)):
        return list(range(len(new)))
    same = [-1] * len(new)
    for name_of in (str, _place, lambda text: Path(_place(text)).name):
        there = [name_of(text) if number not in same else None for number, text in enumerate(old)]
        here = [name_of(text) if same[number] < 0 else None for number, text in enumerate(new)]
        for number, name in enumerate(here):
            if name is not None and here.count(name) == there.count(name) == 1:
                same[number] = there.index(name)
    return same


def _place(source: str) -> str:
    """A path without what may be written or left out: a last slash, the file's name in a folder."""
    return source.removesuffix("train.rec").rstrip("/")
