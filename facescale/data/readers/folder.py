"""Read a folder with one sub-folder of image files for each identity, and single image files."""

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from facescale.arrays import IntArray
from facescale.data.readers.base import BadRecordError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


def read_file(path: str | Path) -> bytes:
    """The bytes of one image file.

    Raises:
        BadRecordError: the file cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError as error:
        raise BadRecordError(f"cannot read '{path}': {error.strerror or error}") from error


class FolderReader:
    """Images of ``root``, one folder an identity; identities and files are in the order of their names.

    A folder that holds images is an identity, named by its path below ``root`` (so ``3/0_17`` of a set that
    is split into several roots is one too). Hidden files and folders, and files that are no images, are
    passed over.

    Raises:
        ValueError: no such folder; no identity in it; a folder that holds images and identities; a link (an
            image must not come from outside of ``root``).
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise ValueError(
                f"'{root}' is not a folder; give one with a sub-folder of images for each identity"
            )
        self._files = _Texts()
        counts: list[int] = []
        names: list[str] = []
        for name, images in _identities(self.root, ""):
            names.append(name)
            counts.append(len(images))
            self._files.add(images)
        if not names or "" in names:
            what = "images outside of identity folders" if names else "no images"
            raise ValueError(
                f"'{root}' holds {what}; it must hold one sub-folder of images for each identity"
            )
        self.names: Sequence[str] = names
        self.ids: IntArray = np.repeat(np.arange(len(names)), counts)

    @property
    def num_ids(self) -> int:
        """Number of identities."""
        return len(self.names)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """Encoded image and identity of ``index``."""
        return read_file(f"{self.root}/{self.key(index)}"), int(self.ids[index])

    def key(self, index: int) -> str:
        """Path of image ``index`` below the root, with forward slashes."""
        return f"{self.names[self.ids[index]]}/{self._files[index]}"


def _identities(root: Path, below: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (path below ``root``, sorted image names) of every folder that holds images, in sorted order."""
    folders, images = [], []
    with os.scandir(root / below) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                raise ValueError(
                    f"'{entry.path}' is a link; images must lie inside '{root}' itself: copy or hard-link"
                    " them, or open the folder that the link leads to as a further source"
                )
            if entry.is_dir():
                folders.append(entry.name)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                images.append(entry.name)
    if images:
        yield below, sorted(images)
    for name in sorted(folders):
        for identity, files in _identities(root, f"{below}/{name}" if below else name):
            if images and below:
                raise ValueError(
                    f"'{root / below}' holds images and the identity folder '{identity}'; a folder must hold"
                    " either the images of one identity or folders"
                )
            yield identity, files


class _Texts:
    """Many short strings in one block of bytes: tens of millions of ``str`` objects would fill the memory."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])

    def add(self, texts: Iterable[str]) -> None:
        for text in texts:
            self._bytes += os.fsencode(text)
            self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(bytes(self._bytes[self._ends[index] : self._ends[index + 1]]))
