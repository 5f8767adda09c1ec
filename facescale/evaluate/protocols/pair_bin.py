"""Read and write insightface's verification .bin, a pickle of images and labels, without running it.

A pickle is a program: it may name any function for the reader to call. Here the few names that such a file
needs are answered by stand-ins that hold data and check it; every other name ends the reading.
"""

import io
import pickle
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


def read_bin(path: str | Path, num_folds: int = 10) -> Pairs:
    """Read a verification .bin: (list of 2N encoded images in pair order, list of N booleans).

    Files written by Python 2 and 3 are read; images may be bytes or numpy uint8 arrays of the encoded
    bytes. Images that are equal byte for byte are listed once.

    Raises:
        ValueError: not such a file, or one that asks for more than bytes, lists, booleans and numpy arrays.
    """
    try:
        # From memory: a file that claims more bytes than it has cannot make the reader allocate them.
        data = io.BytesIO(Path(path).read_bytes())
        encoded, is_same = _images_and_labels(_BinUnpickler(data, encoding="bytes").load())
    except OSError as error:
        raise ValueError(f"cannot read '{path}': {error.strerror or error}") from error
    except Exception as error:  # damaged pickles raise nearly anything
        raise ValueError(
            f"'{path}' is not a verification .bin (a pickle of images and labels): {error}; "
            "make one with 'facescale pairs', or give a CSV of pairs"
        ) from error
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


def _images_and_labels(content: Any) -> tuple[list[bytes], BoolArray]:
    if not isinstance(content, tuple | list) or len(content) != 2:
        raise ValueError("it holds no (images, labels)")
    images, labels = (part.value() if isinstance(part, _Array) else part for part in content)
    if not isinstance(images, list) or not isinstance(labels, list | np.ndarray):
        raise ValueError("its images or labels are no list")
    encoded = [image.value().tobytes() if isinstance(image, _Array) else image for image in images]
    if not all(isinstance(image, bytes) for image in encoded):
        raise ValueError("an image is neither bytes nor a uint8 array")
    is_same = np.array([label.value() if isinstance(label, _Array) else label for label in labels])
    if is_same.dtype.kind not in "bui" or is_same.ndim != 1 or not np.isin(is_same, (0, 1)).all():
        raise ValueError("its labels are not booleans")
    if len(encoded) != 2 * len(is_same):
        raise ValueError(f"{len(encoded)} images do not make {len(is_same)} pairs")
    return encoded, is_same.astype(bool)


class _Dtype:
    """Stands for numpy's dtype: one byte a value, unsigned or boolean, nothing else."""

    __slots__ = ("kind",)

    def __init__(self, code: Any, *_: Any) -> None:
        name = _text(code).lstrip("|")
        if name not in ("u1", "b1"):
            raise ValueError(f"it holds an array of type '{name}', where only bytes and booleans belong")
        self.kind = np.dtype(name)

    def __setstate__(self, _: Any) -> None:
        """Byte order, alignment and the like mean nothing for single bytes."""


class _Array:
    """Stands for a numpy array: what the file says it holds, checked when it is used."""

    __slots__ = ("data", "dtype", "shape")

    def __init__(self, *_: Any) -> None:
        self.data: Any = None
        self.dtype: Any = None
        self.shape: Any = None

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, _, self.data = state

    def value(self) -> npt.NDArray[Any]:
        """The array.

        Raises:
            ValueError: data, type and shape are not those of an array of bytes or booleans.
        """
        if not isinstance(self.data, bytes | bytearray) or not isinstance(self.dtype, _Dtype):
            raise ValueError("it holds an array without data")
        return np.frombuffer(self.data, self.dtype.kind).reshape(self.shape)


class _Scalar(_Array):
    __slots__ = ()

    def __init__(self, dtype: Any, data: Any) -> None:
        self.data, self.dtype, self.shape = data, dtype, ()


class _BufferArray(_Array):
    __slots__ = ()

    def __init__(self, data: Any, dtype: Any, shape: Any, _order: Any) -> None:
        self.data, self.dtype, self.shape = data, dtype, shape


class _EncodedText:
    """Stands for ``codecs.encode``, by which Python 3 writes bytes for Python 2 to read."""

    def __new__(cls, text: Any, encoding: Any) -> Any:
        if not isinstance(text, str) or _text(encoding) != "latin1":
            raise ValueError("it encodes something else than bytes")
        return text.encode("latin1")

    def __setstate__(self, _: Any) -> None:
        """Present so that a file cannot set attributes of this class."""


def _text(value: Any) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


_CORE = {  # in numpy.core before numpy 2, in numpy._core since
    ("multiarray", "_reconstruct"): _Array,
    ("multiarray", "scalar"): _Scalar,
    ("numeric", "_frombuffer"): _BufferArray,
}
_STAND_INS: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _EncodedText,
    **{(f"numpy.core.{module}", name): stand_in for (module, name), stand_in in _CORE.items()},
    **{(f"numpy._core.{module}", name): stand_in for (module, name), stand_in in _CORE.items()},
}


class _BinUnpickler(pickle._Unpickler):
    """Loads plain containers, and the stand-ins above.

    The variant written in Python keeps its memo in a dict. With the C one, five bytes of a file can number a
    memo entry 2^32 - 1, and it makes room for all the numbers below.
    """

    def find_class(self, module: str, name: str) -> type:
        """Answer the few allowed names with stand-ins.

        Raises:
            UnpicklingError: any other name.
        """
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(
                f"it asks to run {module}.{name}, which a list of images never needs"
            )
        return _STAND_INS[module, name]
