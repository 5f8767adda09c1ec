"""A digest of the images of a data set: whether a run continues with those that it was started with.

Every image counts by its name and identity, in a record file also by its size. From stored images, the sizes
of up to 65,536 and the contents of up to 256 are added, spread over the set: a file that was replaced under
its old name is found, and a start does not wait for millions of files. Where the data lie does not count.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from facescale.arrays import IntArray
from facescale.data.readers.base import BadRecordError, Reader, identity_names, image_hashes, image_size
from facescale.data.sampling.counter_rng import PIECE, Uints, hash64
from facescale.files import replacing

NUM_SIZES, NUM_CONTENTS = 1 << 16, 256  # images compared by size and by content, at most
_UNREADABLE = -1

# N identities, S images compared by size, C images compared by content


@dataclass(frozen=True)
class DataDigest:
    """What is remembered of a data set.

    Attributes:
        count_N: int64, images of each identity.
        hash_N: uint64, hash of the images of each identity.
        order_1: uint64 (1,), hash of the order of all images.
        size_S: int64, bytes of images spread over the set; none if the source draws its images.
        content_C: int64, checksums of images spread over the set; -1 for one that cannot be read.
    """

    count_N: IntArray
    hash_N: Uints
    order_1: Uints
    size_S: IntArray
    content_C: IntArray

    @property
    def text(self) -> str:
        """All of it in 32 hexadecimal digits; processes that have the same see the same images."""
        total = blake2b(digest_size=16)
        for part in vars(self).values():
            total.update(part.tobytes())
        return total.hexdigest()

    def write(self, file: Path) -> None:
        """Save it atomically."""
        with replacing(file) as temporary:
            save_file(dict(vars(self)), temporary)


def read_digest(file: Path) -> DataDigest:
    """What ``DataDigest.write`` wrote.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return DataDigest(**load_file(file))
    except (OSError, SafetensorError, TypeError):
        raise ValueError(
            f"'{file}' is damaged; put it back from a copy, or remove it to continue without the check that "
            "the images are those of the start"
        ) from None


def digest_of(reader: Reader) -> DataDigest:
    """The digest of a data set as it is now."""
    hashes, ids = image_hashes(reader), reader.ids
    hash_N, order = np.zeros(reader.num_ids, np.uint64), np.zeros(1, np.uint64)
    for start in range(0, len(ids), PIECE):
        piece = slice(start, start + PIECE)
        np.add.at(hash_N, ids[piece], hashes[piece])
        order += hash64(hashes[piece], ids[piece], np.arange(start, start + len(ids[piece]))).sum()
    sizes = (image_size(reader, index) for index in _spread(len(ids), NUM_SIZES).tolist())
    contents = (_checksum(reader, index) for index in _spread(len(ids), NUM_CONTENTS).tolist())
    return DataDigest(
        count_N=np.bincount(ids, minlength=reader.num_ids),
        hash_N=hash_N,
        order_1=order,
        size_S=np.array([size for size in sizes if size is not None], np.int64),
        content_C=np.array([value for value in contents if value is not None], np.int64),
    )


def image_changes(old: DataDigest, new: DataDigest, reader: Reader) -> list[str]:
    """What became of the images of the same people since ``old``; nothing if they are the same.

    Args:
        old: at the start of the run.
        new: of ``reader``.
        reader: the data now.
    """
    names = identity_names(reader)
    grown, other = new.count_N - old.count_N, old.hash_N != new.hash_N
    found = list[str]()
    for sign, word in ((1, "added"), (-1, "removed")):
        if (some := np.flatnonzero(grown * sign > 0)).size:
            one, count = some[0], int(np.abs(grown[some]).sum())
            before, now = old.count_N[one], new.count_N[one]
            found.append(f"{count:,} {word} ({now} of '{names[one]}', before {before})")
    if (some := np.flatnonzero(other & (grown == 0))).size:
        found.append(f"others under the names of {len(some):,} people (such as '{names[some[0]]}')")
    if found:
        return found
    if (old.order_1 != new.order_1).any():
        return ["the same in another order"]
    pairs = ((old.size_S, new.size_S, NUM_SIZES), (old.content_C, new.content_C, NUM_CONTENTS))
    changed = sorted({index for pair in pairs for index in _changed(*pair, len(reader))})
    if changed:
        return [f"{len(changed):,} replaced under the same name (such as '{reader.key(changed[0])}')"]
    return []


def _changed(old: IntArray, new: IntArray, most: int, total: int) -> Iterator[int]:
    """Images whose figure is another one; what could not be read, then or now, says nothing."""
    if len(old) == len(new) == len(places := _spread(total, most)):
        yield from places[(old != new) & (old != _UNREADABLE) & (new != _UNREADABLE)].tolist()


def _spread(total: int, most: int) -> IntArray:
    """Up to ``most`` images, evenly over ``total``; the first and the last among them."""
    return np.arange(total) if total <= most else np.linspace(0, total - 1, most).astype(np.int64)


def _checksum(reader: Reader, index: int) -> int | None:
    """CRC-32 of a stored image; None if the source draws its images."""
    if image_size(reader, index) is None:
        return None
    try:
        image = reader[index][0]
    except BadRecordError:
        return _UNREADABLE
    return zlib.crc32(image if isinstance(image, bytes) else image.tobytes())
