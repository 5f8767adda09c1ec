"""Files of the MegaFace development kit: feature .bin files, image lists, lists of wrong labels."""

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from facescale.arrays import FloatArray
from facescale.files import replacing
from facescale.guard.limits import LIST_BYTES, MB
from facescale.guard.reading import parse_json, read_bytes, read_text

_HEADER = struct.Struct("<4i")  # rows, columns, bytes of a number, OpenCV's number for float32
_FLOAT32 = 5


def read_feature(path: Path) -> npt.NDArray[np.float32]:
    """The vector, float32 (D,), of one feature file: four int32 (D, 1, 4, 5), then D float32.

    Raises:
        ValueError: not such a file.
    """
    data = read_bytes(path, "the feature file", MB)
    header = _HEADER.unpack_from(data) if len(data) >= _HEADER.size else (0, 0, 0, 0)
    rows, columns, width, kind = header
    if not (rows > 0 and (columns, width, kind) == (1, 4, _FLOAT32)) or len(data) != 16 + 4 * rows:
        raise ValueError(
            f"'{path}' is not a devkit feature: its {len(data)} bytes begin with {header}, where D, 1, 4, 5 "
            "and then D float32 belong"
        )
    return np.frombuffer(data, "<f4", offset=_HEADER.size)


def write_feature(path: Path, feature_D: FloatArray) -> None:
    """Write one vector as a feature file; folders are made.

    Raises:
        ValueError: not a vector.
    """
    if feature_D.ndim != 1 or not len(feature_D):
        raise ValueError(f"a feature of shape {feature_D.shape} is not a vector; write one image's at a time")
    with replacing(path) as temporary:
        temporary.write_bytes(
            _HEADER.pack(len(feature_D), 1, 4, _FLOAT32) + np.asarray(feature_D, "<f4").tobytes()
        )


def read_features(folder: Path, names: Sequence[str]) -> npt.NDArray[np.float32]:
    """Features (N, D) of images, from files ``NAME_ALGORITHM.bin`` below ``folder``.

    Raises:
        ValueError: no or several such files for the first image, one that is missing or damaged, vectors of
            different lengths.
    """
    suffix = _suffix(folder, names[0])
    first = read_feature(folder / f"{names[0]}{suffix}")
    rows = np.empty((len(names), len(first)), np.float32)
    for row, name in enumerate(names):
        path = folder / f"{name}{suffix}"
        feature = read_feature(path)
        if feature.shape != first.shape:
            raise ValueError(f"'{path}' has {len(feature)} numbers, the others {len(first)}")
        rows[row] = feature
    return rows


def _suffix(folder: Path, name: str) -> str:
    place = folder / name
    found = []
    if place.parent.is_dir():
        start = f"{place.name}_"
        found = [
            p.name.removeprefix(place.name)
            for p in place.parent.iterdir()
            if p.name.startswith(start) and p.suffix == ".bin"
        ]
    if len(found) != 1:
        raise ValueError(
            f"'{folder}' has {len(found)} feature files '{name}_ALGORITHM.bin'; "
            "keep those of one algorithm in it"
        )
    return found[0]


def read_list(path: Path) -> list[str]:
    """Image names of a list: one a line, or ``{"path": [...]}`` of the devkit's JSON.

    Raises:
        ValueError: the list cannot be read, is empty, or names images outside its folder.
    """
    text = _text(path)
    if text.lstrip().startswith("{"):
        tree = parse_json(text, path, "the list")
        names = tree.get("path") if isinstance(tree, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"'{path}' is not a devkit list: it needs the key 'path' with a list of names")
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise ValueError(f"the list '{path}' names no image")
    if outside := [name for name in names if name.startswith("/") or ".." in name.split("/")]:
        raise ValueError(f"'{path}' names '{outside[0]}', which is outside the folder of the images")
    return names


def read_noises(path: Path) -> frozenset[str]:
    """Names of images with wrong labels: lines "NAME" or "NUMBER<TAB>NAME", and comments with "#".

    Raises:
        ValueError: the list cannot be read.
    """
    lines = (line.strip() for line in _text(path).splitlines() if not line.startswith("#"))
    return frozenset(line.split("\t")[1] if "\t" in line else line for line in lines if line)


def ends_in(names: Iterable[str], noises: frozenset[str], parts: int) -> list[bool]:
    """Whether the last ``parts`` parts of each path are in the list."""
    return ["/".join(name.split("/")[-parts:]) in noises for name in names]


def _text(path: Path) -> str:
    return read_text(path, "the list", LIST_BYTES, "surrogateescape")
