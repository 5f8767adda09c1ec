"""Read what ``torch.save`` wrote: tensors, numbers, texts and containers, and nothing that would run.

Two formats: a zip archive (since torch 1.6), stored without compression, with a pickle that names one entry
per storage; and the older one, a row of pickles followed by the storages. Both pickles are read by
``guard.pickles``, so that the tensors come from the file alone: each within its storage, each storage of the
size that it claims.
"""

import io
import math
import os
import struct
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import torch
from torch import Tensor

from facescale.guard.limits import PICKLE_BYTES
from facescale.guard.pickles import ClosedUnpickler, Inert, Name, PickleError
from facescale.guard.reading import check_file, reading

_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of the older format
_CHECKPOINT = "a checkpoint"
_PLAIN = (int, float, str, bytes, type(None))
_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}


class _Storage:
    """A storage that the pickle names; its values are filled in when they are read."""

    def __init__(self, dtype: torch.dtype, key: str, num_values: int) -> None:
        self.dtype, self.key, self.num_values = dtype, key, num_values
        self.values = torch.empty(0, dtype=dtype)

    @property
    def num_bytes(self) -> int:
        return self.num_values * self.dtype.itemsize


def read_torch(path: str | os.PathLike[str], what: str = "the checkpoint") -> Any:
    """Tensors and plain containers of a file that ``torch.save`` wrote, on the CPU.

    Objects of classes become inert placeholders; parameters and ordered dicts become tensors and dicts.

    Args:
        path: the file.
        what: it is, for messages.

    Raises:
        ValueError: no such file, damaged, compressed, or one that asks to run something.
    """
    check_file(path, what)
    with reading(path, what), open(path, "rb") as file:
        return load_torch(file)


def load_torch(file: BinaryIO) -> Any:
    """As `read_torch`, from an open file.

    Raises:
        ValueError: as there (libraries may raise other errors on damaged files).
    """
    is_archive = file.read(4) == b"PK\x03\x04"
    file.seek(0)
    return _from_archive(file) if is_archive else _from_row(file)


class _Reader(ClosedUnpickler):
    """Reads the pickle of a checkpoint: tensors become places in storages, filled by the caller."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, _callables(), classes=True, what=_CHECKPOINT, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def persistent_load(self, pid: Any) -> Any:
        """The storage of ``("storage", type, key, location, number of values, ...)``."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise PickleError("it refers to something other than a storage")
        kind, key, num_values = pid[1], pid[2], pid[4]
        dtype = (
            _STORAGES.get(kind.name) if isinstance(kind, Name) and kind.module.startswith("torch") else None
        )
        if dtype is None or not isinstance(key, str) or not _is_count(num_values):
            raise PickleError("it describes a storage of an unknown kind")
        known = self.storages.setdefault(key, _Storage(dtype, key, num_values))
        if (known.dtype, known.num_values) != (dtype, num_values):
            raise PickleError(f"it describes the storage {key!r} in two ways")
        if len(pid) > 5 and pid[5] is not None:
            raise PickleError("it has a view of a storage, which no version of torch wrote since 0.4")
        return known


