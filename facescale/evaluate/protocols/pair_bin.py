"""Read and write insightface's verification .bin, a pickle of images and labels, without running it.

The few names that such a file needs are answered by stand-ins that hold data and check it; every other name
ends the reading (``guard.pickles``).
"""

import functools
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facescale.arrays import BoolArray
from facescale.data.images import IndexedImages
from facescale.data.loading.decode import encode_jpeg
from facescale.evaluate.fold_rules import contiguous_folds
from facescale.evaluate.protocols.pairs import Pairs
from facescale.files import replacing
from facescale.guard.limits import BIN_BYTES
from facescale.guard.pickles import PickleError, load_closed
from facescale.guard.reading import read_bytes, reason


def read_bin(path: str | Path, num_folds: int = 10) -> Pairs:
    """Read a verification .bin: (list of 2N encoded images in pair order, list of N booleans).

    Files written by Python 2 and 3 are read; images may be bytes or numpy uint8 arrays of the encoded
    bytes, labels booleans or the numbers 0 and 1. Images that are equal byte for byte are listed once. The
    list is cut into ``num_folds`` parts in order, as InsightFace does; fewer pairs than that into twos.

    Raises:
        ValueError: not such a file, too few pairs, or one that asks for more than bytes, lists, numbers and
            numpy arrays.
    """
    data = read_bytes(path, "the pairs", BIN_BYTES)
    try:
        encoded, is_same = _images_and_labels(_load(data))
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(
            f"'{path}' is not a verification .bin (a pickle of images and labels): {reason(error)}; "
            "make one with 'facescale pairs', or use a CSV of pairs"
        ) from error
    num_folds = num_folds if len(is_same) >= num_folds else len(is_same) // 2
    if num_folds < 2:
        raise ValueError(f"'{path}' holds {len(is_same)} pairs; give at least 4, for accuracy by folds")
    number: dict[bytes, int] = {}
    index = np.array([number.setdefault(image, len(number)) for image in encoded], dtype=np.int64)
    first = np.unique(index, return_index=True)[1]
    return Pairs(
        source=str(path),
        images=IndexedImages(list(number), [f"{Path(path).name}#{i}" for i in first]),
        a=index[0::2],
        b=index[1::2],
        is_same=is_same,
        fold=contiguous_folds(len(is_same), num_folds),
    )


def write_bin(path: str | Path, pairs: Pairs) -> None:
    """Write ``pairs`` as a .bin that insightface's tools read too; raw pixels are encoded as JPEG.

    The format has no folds: readers cut the list in order.
    """

    def encoded(index: int) -> bytes:
        image = pairs.images[index]
        return image if isinstance(image, bytes) else encode_jpeg(image)

    images = [encoded(int(i)) for pair in zip(pairs.a, pairs.b, strict=True) for i in pair]
    with replacing(path) as temporary, temporary.open("wb") as file:
        pickle.dump((images, [bool(same) for same in pairs.is_same]), file, protocol=4)


def _load(data: bytes) -> Any:
    """What the pickle holds, with stand-ins for arrays; it makes at most twice the bytes that it has."""
    left = 2 * len(data)  # protocol 2 makes a bytearray in two steps: text to bytes to bytearray

    def spend(made: bytes) -> bytes:
        nonlocal left
        left -= len(made)
        if left < 0:
            raise PickleError("it makes more bytes than it has, by naming one text again and again")
        return made

    functions: dict[tuple[str, str], Callable[..., Any]] = dict(_STAND_INS)
    for name, stand_in in _MAKERS.items():
        functions[name] = functools.partial(_spent, spend, stand_in)
    return load_closed(data, functions, settable=(_Dtype, _Array), what="a list of images")


def _spent(spend: Callable[[bytes], bytes], function: Callable[..., bytes], *arguments: Any) -> bytes:
    return spend(function(*arguments))


def _images_and_labels(content: Any) -> tuple[list[bytes], BoolArray]:
    if not isinstance(content, tuple | list) or len(content) != 2:
        raise ValueError("it does not contain (images, labels)")
    images, labels = (part.value() if isinstance(part, _Array) else part for part in content)
    if not isinstance(images, list | tuple) or not isinstance(labels, list | tuple | np.ndarray):
        raise ValueError("its images or labels are not a list")
    done: dict[int, bytes] = {}  # an image that is named a thousand times is kept once
    encoded = [done.get(id(image)) or done.setdefault(id(image), _image(image)) for image in images]
    is_same = _labels(labels)
    if len(encoded) != 2 * len(is_same):
        raise ValueError(f"{len(encoded)} images do not make {len(is_same)} pairs")
    return encoded, is_same


def _labels(labels: Any) -> BoolArray:
    if not isinstance(labels, np.ndarray):
        values = [label.value() if isinstance(label, _Array) else label for label in labels]
        if not all(isinstance(value, _NUMBERS) and np.ndim(value) == 0 for value in values):
            raise ValueError("its labels are not booleans, nor 0 and 1")
        labels = np.array([value == 1 if value in (0, 1) else 2 for value in values])
    if labels.dtype.kind not in "buif" or labels.ndim != 1 or not np.isin(labels, (0, 1)).all():
        raise ValueError("its labels are not booleans, nor 0 and 1")
    return np.asarray(labels, dtype=bool)


