"""The protocol every data source obeys: encoded images and int64 identities by index."""

import os
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from facescale.arrays import IntArray, Pixels
from facescale.data.sampling.counter_rng import Uints, hash64_each


class BadRecordError(ValueError):
    """One image cannot be read or decoded; the rest of its set may be fine, so loaders skip and count it."""


@runtime_checkable
class Reader(Protocol):
    """A random-access set of encoded (or raw) face images, each with an identity.

    Readers are picklable, hold no open state that a forked or spawned process cannot rebuild, and are safe
    to call from several threads at once.

    Attributes:
        ids: int64 array (N,), the identity of each image, 0 <= id < num_ids.
        num_ids: number of identities.
    """

    @property
    def ids(self) -> IntArray:
        """Identity of every image, int64 (N,)."""
        ...

    @property
    def num_ids(self) -> int:
        """Number of identities."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def __getitem__(self, index: int) -> tuple[bytes | Pixels, int]:
        """Image ``index`` as encoded bytes (JPEG, PNG, ...) or raw uint8 (H, W, 3) RGB, and its identity.

        Raises:
            BadRecordError: this image cannot be read.
        """
        ...

    def key(self, index: int) -> str:
        """A name for image ``index`` that a person can find again (a path, a record key)."""
        ...


def passed_over(reader: Reader) -> Counter[str]:
    """Files beside the images that the source did not take, by kind; empty where a source has no files."""
    found: Counter[str] | None = getattr(reader, "passed_over", None)
    return Counter() if found is None else found


def image_sources(reader: Reader) -> IntArray:
    """Number of the joined source that each image is from, int64 (N,); 0 where nothing is joined."""
    found: IntArray | None = getattr(reader, "sources", None)
    return np.zeros(len(reader), np.int64) if found is None else found


def repeated_sources(reader: Reader) -> Sequence[str]:
    """Sources of a joined set that it holds more than once."""
    found: Sequence[str] = getattr(reader, "repeated", ())
    return found


def identity_names(reader: Reader) -> Sequence[str]:
    """What the source calls each identity: a folder's name, an original label; else its number."""
    names: Sequence[str] | None = getattr(reader, "names", None)
    return names if names is not None else [str(i) for i in range(reader.num_ids)]


class People(NamedTuple):
    """Who is in a data set.

    Attributes:
        sources: the joined sources, as the user named them; one without a name if nothing is joined.
        source_N: int64 (N,), the source of each identity.
        names: of each identity, in its source: an original name where a converted set kept it.
        named: False if the source knows numbers only (synthetic faces).
    """

    sources: Sequence[str]
    source_N: IntArray
    names: Sequence[str]
    named: bool


def people_of(reader: Reader) -> People:
    """Who is in a data set; see ``People``."""
    found: People | None = getattr(reader, "people", None)
    if found is not None:
        return found
    original: Sequence[str] | None = getattr(reader, "original_names", None)
    names = identity_names(reader) if original is None else original
    return People([""], np.zeros(reader.num_ids, np.int64), names, hasattr(reader, "names"))


def image_hashes(reader: Reader) -> Uints:
    """uint64 (N,): for each image a hash of its name, and of its size where that costs nothing to know.

    Where the data lie does not count, so a set that was moved or renamed has the same.
    """
    hashes: Callable[[], Uints] | None = getattr(reader, "image_hashes", None)
    if hashes is not None:
        return hashes()
    keys = (zlib.crc32(os.fsencode(reader.key(index))) for index in range(len(reader)))
    return hash64_each(np.fromiter(keys, np.uint64, len(reader)))


def image_size(reader: Reader, index: int) -> int | None:
    """Bytes of a stored image; None if the source draws its images.

    0 where the size is part of ``image_hashes`` already, -1 if the file cannot be asked.
    """
    size: Callable[[int], int | None] | None = getattr(reader, "image_size", None)
    return None if size is None else size(index)