class _Place:
    """Where a tensor lies in a storage."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> None:
        sizes = isinstance(size, tuple) and all(map(_is_count, size)) and len(size) <= 16
        strides = isinstance(stride, tuple) and all(map(_is_count, stride))
        if not (isinstance(storage, _Storage) and _is_count(offset) and sizes and strides):
            raise PickleError("it describes a tensor by something other than numbers")
        if len(size) != len(stride):
            raise PickleError("a tensor has more sizes than strides")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if math.prod(size) and last >= storage.num_values:
            raise PickleError("a tensor reaches beyond its storage")
        if math.prod(size) > max(storage.num_values, 1):
            raise PickleError(
                f"a tensor of shape {size} repeats the {storage.num_values:,} values of its storage"
            )
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def tensor(self) -> Tensor:
        return self.storage.values.as_strided(self.size, self.stride, self.offset)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _of_subclass(rebuild: Any, _kind: Any, arguments: Any, _state: Any) -> Any:
    if rebuild is not _Place or not isinstance(arguments, tuple):
        return Inert()
    return _Place(*arguments)


def _size(values: Any = ()) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or not all(map(_is_count, values)):
        raise PickleError("a size holds something other than numbers")
    return tuple(values)


def _ordered(items: Any = ()) -> dict[Any, Any]:
    if items != () and items != []:
        raise PickleError("an ordered dict is filled in an unknown way")
    return {}


def _inert(*_: Any) -> Inert:
    return Inert()


def _callables() -> dict[tuple[str, str], Callable[..., Any]]:
    core = ("numpy.core.multiarray", "numpy._core.multiarray")
    harmless = [
        *((module, name) for module in core for name in ("scalar", "_reconstruct")),
        ("numpy", "dtype"), ("numpy", "ndarray"), ("_codecs", "encode"), ("torch", "device"),
        ("torch._utils", "_rebuild_qtensor"), ("torch._utils", "_rebuild_sparse_tensor"),
        ("copy_reg", "_reconstructor"), ("copyreg", "_reconstructor"), ("collections", "defaultdict"),
        ("pathlib", "PosixPath"), ("pathlib", "WindowsPath"), ("pathlib._local", "PosixPath"),
        ("builtins", "set"), ("__builtin__", "set"), ("builtins", "bytearray"), ("builtins", "slice"),
        ("datetime", "datetime"), ("datetime", "timedelta"), ("decimal", "Decimal"),
        ("omegaconf.base", "ContainerMetadata"), ("omegaconf.base", "Metadata"),
    ]  # fmt: skip
    return {
        **dict.fromkeys(harmless, _inert),
        ("collections", "OrderedDict"): _ordered,
        ("torch", "Size"): _size,
        ("torch._utils", "_rebuild_tensor"): _Place,
        ("torch._utils", "_rebuild_tensor_v2"): _Place,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
        ("torch._tensor", "_rebuild_from_type_v2"): _of_subclass,
    }


class _Clamped:
    """A file that is asked for no more than it has: ``read`` makes room for all that a header claims."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._file.tell())
        return self._file.read(left if size < 0 else min(size, left))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _from_archive(file: BinaryIO) -> Any:
    with zipfile.ZipFile(_Clamped(file)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it is a zip archive without the data of torch.save")
        folder = pickles[0].removesuffix("data.pkl")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise ValueError("its data is compressed, which torch.save never does; save it with torch again")
        size = file.seek(0, os.SEEK_END)
        if sum(entry.file_size for entry in entries.values()) > size:
            raise ValueError("its entries claim more bytes than the file has; it is damaged")
        index = entries[pickles[0]]
        if index.file_size > PICKLE_BYTES:
            raise ValueError(
                f"its pickle has {index.file_size:,} bytes, and {PICKLE_BYTES:,} are the most that is read"
            )
        order = f"{folder}byteorder"
        if order in entries and archive.read(order) not in (b"little", b""):
            raise ValueError("it was written on a big-endian machine; save it again on another")
        reader = _Reader(io.BytesIO(archive.read(index)))
        content = reader.load()
        if sum(storage.num_bytes for storage in reader.storages.values()) > size:
            raise ValueError("its tensors are larger than the file; it is cut short or damaged")
        for key, storage in reader.storages.items():
            entry = entries.get(f"{folder}data/{key}")
            if entry is None or entry.file_size < storage.num_bytes:
                raise ValueError(f"the values of its storage {_short(key)} are missing")
            _fill(storage, archive.read(entry))
    return _filled(content)


class _Bounded:
    """A file of which no more is asked for than it has: Python makes room for what is asked for."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.readline = file.readline

    def read(self, num_bytes: int) -> bytes:
        return self._file.read(min(num_bytes, self._size - self._file.tell()))


def _from_row(file: BinaryIO) -> Any:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    bounded = _Bounded(file, size)
    for number in range(3):  # a magic number, the version, facts about the machine
        value = ClosedUnpickler(bounded, {}, what=_CHECKPOINT, encoding="utf-8", steps=100).load()
        if number == 0 and value != _MAGIC:
            raise PickleError("it is neither a zip archive nor of the time before torch 1.6")
    reader = _Reader(bounded)
    content = reader.load()
    keys = ClosedUnpickler(bounded, {}, what=_CHECKPOINT, encoding="utf-8").load()
    if sum(storage.num_bytes for storage in reader.storages.values()) > size:
        raise ValueError("its tensors are larger than the file; it is cut short or damaged")
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(reader.storages):
        raise ValueError("it does not list the storages of its tensors")
    for key in keys:
        storage = reader.storages[str(key)]
        (num_values,) = struct.unpack("<q", file.read(8))
        if num_values != storage.num_values:
            raise ValueError(f"its storage {_short(str(key))} has another size than stated")
        _fill(storage, bounded.read(storage.num_bytes))
    return _filled(content)


def _short(key: str) -> str:
    """A key of the file for a message."""
    return repr(key[:40])


def _fill(storage: _Storage, data: bytes) -> None:
    if len(data) < storage.num_bytes:
        raise ValueError(f"the values of its storage {_short(storage.key)} are cut short")
    if storage.num_values:
        storage.values = torch.frombuffer(bytearray(data), dtype=storage.dtype, count=storage.num_values)


def _filled(content: Any) -> Any:
    """``content`` with its tensors; what occurs twice is made once, however deep it lies."""
    root = [content]
    done: set[int] = set()
    lists: dict[int, tuple[Any, list[Any]]] = {}  # of tuples, which are kept so that no other has their id
    waiting: list[Any] = [root]
    while waiting:
        item = waiting.pop()
        if id(item) in done:
            continue
        done.add(id(item))
        for key, value in list(item.items() if isinstance(item, dict) else enumerate(item)):
            if isinstance(value, _Place):
                item[key] = value.tensor()
            elif isinstance(value, tuple) and not all(isinstance(part, _PLAIN) for part in value):
                item[key] = lists.setdefault(id(value), (value, list(value)))[1]
            if isinstance(item[key], dict | list):
                waiting.append(item[key])
    return root[0]
