"""Readers made of readers: several sources as one set, and part of a set."""

import os
from collections import Counter
from collections.abc import Sequence

import numpy as np

from facescale.arrays import IntArray, Pixels
from facescale.data.readers.base import (
    People,
    Reader,
    identity_names,
    image_hashes,
    image_size,
    image_sources,
    passed_over,
    people_of,
    repeated_sources,
)
from facescale.data.readers.info_file import data_info
from facescale.data.sampling.counter_rng import Uints, hash64_each


class ConcatReader:
    """Several sources one after the other; each keeps its own identities, whatever their names.

    Args:
        readers: the sources.
        labels: a name for each source, put before the names of its images and identities.
    """

    def __init__(self, readers: Sequence[Reader], labels: Sequence[str]) -> None:
        self._readers = list(readers)
        self._labels = list(labels)
        self._starts = np.cumsum([0, *(len(reader) for reader in readers)])
        self._first_ids = np.cumsum([0, *(reader.num_ids for reader in readers)])
        self.num_ids = int(self._first_ids[-1])
        self.ids: IntArray = np.concatenate(
            [reader.ids + first for reader, first in zip(readers, self._first_ids, strict=False)]
        )

    @property
    def names(self) -> Sequence[str]:
        """Name of each identity, below the label of its source."""
        return [
            f"{label}/{name}"
            for label, reader in zip(self._labels, self._readers, strict=True)
            for name in identity_names(reader)
        ]

    @property
    def people(self) -> People:
        """See ``base.People``: the sources keep their labels apart from the names."""
        parts = [people_of(reader) for reader in self._readers]
        source_N = np.repeat(np.arange(len(parts)), [len(part.names) for part in parts])
        return People(self._labels, source_N, [name for part in parts for name in part.names], named=True)

    def image_hashes(self) -> Uints:
        """See ``base.image_hashes``."""
        source_N = np.repeat(np.arange(len(self._readers)), np.diff(self._starts))
        return hash64_each(source_N, np.concatenate([image_hashes(reader) for reader in self._readers]))

    def image_size(self, index: int) -> int | None:
        """See ``base.image_size``."""
        source, place = self._place(index)
        return image_size(self._readers[source], place)

    @property
    def passed_over(self) -> Counter[str]:
        """Files that the sources did not take."""
        return sum((passed_over(reader) for reader in self._readers), Counter[str]())

    @property
    def sources(self) -> IntArray:
        """Source of every image."""
        return np.repeat(np.arange(len(self._readers)), np.diff(self._starts))

    @property
    def info(self) -> dict[str, str]:
        """What the sources tell of themselves, each text behind the label of its source."""
        found: dict[str, str] = {}
        for label, reader in zip(self._labels, self._readers, strict=True):
            for key, text in data_info(reader).items():
                found[key] = f"{found[key]}; {label}: {text}" if key in found else f"{label}: {text}"
        return found

    @property
    def repeated(self) -> Sequence[str]:
        """Sources that are there more than once, under whatever path."""
        first: dict[str, str] = {}
        for label in self._labels:
            first.setdefault(_place_of(label), label)
        counts = Counter(map(_place_of, self._labels))
        return [first[place] for place, count in counts.items() if count > 1]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> tuple[bytes | Pixels, int]:
        """Image ``index`` and its identity."""
        source, place = self._place(index)
        return self._readers[source][place][0], int(self.ids[index])

    def key(self, index: int) -> str:
        """Label of the source and its own name for image ``index``."""
        source, place = self._place(index)
        return f"{self._labels[source]}/{self._readers[source].key(place)}"

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} images")
        source = int(np.searchsorted(self._starts, index, side="right")) - 1
        return source, index - int(self._starts[source])


class SubsetReader:
    """The images ``indices`` of ``reader``; identities without any are gone, the others renumbered.

    Args:
        reader: the source.
        indices: int64 (M,), of the images.
        ids: int64 (M,), their identities in the source's numbers, where they are not the source's.
    """

    def __init__(self, reader: Reader, indices: IntArray, ids: IntArray | None = None) -> None:
        self._reader = reader
        self._indices = indices
        known = reader.ids[indices] if ids is None else ids
        self._kept_ids, self.ids = np.unique(known, return_inverse=True)
        self.num_ids = len(self._kept_ids)

    @property
    def names(self) -> Sequence[str]:
        """Name of each identity in the source."""
        names = identity_names(self._reader)
        return [names[i] for i in self._kept_ids]

    @property
    def people(self) -> People:
        """See ``base.People``."""
        people = people_of(self._reader)
        names = [people.names[i] for i in self._kept_ids]
        return People(people.sources, people.source_N[self._kept_ids], names, named=True)

    def image_hashes(self) -> Uints:
        """See ``base.image_hashes``."""
        return image_hashes(self._reader)[self._indices]

    def image_size(self, index: int) -> int | None:
        """See ``base.image_size``."""
        return image_size(self._reader, int(self._indices[index]))

    @property
    def passed_over(self) -> Counter[str]:
        """Files that the source did not take."""
        return passed_over(self._reader)

    @property
    def sources(self) -> IntArray:
        """Source of every image."""
        return image_sources(self._reader)[self._indices]

    @property
    def info(self) -> dict[str, str]:
        """What the source tells of itself."""
        return data_info(self._reader)

    @property
    def repeated(self) -> Sequence[str]:
        """Sources that the source holds more than once."""
        return repeated_sources(self._reader)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[bytes | Pixels, int]:
        """Image ``index`` and its identity."""
        return self._reader[int(self._indices[index])][0], int(self.ids[index])

    def key(self, index: int) -> str:
        """The source's name for image ``index``."""
        return self._reader.key(int(self._indices[index]))


def _place_of(source: str) -> str:
    """The real path of a source, the same for a record file and for the folder that holds it."""
    path = os.path.realpath(source) if os.path.exists(source) else source
    return path.removesuffix("/train.rec")


def with_min_images(reader: Reader, min_images: int) -> Reader:
    """``reader`` without the identities that have fewer than ``min_images`` images.

    Raises:
        ValueError: no identity has as many.
    """
    counts = np.bincount(reader.ids, minlength=reader.num_ids)
    if counts.min() >= min_images:
        return reader
    if counts.max() < min_images:
        raise ValueError(
            f"no identity has {min_images} images, the largest has {counts.max()}; lower min_images"
        )
    return SubsetReader(reader, np.flatnonzero(counts[reader.ids] >= min_images))
