"""Read MXNet RecordIO sets (train.rec + train.idx) as InsightFace and im2rec pack them, without mxnet.

A record is framed as: magic, word (kind << 29 | length), payload, zeros up to a multiple of 4 bytes. A
payload that holds the magic at a multiple of 4 is split there into parts (kind 1 first, 2 middle, 3 last; a
whole record is 0), and the magic between the parts is not stored. The payload is a header (flag uint32,
label float32, id uint64, id2 uint64), ``flag`` float32 labels that take the place of ``label`` when flag >
0, and the image.

InsightFace's sets start with a record of labels only, (N + 1, N + 1 + C): keys 1..N are images, the C keys
after them identities, whose records hold the range (start, end) of the keys of their images. im2rec's sets
are images only.
"""

import os
import struct
import warnings
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facescale.data.readers.base import BadRecordError

IntArray = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]

MAGIC = 0xCED7230A
FRAME = struct.Struct("<II")
HEADER = struct.Struct("<IfQQ")
KIND_BIT = 29
MAX_LENGTH = (1 << KIND_BIT) - 1
EXACT_FLOAT32 = 1 << 24  # float32 holds every integer up to here, not beyond
_LABELS_ONLY = FRAME.size + HEADER.size + 8  # bytes of a framed record of two labels and no image
_READ_AHEAD = 16384  # more than an aligned face takes, so that most records are one read


class RecordReader:
    """The images of ``path`` (a .rec file) in the order of their keys.

    ``path`` with the suffix .idx (lines "key<TAB>offset") saves one pass over the file; without it the keys
    are recovered from the records. Labels that are not 0..n-1 are numbered in ascending order; ``names``
    keeps the originals.

    Raises:
        ValueError: the file is missing, truncated or no RecordIO, the index does not belong to it, or a label
            is no identity.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"'{path}' does not exist; give a .rec file or the folder that holds train.rec")
        self._fd = _open(self, self.path)
        size = os.fstat(self._fd).st_size
        if size < FRAME.size + HEADER.size or size % 4:
            raise ValueError(f"'{path}' is {size:,} bytes long, which no RecordIO file is; copy it again")
        words: Words = np.asarray(np.memmap(self.path, np.dtype("<u4"), "r"))
        index = self.path.with_suffix(".idx")
        keys, offsets = read_index(index, size) if index.is_file() else _rebuild_index(self.path, words)
        last = int(offsets.max())
        if last + FRAME.size + (int(words[last // 4 + 1]) & MAX_LENGTH) > size:
            raise ValueError(f"'{path}' ends within its last record; it is truncated, copy it again")
        gaps = _gaps(offsets, size)
        if _is_set_header(words, int(keys[0]), int(offsets[0]), int(gaps[0])):
            keys, offsets, labels = _insightface_labels(self.path, words, keys, offsets, gaps)
        else:
            labels = _record_labels(self.path, words, keys, offsets)
        self._keys, self._offsets = keys, offsets
        self._labels, self.ids = np.unique(labels, return_inverse=True)

    @property
    def num_ids(self) -> int:
        """Number of identities that have images."""
        return len(self._labels)

    @property
    def names(self) -> Sequence[str]:
        """Label that the file gives each identity."""
        return [str(label) for label in self._labels.tolist()]

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """Encoded image and identity of ``index``.

        Raises:
            BadRecordError: the record is damaged or has no image.
        """
        payload = self._payload(int(self._offsets[index]))
        if len(payload) < HEADER.size:
            raise BadRecordError(f"record is {len(payload)} bytes long, too short for a header")
        image = payload[HEADER.size + 4 * int(HEADER.unpack_from(payload)[0]) :]
        if not image:
            raise BadRecordError("record has no image")
        return image, int(self.ids[index])

    def key(self, index: int) -> str:
        """File and record key of image ``index``."""
        return f"{self.path.name}#{self._keys[index]}"

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
            offset += _padded(end)

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


def read_index(path: Path, size: int) -> tuple[IntArray, IntArray]:
    """Keys (ascending) and byte offsets from an .idx file of a record file of ``size`` bytes.

    Raises:
        ValueError: not lines of two integers, or offsets that cannot be records of such a file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # NumPy's answer to text that is no number
        try:
            numbers = np.fromstring(path.read_text("ascii"), np.int64, sep=" ")
        except (ValueError, DeprecationWarning):
            numbers = np.empty(0, np.int64)
    if not numbers.size or numbers.size % 2:
        raise ValueError(f"'{path}' is not an index (lines of key and offset); remove it to have it rebuilt")
    keys, offsets = numbers[0::2], numbers[1::2]
    order = np.argsort(keys, kind="stable")
    keys, offsets = keys[order], offsets[order]
    if offsets.min() < 0 or (offsets % 4).any() or (np.diff(keys) == 0).any():
        raise ValueError(f"'{path}' has repeated keys or impossible offsets; remove it to have it rebuilt")
    if offsets.max() + FRAME.size + HEADER.size > size:
        raise ValueError(
            f"'{path}' points to byte {offsets.max():,} of a record file of {size:,} bytes; that file is"
            " truncated, or the index belongs to another one"
        )
    return keys, offsets


def _open(owner: object, path: Path) -> int:
    fd = os.open(path, os.O_RDONLY)
    weakref.finalize(owner, os.close, fd)
    return fd


