"""Image files below a folder: checked, found whatever their suffix, and made into pairs."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facescale.arrays import BoolArray, IntArray
from facescale.data.readers.folder import read_file
from facescale.data.readers.pictures import SUFFIXES, is_picture
from facescale.evaluate.protocols.pairs import Pairs, stratified_folds

USUAL = ("images", "lfw", "aligned images", "aligned")  # folders of images beside a released list


class FileImages:
    """Image files below one folder.

    Raises:
        ValueError: a path leaves the folder (by ``..``, from the root of the disk or through a link), or a
            file is missing.
    """

    def __init__(self, root: Path, paths: Sequence[str], source: str) -> None:
        self._root, self._paths = root, paths
        real_root = os.path.realpath(root)
        missing = []
        for path in paths:
            real = os.path.realpath(root / path)
            if os.path.commonpath([real_root, real]) != real_root:
                raise ValueError(
                    f"{source}: '{path}' is outside '{root}'; name images by their path below that folder"
                )
            if not os.path.isfile(real):
                missing.append(path)
        if missing:
            raise ValueError(
                f"{source}: {len(missing)} of {len(paths)} images are not in '{root}', the first is "
                f"'{missing[0]}'; complete the folder, or name another one: PATH?root=FOLDER"
            )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> bytes:
        return read_file(self._root / self._paths[index])

    def key(self, index: int) -> str:
        """Path of image ``index`` below the folder."""
        return self._paths[index]


def without_suffix(name: str) -> str:
    """The name of a picture without its suffix; a name without a picture's suffix as it is."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in SUFFIXES else name


class Pictures:
    """Picture files below a folder, found by their names without suffix."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._stems: dict[str, dict[str, str]] = {}  # folder -> name without suffix -> file

    def path_of(self, name: str) -> str:
        """Path of the picture ``FOLDER/NAME``, whatever its suffix; the name itself where there is none."""
        folder, _, stem = name.rpartition("/")
        return self._in(folder).get(stem, name)

    def __contains__(self, name: str) -> bool:
        folder, _, stem = name.rpartition("/")
        return stem in self._in(folder)

    def _in(self, folder: str) -> dict[str, str]:
        if folder not in self._stems:
            place = self._root / folder
            inside = not folder.startswith("/") and ".." not in folder.split(
                "/"
            )  # else `FileImages` refuses it
            files = sorted(os.listdir(place), reverse=True) if inside and place.is_dir() else []
            stems: dict[str, str] = {}
            for file in files:  # of two suffixes, the first in the order of names
                if is_picture(place / file):
                    stems[os.path.splitext(file)[0]] = f"{folder}/{file}" if folder else file
            self._stems[folder] = stems
        return self._stems[folder]


def locate(folder: Path, name: str) -> tuple[Path, Pictures]:
    """The folder in which a picture of this name (without suffix) is, and the pictures below it.

    Raises:
        ValueError: it is neither in ``folder`` nor in one of the usual folders there.
    """
    for root in (folder, *(folder / inside for inside in USUAL)):
        pictures = Pictures(root)
        if name in pictures:
            return root, pictures
    raise ValueError(
        f"no image '{name}' of any suffix in '{folder}', nor in its folders {', '.join(USUAL)}; "
        "say where the images are: PATH?root=FOLDER"
    )


def file_pairs(
    list_file: Path, root: Path, paths: Sequence[str], is_same: BoolArray, fold: IntArray | None
) -> Pairs:
    """Pairs from paths in pair order (a, b, a, b, ...), each different one listed once.

    Raises:
        ValueError: images that are missing or outside ``root``.
    """
    number = {path: index for index, path in enumerate(dict.fromkeys(paths))}
    index = np.array([number[path] for path in paths], dtype=np.int64)
    return Pairs(
        source=str(list_file),
        images=FileImages(root, list(number), str(list_file)),
        a=index[0::2],
        b=index[1::2],
        is_same=is_same,
        fold=stratified_folds(is_same) if fold is None else fold.astype(np.int64),
    )
