"""Embeddings that were computed before, on disk: by weights, preprocessing and content of the image.

A second protocol on the same images then reads their bytes and no more. N images, D embedding width.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from facescale.arrays import BoolArray, IntArray
from facescale.data.images import Images
from facescale.data.readers.base import BadRecordError
from facescale.files import replacing

MAX_BYTES = 8 << 30  # four million embeddings of width 512
Digests = npt.NDArray[np.uint64]  # (N, 2)

_INDEX = np.dtype(
    [("digest", "<u8", 2), ("width", "<i4"), ("height", "<i4"), ("norm", "<f4"), ("sum_norm", "<f4")]
)


@runtime_checkable
class Digested(Protocol):
    """Images that can name their content without decoding it."""

    def digest(self, index: int) -> bytes:
        """16 bytes that change with the pixels that the network would see."""
        ...


@dataclass(frozen=True)
class Features:
    """What is kept of N images.

    Attributes:
        unit_ND: float32 (N, D), rows of length 1.
        norm_N: float32 (N,), see `facescale.evaluate.embedding.Embedded`.
        sum_norm_N: float32 (N,), the same.
        size_N2: int32 (N, 2), width and height before scaling.
    """

    unit_ND: npt.NDArray[np.float32]
    norm_N: npt.NDArray[np.float32]
    sum_norm_N: npt.NDArray[np.float32]
    size_N2: npt.NDArray[np.int32]


def merged(is_first_N: BoolArray, first: Features, second: Features) -> Features:
    """Features of N images, of which the first part belongs where ``is_first_N`` and the second elsewhere."""
    place = np.argsort(np.concatenate([np.flatnonzero(is_first_N), np.flatnonzero(~is_first_N)]))
    names = [field.name for field in fields(Features)]
    return Features(*(np.concatenate([getattr(first, n), getattr(second, n)])[place] for n in names))


class FeatureCache:
    """A folder of features, of any number of networks.

    A file appears under its name when it is complete, so a crash leaves nothing that could be misread. Above
    ``max_bytes`` the oldest files go, those of other weights first. What cannot be written is not kept.

    Args:
        folder: where; made when something is kept.
        weights: everything about the network that an embedding depends on.
        max_bytes: limit of the whole folder.
    """

    def __init__(self, folder: Path, weights: Mapping[str, str], max_bytes: int = MAX_BYTES) -> None:
        self._folder, self._weights, self._max_bytes = folder, dict(weights), max_bytes

    def under(self, **preparation: Any) -> "CachedFeatures":
        """The features of images that were prepared in one way (size, flip, ...)."""
        text = json.dumps([self._weights, preparation], sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        return CachedFeatures(self._folder / name, self._max_bytes)


class CachedFeatures:
    """The features of one network and preparation; see `FeatureCache.under`."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._units: list[npt.NDArray[np.float32]] = []
        tables = []
        for path in sorted(folder.glob("*.index.npy")):
            try:
                table = np.load(path, allow_pickle=False)
                units = np.load(_units_of(path), mmap_mode="r", allow_pickle=False)
            except (
                Exception
            ):  # removed meanwhile, or damaged, which numpy has many errors for: computed again
                continue
            if table.ndim != 1 or units.ndim != 2:
                continue
            width = self._units[0].shape[1] if self._units else units.shape[1]
            if table.dtype == _INDEX and units.dtype == np.float32 and units.shape == (len(table), width):
                self._units.append(units)
                tables.append(table)
        self._table = np.concatenate([np.empty(0, _INDEX), *tables])
        starts = np.cumsum([0, *map(len, tables)])
        self._block = np.repeat(np.arange(len(tables)), np.diff(starts))
        self._row = np.arange(len(self._table)) - starts[self._block]
        self._order = np.argsort(self._table["digest"][:, 0], kind="stable")
        self._sorted = self._table["digest"][self._order, 0]

    def find(self, digests_N2: Digests) -> tuple[BoolArray, Features | None]:
        """Which images are known (N,), and the features of those, in order; None if there are none."""
        if not len(self._table):
            return np.zeros(len(digests_N2), bool), None
        place = np.searchsorted(self._sorted, digests_N2[:, 0]).clip(max=len(self._sorted) - 1)
        entry = self._order[place]
        known = (self._table["digest"][entry] == digests_N2).all(axis=1)
        return known, self._read(entry[known]) if known.any() else None

    def _read(self, entry: IntArray) -> Features:
        unit_ND = np.empty((len(entry), self._units[0].shape[1]), np.float32)
        for block in np.unique(self._block[entry]):
            here = self._block[entry] == block
            unit_ND[here] = self._units[block][self._row[entry[here]]]
        found = self._table[entry]
        sizes = np.stack([found["width"], found["height"]], axis=1)
        return Features(unit_ND, found["norm"], found["sum_norm"], sizes)

    def keep(self, digests_N2: Digests, features: Features) -> None:
        """Write the features of N images; a full or read-only disk keeps nothing."""
        table = np.zeros(len(digests_N2), _INDEX)
        table["digest"] = digests_N2
        table["width"], table["height"] = features.size_N2.T
        table["norm"], table["sum_norm"] = features.norm_N, features.sum_norm_N
        path = self._folder / f"{time.time_ns():020d}_{os.getpid()}.index.npy"
        try:
            for target, array in ((_units_of(path), features.unit_ND), (path, table)):  # the index last
                with replacing(target) as temporary, temporary.open("wb") as file:
                    np.save(file, array, allow_pickle=False)
            self._evict()
        except OSError:
            with suppress(OSError):
                _units_of(path).unlink(missing_ok=True)

    def _evict(self) -> None:
        files = []
        for path in self._folder.parent.glob("*/*.npy"):
            with suppress(FileNotFoundError):  # another process renames or removes files meanwhile
                files.append((path.parent == self._folder, path.name, path, path.stat().st_size))
        total = sum(size for *_, size in files)
        for *_, path, size in sorted(files):  # those of this network last; names begin with the time
            if total <= self._max_bytes:
                break
            total -= size
            path.unlink(missing_ok=True)


def _units_of(index: Path) -> Path:
    return index.with_name(index.name.replace(".index.", ".units."))


def digests_of(images: Images, indices: Iterable[int]) -> Digests:
    """Digest of the content of each image, uint64 (N, 2); of an unreadable one 0, which nothing has."""
    return np.frombuffer(b"".join(_digest(images, index) for index in indices), "<u8").reshape(-1, 2)


def _digest(images: Images, index: int) -> bytes:
    try:
        if isinstance(images, Digested):
            return images.digest(index)
        content = images[index]
    except BadRecordError:
        return bytes(16)
    return content_digest(content if isinstance(content, bytes) else _pixel_bytes(content))


def content_digest(*parts: bytes) -> bytes:
    """16 bytes that stand for all ``parts``."""
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        hashed.update(len(part).to_bytes(8, "little"))
        hashed.update(part)
    return hashed.digest()


def _pixel_bytes(pixels: npt.NDArray[np.uint8]) -> bytes:
    return repr(pixels.shape).encode() + pixels.tobytes()
