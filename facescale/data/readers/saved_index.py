"""The index of a large set, kept in a file and mapped into memory: it opens in a moment whatever its size.

The file is laid out as safetensors. Its state says of which data it is, and every column has a checksum.
"""

import json
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from facescale.arrays import IntArray
from facescale.guard.limits import CARD_BYTES

Columns = Mapping[str, npt.NDArray[Any]]

_TYPES: Mapping[str, np.dtype[Any]] = {"I64": np.dtype("<i8"), "I32": np.dtype("<i4"), "U8": np.dtype("u1")}
WORTH_SAVING = 1 << 20  # images of a set whose index is quick to make
_BLOCK = 1 << 22  # bytes that are checked together


def index_places(names: Sequence[str]) -> list[Path]:
    """Files that may hold the index of some files: beside them if they are local, and in the user's cache."""
    name = f".facescale-{blake2b(json.dumps(names).encode(), digest_size=8).hexdigest()}.index"
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    beside = [] if "://" in names[0] else [Path(names[0]).parent / name]
    return [*beside, Path(cache) / "facescale" / name]


def state_of(*paths: Path) -> str:
    """What changes when one of some local files does; a missing one counts, too."""
    return json.dumps([_status(path) for path in paths])


def _status(path: Path) -> list[object]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return [path.name]
    return [path.name, status.st_size, status.st_mtime_ns]


def compact(values: IntArray) -> npt.NDArray[Any]:
    """Whole numbers from 0 in 32 bits where they fit."""
    fits = not len(values) or values.max() < 1 << 31
    return values.astype(np.int32) if fits else np.asarray(values, np.int64)


def save_index(places: Sequence[Path], state: str, columns: Columns) -> None:
    """Write an index to the first place that can be written; nowhere is no error."""
    for place in places:
        if _saved(place, state, columns):
            return


def load_index(places: Sequence[Path], state: str, limits: Mapping[str, int]) -> Columns | None:
    """The columns of an index, mapped, so that memory is used by what is read; changes do not reach the file.

    Args:
        places: where it may be.
        state: it must have.
        limits: columns it must have, and what their values must lie below; none is below 0. Columns of
            strings' bytes are not looked at.

    Returns:
        None if there is none, it is of other data, or it is damaged.
    """
    for place in places:
        try:
            with place.open("rb") as file:
                found = _checked(file, state, limits)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, struct.error):
            continue
        if found is not None:
            return found
    return None


def _saved(place: Path, state: str, columns: Columns) -> bool:
    names = {dtype: name for name, dtype in _TYPES.items()}
    end, head = 0, dict[str, Any]()
    # The widest first, so that all are aligned.
    ordered = sorted(columns.items(), key=lambda item: -item[1].dtype.itemsize)
    for name, column in ordered:
        offsets, end = [end, end + column.nbytes], end + column.nbytes
        head[name] = {"dtype": names[column.dtype], "shape": [len(column)], "data_offsets": offsets}
    sums = {name: zlib.crc32(np.ascontiguousarray(column).data) for name, column in ordered}
    text = json.dumps({"__metadata__": {"state": state, "crc32": json.dumps(sums)}, **head})
    data = text.encode("ascii")
    data += b" " * (-len(data) % 8)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=place.parent, prefix=".facescale-", suffix=".index")
    except OSError:
        return False
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(struct.pack("<Q", len(data)) + data)
            for _, column in ordered:
                np.ascontiguousarray(column).tofile(file)
        os.replace(temporary, place)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        return False
    return True


def _checked(file: BinaryIO, state: str, limits: Mapping[str, int]) -> Columns | None:
    total = os.fstat(file.fileno()).st_size
    (length,) = struct.unpack("<Q", file.read(8))
    if length > CARD_BYTES:
        return None
    head = json.loads(file.read(length))
    known = head.pop("__metadata__")
    sums = json.loads(known["crc32"])
    if known["state"] != state or not limits.keys() <= head.keys():
        return None
    columns = dict[str, npt.NDArray[Any]]()
    for name, entry in head.items():
        dtype: np.dtype[Any] = _TYPES[entry["dtype"]]
        (count,), (first, end) = entry["shape"], entry["data_offsets"]
        start = 8 + length + first
        if not 0 <= first <= end <= total - 8 - length or end - first != count * dtype.itemsize:
            return None
        if dtype != np.uint8 and not _whole(
            file, start, end - first, dtype, sums[name], limits.get(name, 1 << 63)
        ):
            return None
        columns[name] = _mapped(file, start, count, dtype)
    return columns


def _whole(file: BinaryIO, start: int, size: int, dtype: np.dtype[Any], expected: int, limit: int) -> bool:
    """Whether a column has its checksum and its values lie from 0 to below ``limit``.

    It is read rather than mapped, so that this takes no memory.
    """
    found = 0
    for block in _blocks(file, start, size):
        found = zlib.crc32(block.data, found)
        values = block.view(dtype)
        if values.min() < 0 or values.max() >= limit:
            return False
    return found == expected


def _blocks(file: BinaryIO, start: int, size: int) -> Iterator[npt.NDArray[np.uint8]]:
    file.seek(start)
    buffer = np.empty(_BLOCK, np.uint8)
    while size:
        part = buffer[: min(size, _BLOCK)]
        if file.readinto(part) != len(part):  # type: ignore[attr-defined]
            raise ValueError
        yield part
        size -= len(part)


def _mapped(file: BinaryIO, start: int, count: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if not count:  # nothing cannot be mapped
        return np.empty(0, dtype)
    return np.asarray(np.memmap(file, dtype, "c", start, (count,)))