def _padded(size: int) -> int:
    return (size + 3) // 4 * 4


def _gaps(offsets: IntArray, size: int) -> IntArray:
    """Bytes from each record to the next one in the file: its framed length, whatever its key."""
    order = np.argsort(offsets, kind="stable")
    gaps = np.empty_like(offsets)
    gaps[order] = np.diff(offsets[order], append=size)
    return gaps


def _rebuild_index(path: Path, words: Words) -> tuple[IntArray, IntArray]:
    """Keys (ascending) and offsets by one pass over the records."""
    view, offset, size = words.data.cast("B"), 0, words.nbytes
    starts: list[int] = []
    inside = False
    while offset < size:
        magic, word = FRAME.unpack_from(view, offset) if offset + FRAME.size <= size else (0, 0)
        kind, end = word >> KIND_BIT, offset + _padded(FRAME.size + (word & MAX_LENGTH))
        if magic != MAGIC or (kind in (2, 3)) != inside or end > size:
            raise ValueError(
                f"'{path}' has no complete record at byte {offset:,} of {size:,}; it is truncated or not"
                " a RecordIO file, copy it again"
            )
        if not inside:
            starts.append(offset)
        inside, offset = kind in (1, 2), end
    offsets = np.array(starts, np.int64)
    at = offsets // 4
    if _is_set_header(words, 0, 0, int(_gaps(offsets, size)[0])):
        return np.arange(len(offsets)), offsets
    keys = words[at + 4].astype(np.int64) | words[at + 5].astype(np.int64) << 32
    if len(np.unique(keys)) < len(keys):
        return np.arange(len(offsets)), offsets
    order = np.argsort(keys)
    return keys[order], offsets[order]


def _is_set_header(words: Words, key: int, offset: int, gap: int) -> bool:
    return key == 0 and gap == _LABELS_ONLY and int(words[offset // 4 + 2]) == 2


def _record_labels(path: Path, words: Words, keys: IntArray, offsets: IntArray) -> IntArray:
    """The label that each record itself carries."""
    at = offsets // 4
    broken = words[at] != MAGIC
    if broken.any():
        raise ValueError(
            f"'{path}' has no record {keys[broken][0]} at byte {offsets[broken][0]:,}, as the index has it;"
            " the index belongs to another file (remove it to have it rebuilt) or the file is damaged"
        )
    floats = words.view(np.float32)
    several = words[at + 2] > 0
    # A record without labels may be the last thing in the file; its word 8 is looked at, but not used.
    labels = np.where(several, floats[np.minimum(at + 8, len(words) - 1)], floats[at + 3]).astype(np.float64)
    wrong = ~((labels >= 0) & (labels < EXACT_FLOAT32) & (labels == np.floor(labels)))
    if wrong.any():
        raise ValueError(
            f"record {keys[wrong][0]} of '{path}' has the label {labels[wrong][0]:g}; a label is a whole"
            f" number from 0 to {EXACT_FLOAT32 - 1:,} (float32 merges identities beyond), so repack the set"
        )
    return labels.astype(np.int64)


def _insightface_labels(
    path: Path, words: Words, keys: IntArray, offsets: IntArray, gaps: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """Keys, offsets and labels of the images of a set that starts with the record of counts."""
    floats = words.view(np.float32)
    first, end = floats[offsets[0] // 4 + 8 :][:2].tolist()
    # Counts in float32 are rounded beyond 2^24 images, so the kind of a record is told by its length instead.
    is_identity = gaps == _LABELS_ONLY
    is_identity[0] = False
    is_image = ~is_identity
    is_image[0] = False
    num_images, num_ids = int(is_image.sum()), int(is_identity.sum())
    if _far_apart(num_images, first - 1) or (num_ids and _far_apart(num_ids, end - first)):
        raise ValueError(
            f"record 0 of '{path}' tells of {first - 1:.0f} images and {end - first:.0f} identities, but"
            f" {num_images} and {num_ids} are there; the file is truncated or its index is another file's"
        )
    ranges = offsets[is_identity] // 4 + 8
    keys, offsets = keys[is_image], offsets[is_image]
    starts, ends = floats[ranges].astype(np.int64), floats[ranges + 1].astype(np.int64)
    if not _tile(starts, ends, keys):
        return keys, offsets, _record_labels(path, words, keys, offsets)
    # One look per identity instead of one per image: the other way touches every page of the file.
    sizes = ends - starts
    heads = starts[sizes > 0] - 1
    labels = _record_labels(path, words, keys[heads], offsets[heads])
    return keys, offsets, np.repeat(labels, sizes[sizes > 0])


def _far_apart(found: int, told: float) -> bool:
    """Whether a count is off by more than 1 %: packers leave out images that they cannot read."""
    return abs(found - told) > 0.01 * told


def _tile(starts: IntArray, ends: IntArray, keys: IntArray) -> bool:
    """Whether the ranges of the identities cover exactly the keys 1..N of the images, in order."""
    num_images = len(keys)
    return (
        num_images + 1 < EXACT_FLOAT32
        and len(starts) > 0
        and bool((starts <= ends).all())
        and np.array_equal(starts, np.append(1, ends[:-1]))
        and int(ends[-1]) == num_images + 1
        and np.array_equal(keys, np.arange(1, num_images + 1))
    )
