"""Read tar shards that cannot be read at any place: one after the other, each from its start."""

from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from facescale.arrays import IntArray
from facescale.data.readers.base import BadRecordError
from facescale.data.readers.shards import ShardReader
from facescale.data.readers.stream_files import StreamFiles
from facescale.data.spec import parse_options, split_options

_WINDOW = 8192  # images that are shuffled among each other
_KEPT = 3  # windows whose images stay in memory
_LARGEST = 1 << 28  # bytes of an image
_PATIENCE, _AT_LEAST = 1000, 1000  # images passed over for each one used, before the order is called wrong


class StreamReader(ShardReader):
    """Tar shards that can only be read from their start: compressed, or of a server without ranges.

    ``PATTERN?window=8192`` names the shards as ``shards:`` does. They are read once to find labels and sizes,
    which are kept. A training takes the shards in another order each epoch and shuffles ``window`` images
    among each other: still a function of (seed, epoch, index), but less random than any order. It continues
    at the start of a shard and passes over what it had. Every process reads all shards.

    Attributes:
        window: images that are shuffled among each other.
        first_S: int64, first image of each shard that has images.

    Raises:
        ValueError: as `facescale.data.readers.shards.ShardReader`, or a window below 1.
    """

    def __init__(self, spec: str | Path) -> None:
        text, options = split_options(str(spec), ["window"])
        given = ",".join(f"{key}={value}" for key, value in options.items())
        values = parse_options(given, {"window": int}, spec=str(spec), example="window=8192")
        self.window: int = values.get("window", _WINDOW)
        if self.window < 1:
            raise ValueError(f"window = {self.window} of '{spec}' must be at least 1 image")
        super().__init__(spec, StreamFiles(text))
        self.first_S: IntArray = np.flatnonzero(np.diff(self._index.shard_N, prepend=-1))
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._next: dict[int, int] = {}  # first image of a shard -> the next one that its file gives
        self._read = self._used = 0
        self._lock = Lock()

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """Encoded image and identity of ``index``.

        Raises:
            BadRecordError: its file cannot be read.
            ValueError: images are asked for in an order that a stream cannot follow.
        """
        index = range(len(self))[index]
        with self._lock:
            if index not in self._kept:
                self._read_to(index)
            self._used += 1
            return self._kept[index], int(self.ids[index])

    def image_size(self, index: int) -> int | None:
        """None: asking would read all before it, so a digest compares names and sizes alone."""
        return None

    def _read_to(self, index: int) -> None:
        """Read the shard of an image up to it, and keep what is passed."""
        first = int(self.first_S[np.searchsorted(self.first_S, index, side="right") - 1])
        start = self._next.get(first, first)
        if start > index:  # passed already, and not kept
            start = first
        self._read += index + 1 - start
        if self._read > _PATIENCE * (self._used + _AT_LEAST):
            raise ValueError(
                f"the images of '{self.files.names[0]}' are asked for in an order that a stream cannot"
                " follow; copy them to shards first: facescale convert-data stream:... FOLDER --form shards"
            )
        places = self._index
        self._next.pop(first, None)
        for one in range(start, index + 1):
            size = int(places.size_N[one])
            if size > _LARGEST:
                raise BadRecordError(f"the image has {size:,} bytes, more than any photo")
            data = self.files.read(int(places.shard_N[one]), int(places.offset_N[one]), size)
            if len(data) < size:
                raise BadRecordError(f"'{self.key(one)}' ends before its last byte")
            self._kept[one] = data
            if len(self._kept) > _KEPT * self.window:
                self._kept.popitem(last=False)
        self._next[first] = index + 1

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": OrderedDict(), "_next": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = Lock()
