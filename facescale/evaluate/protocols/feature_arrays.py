"""Features of images in one file, in the order of a list: .npy, or .npz with the entry ``features``."""

from pathlib import Path

import numpy as np

from facescale.arrays import FloatArray, IntArray
from facescale.guard.reading import check_file, reading

KEY = "features"


def read_array(path: Path, num_listed: int, rows: IntArray) -> FloatArray:
    """Features of the images ``rows``: (N, D), or (N, views, D); a .npy file is not read into memory at once.

    Args:
        path: the file.
        num_listed: images in the list that the file follows.
        rows: int64 (N,), places in it.

    Raises:
        ValueError: not such a file, or one of another number of images.
    """
    check_file(path, "the features")
    with reading(path, "the features", "give a .npy, or a .npz with the entry 'features'"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(array, np.lib.npyio.NpzFile):
            array = array[KEY]
    if array.dtype.kind != "f" or array.ndim not in (2, 3) or len(array) != num_listed:
        raise ValueError(
            f"'{path}' holds {array.dtype} {array.shape}; the list needs floats, ({num_listed}, D) or "
            f"({num_listed}, views, D)"
        )
    if len(rows) == num_listed:
        return array  # type: ignore[no-any-return]
    return array[rows]  # type: ignore[no-any-return]