_NUMBERS = (bool, int, float, np.ndarray, np.generic)


def _image(image: Any) -> bytes:
    """One encoded image."""
    if isinstance(image, _Array):
        image = image.value()
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            raise ValueError("an image is neither bytes nor a uint8 array")
        return image.tobytes()
    if not isinstance(image, bytes | bytearray):
        raise ValueError("an image is neither bytes nor a uint8 array")
    return bytes(image)


class _Dtype:
    """Stands for numpy's dtype: booleans, whole numbers, floats, or "objects" that are listed in the file."""

    __slots__ = ("name", "order")

    def __init__(self, code: Any, *_: Any) -> None:
        self.name, self.order = _text(code).lstrip("|<>="), "="
        if self.name not in _DTYPES:
            raise ValueError(
                f"it holds an array of type '{self.name}', where only bytes, booleans and numbers belong"
            )

    def __setstate__(self, state: Any) -> None:
        """Of numpy's state only the byte order matters."""
        order = _text(state[1]) if isinstance(state, tuple) and len(state) > 1 else "="
        self.order = order if order in ("<", ">") else "="

    @property
    def kind(self) -> np.dtype[Any]:
        """The real type."""
        return np.dtype(self.order + self.name)


_DTYPES = frozenset(
    {"b1", "f2", "f4", "f8", "O8", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8))}
)


class _Array:
    """Stands for a numpy array: what the file says it holds, checked when it is used."""

    __slots__ = ("data", "dtype", "shape")

    def __init__(self, *_: Any) -> None:
        self.data: Any = None
        self.dtype: Any = None
        self.shape: Any = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("it describes an array in an unknown way")
        _, self.shape, self.dtype, _, self.data = state

    def value(self) -> npt.NDArray[Any] | list[Any]:
        """The array; one of objects as the plain list that the file holds.

        Raises:
            ValueError: data, type and shape are not those of an array.
        """
        if not isinstance(self.dtype, _Dtype):
            raise ValueError("it contains an array without data")
        if self.dtype.name == "O8" and isinstance(self.data, list):
            return self.data
        if self.dtype.name == "O8" or not isinstance(self.data, bytes | bytearray):
            raise ValueError("it contains an array without data")
        kind, shape = self.dtype.kind, self.shape
        if isinstance(shape, int):
            shape = (shape,)
        whole = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape) and len(shape) < 16
        if not whole or math.prod(shape) * kind.itemsize != len(self.data):
            raise ValueError("it contains an array whose shape is not that of its data")
        return np.frombuffer(self.data, kind).reshape(shape)


class _Scalar(_Array):
    __slots__ = ()

    def __init__(self, dtype: Any, data: Any) -> None:
        self.data, self.dtype, self.shape = data, dtype, ()


class _BufferArray(_Array):
    __slots__ = ()

    def __init__(self, data: Any, dtype: Any, shape: Any, _order: Any) -> None:
        self.data, self.dtype, self.shape = data, dtype, shape


def _encoded_text(text: Any, encoding: Any) -> bytes:
    """Stands for ``codecs.encode``, by which Python 3 writes bytes for Python 2 to read."""
    if not isinstance(text, str) or _text(encoding) != "latin1":
        raise ValueError("it encodes something other than bytes")
    return text.encode("latin1")


def _bytes(data: Any = b"", encoding: Any = "latin1") -> bytes:
    """Stands for ``bytearray``, which is written as a call on bytes, or on text that spells them."""
    if isinstance(data, str) and _text(encoding).replace("-", "") == "latin1":
        return data.encode("latin1")
    if not isinstance(data, bytes):
        raise ValueError("it makes a bytearray of something else than bytes")
    return data


def _text(value: Any) -> str:
    """A short text of the file."""
    if isinstance(value, bytes):
        return value[:100].decode("ascii", "replace")
    if not isinstance(value, str):
        raise ValueError("it names a type by something other than text")
    return value[:100]


_CORE = {  # in numpy.core before numpy 2, in numpy._core since
    ("multiarray", "_reconstruct"): _Array,
    ("multiarray", "scalar"): _Scalar,
    ("numeric", "_frombuffer"): _BufferArray,
}
_STAND_INS: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    **{(f"numpy.core.{module}", name): stand_in for (module, name), stand_in in _CORE.items()},
    **{(f"numpy._core.{module}", name): stand_in for (module, name), stand_in in _CORE.items()},
}
_MAKERS: dict[tuple[str, str], Callable[..., bytes]] = {
    ("_codecs", "encode"): _encoded_text,
    ("builtins", "bytearray"): _bytes,
    ("__builtin__", "bytearray"): _bytes,
}
