"""Read MXNet RecordIO sets (train.rec + train.idx) as InsightFace and im2rec pack them, without mxnet."""

import os
import struct
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from facescale.arrays import IntArray
from facescale.data.readers.base import BadRecordError
from facescale.data.readers.labelled import Labelled, numbered
from facescale.data.readers.recordio_format import (
    FRAME,
    HEADER,
    KIND_BIT,
    MAGIC,
    MAX_LENGTH,
    is_set_header,
    padded,
)
from facescale.data.readers.recordio_index import (
    check_gapless,
    read_index,
    rebuild_index,
    record_end,
)
from facescale.data.readers.recordio_labels import insightface_labels, record_labels
from facescale.data.readers.recordio_words import Gaps, Keys, MappedWords
from facescale.data.readers.saved_index import (
    WORTH_SAVING,
    index_places,
    load_index,
    save_index,
    state_of,
)
from facescale.data.sampling.counter_rng import Uints, hash64_each

Index = tuple[Keys, IntArray, IntArray, IntArray]
"""Key and byte offset of each record, the labels, and the number of each record's label."""

_START = struct.Struct("<III")  # magic, word, and the flag of the header
_READ_AHEAD = 8192  # more than an aligned face takes, so that most records are one read


class RecordReader(Labelled):
    """A RecordIO file of InsightFace or im2rec (.rec), in the order of its keys.

    ``path`` with the suffix .idx (lines "key<TAB>offset") saves one pass over the file; without it the keys
    are recovered from the records. Labels that are not 0..n-1 are numbered in ascending order; ``names``
    keeps the originals.

    Raises:
        ValueError: the file is missing, truncated or no RecordIO, the index does not belong to it, or a label
            is not a whole number.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"'{path}' does not exist; give a .rec file or the folder that holds train.rec")
        self._fd = _open(self, self.path)
        size = os.fstat(self._fd).st_size
        if size < FRAME.size + HEADER.size or size % 4:
            raise ValueError(f"'{path}' is {size:,} bytes long, which no RecordIO file is; copy it again")
        self._keys, self._offsets, labels, ids = _indexed(self.path, size)
        super().__init__(self.path.parent, labels, ids)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """Encoded image and identity of ``index``.

        Raises:
            BadRecordError: the record is damaged or has no image.
        """
        offset = int(self._offsets[index])
        chunk = self._read(offset, _READ_AHEAD)
        if len(chunk) >= FRAME.size + HEADER.size:  # the common case: a whole record within one read
            magic, word, flag = _START.unpack_from(chunk)
            start, end = FRAME.size + HEADER.size + 4 * flag, FRAME.size + (word & MAX_LENGTH)
            if magic == MAGIC and word >> KIND_BIT == 0 and start < end <= len(chunk):
                return chunk[start:end], int(self.ids[index])
        payload = self._payload(offset)
        if len(payload) < HEADER.size:
            raise BadRecordError(f"record is {len(payload)} bytes long, too short for a header")
        image = payload[HEADER.size + 4 * int(HEADER.unpack_from(payload)[0]) :]
        if not image:
            raise BadRecordError("record has no image")
        return image, int(self.ids[index])

    def key(self, index: int) -> str:
        """File and record key of image ``index``."""
        return f"{self.path.name}#{self._keys[index]}"

    def image_hashes(self) -> Uints:
        """See ``base.image_hashes``: of the record's key and its length."""
        gaps = Gaps(self._offsets, os.fstat(self._fd).st_size)
        return hash64_each(np.asarray(self._keys), gaps.of(slice(0, len(self))))

    def image_size(self, index: int) -> int:
        """See ``base.image_size``."""
        return 0

    def _payload(self, offset: int) -> bytes:
        """The payload that starts at byte ``offset``, its parts joined."""
        parts: list[bytes] = []
        while True:
            chunk = self._read(offset, _READ_AHEAD)
            magic, word = FRAME.unpack_from(chunk) if len(chunk) >= FRAME.size else (0, 0)
            kind, end = word >> KIND_BIT, FRAME.size + (word & MAX_LENGTH)
            if magic != MAGIC or (kind in (2, 3)) != bool(parts):
                raise BadRecordError(f"no record at byte {offset}")
            if end > len(chunk):
                chunk += self._read(offset + len(chunk), end - len(chunk))
            if end > len(chunk):
                raise BadRecordError(f"record at byte {offset} goes beyond the end of the file")
            parts.append(chunk[FRAME.size : end])
            if kind in (0, 3):
                return MAGIC.to_bytes(4, "little").join(parts)
            offset += padded(end)

    def _read(self, offset: int, size: int) -> bytes:
        # pread: threads and forked processes share the descriptor, the interpreter is free while the disk
        # works, and a failing disk raises, where a memory map would end the process.
        try:
            return os.pread(self._fd, size, offset)
        except OSError as error:
            raise BadRecordError(f"cannot read byte {offset}: {error.strerror or error}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_fd"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._fd = _open(self, self.path)


def _indexed(path: Path, size: int) -> Index:
    """The index of a record file of ``size`` bytes; of a large one it is made once, then kept in a file."""
    if (found := kept_index(path, size)) is not None:
        return found
    keys, offsets, labels, ids = built = build_index(path, size)
    if len(keys) >= WORTH_SAVING:
        first = np.array(keys[:1], np.int64)  # a range takes no memory
        key = first if isinstance(keys, range) else keys
        columns = {"offset": offsets, "key": key, "label": labels, "id": ids}
        save_index(index_places([str(path)]), _state(path), columns)
    return built


def kept_index(path: Path, size: int) -> Index | None:
    """The index that an earlier call kept of a record file of ``size`` bytes; None if none fits it."""
    limits = {"offset": size, "id": 1 << 63, "label": 1 << 63, "key": 1 << 63}
    found = load_index(index_places([str(path)]), _state(path), limits)
    if not found or found["id"].max() >= len(found["label"]) or len(found["offset"]) != len(found["id"]):
        return None
    key, count = found["key"], len(found["id"])
    keys: Keys = key if len(key) == count else range(int(key[0]), int(key[0]) + count)
    return keys, found["offset"], found["label"], found["id"]


def _state(path: Path) -> str:
    return state_of(path, path.with_suffix(".idx"))


def build_index(path: Path, size: int) -> Index:
    """The index from the .idx file, or else the records.

    Raises:
        ValueError: the file is truncated, the .idx file is of another one, or a label is no whole number.
    """
    words = MappedWords(path)
    index = path.with_suffix(".idx")
    keys, offsets = read_index(index, size) if index.is_file() else rebuild_index(path, words)
    end = record_end(words.values, int(offsets.max()))
    if end > size:
        raise ValueError(f"'{path}' ends within its last record; it is truncated, copy it again")
    if end < size or offsets.min() > 0:
        raise ValueError(
            f"'{index}' names {len(keys):,} records from byte {offsets.min():,} to {end:,} of a record"
            f" file of {size:,} bytes; it is incomplete or of another file: copy it again, or remove it"
            " to have it rebuilt"
        )
    gaps = Gaps(offsets, size)
    if is_set_header(words.values, int(keys[0]), int(offsets[0]), int(gaps.of(slice(0, 1))[0])):
        keys, offsets, labels = insightface_labels(path, words, keys, offsets, gaps)
    else:
        labels = record_labels(path, words, keys, offsets)
        check_gapless(index, words, offsets, gaps)
    return keys, offsets, *numbered(labels)


def _open(owner: object, path: Path) -> int:
    fd = os.open(path, os.O_RDONLY)
    weakref.finalize(owner, os.close, fd)
    return fd
