"""Read a folder with one sub-folder of image files for each identity, and single image files."""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from facescale.arrays import IntArray
from facescale.checksums import MANIFEST
from facescale.data.readers.base import BadRecordError
from facescale.data.readers.info_file import INFO, read_info
from facescale.data.readers.labels_file import LABELS, original_names
from facescale.data.readers.pictures import is_picture, is_system_folder, kind_of, listed
from facescale.data.readers.texts import Texts
from facescale.data.sampling.counter_rng import Uints, hash64_each
from facescale.guard.limits import IMAGE_BYTES
from facescale.guard.reading import check_depth, reason

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def read_file(path: str | Path) -> bytes:
    """The bytes of one image file.

    Raises:
        BadRecordError: the file cannot be read, is not a regular file, or is larger than any image.
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait for its writer.
        with open(os.open(path, _FLAGS), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BadRecordError(f"cannot read '{path}': it is a pipe, socket, device or folder")
            if status.st_size > IMAGE_BYTES:
                raise BadRecordError(
                    f"cannot read '{path}': it has {status.st_size:,} bytes, more than the {IMAGE_BYTES:,} of"
                    " the largest image that is read"
                )
            return file.read()
    except OSError as error:
        raise BadRecordError(f"cannot read '{path}': {reason(error)}") from error


class FolderReader:
    """A folder with a sub-folder of images for each identity, in the order of their names.

    A folder that holds images is an identity, named by its path below ``root`` (so ``3/0_17`` of a set that
    is split into several roots is one too). What counts as an image: `facescale.data.readers.pictures`. Other
    files, hidden ones and the side folders of operating systems and network storage are passed over.

    Attributes:
        names: path of each identity below ``root``.
        ids: int64 (N,), identity of each image.
        passed_over: files that were, by suffix, and side folders, by name.

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
        self._files = Texts()
        counts: list[int] = []
        names: list[str] = []
        self.passed_over: Counter[str] = Counter()
        for name, images in _identities(self.root, "", self.passed_over):
            if not name:
                raise ValueError(
                    f"'{root}' holds {len(images)} images outside of identity folders, such as"
                    f" '{images[0]}'; move them into the folder of an identity, or away"
                )
            names.append(name)
            counts.append(len(images))
            self._files.add(images)
        if not names:
            others = f" (passed over: {listed(self.passed_over)})" if self.passed_over else ""
            raise ValueError(
                f"'{root}' holds no images{others}; it must hold one sub-folder of images for each identity"
            )
        self.names: Sequence[str] = names
        self.ids: IntArray = np.repeat(np.arange(len(names)), counts)

    @property
    def num_ids(self) -> int:
        """Number of identities."""
        return len(self.names)

    @property
    def info(self) -> dict[str, str]:
        """Licence, source and the like, from dataset.json."""
        return read_info(self.root)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """Encoded image and identity of ``index``."""
        return read_file(f"{self.root}/{self.key(index)}"), int(self.ids[index])

    def key(self, index: int) -> str:
        """Path of image ``index`` below the root, with forward slashes."""
        return f"{self.names[self.ids[index]]}/{self._files[index]}"

    @property
    def original_names(self) -> Sequence[str]:
        """Names of the identities; in an unpacked set those that its labels.json keeps."""
        return original_names(self.root, self.names)

    def image_hashes(self) -> Uints:
        """See ``base.image_hashes``; names alone, as asking for a size takes a call of the file system."""
        return hash64_each(self._files.checksums())

    def image_size(self, index: int) -> int:
        """See ``base.image_size``."""
        try:
            return os.stat(f"{self.root}/{self.key(index)}").st_size
        except OSError:
            return -1


def _identities(root: Path, below: str, passed_over: Counter[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield (path below ``root``, sorted image names) of every folder that holds images, in sorted order."""
    folders, images = [], []
    check_depth(root, below, "move the identities up")
    with os.scandir(root / below) as entries:
        for entry in entries:
            if entry.name.startswith(".") or is_system_folder(entry.name):
                passed_over[kind_of(entry.name) if entry.is_file() else f"folder {entry.name}"] += 1
                continue
            if entry.is_symlink():
                raise ValueError(
                    f"'{entry.path}' is a link; images must lie inside '{root}' itself: copy or hard-link"
                    " them, or open the folder that the link leads to as a further source"
                )
            if entry.is_dir():
                folders.append(entry.name)
            elif is_picture(entry.path):
                images.append(entry.name)
            elif below or entry.name not in (LABELS, INFO, MANIFEST):
                passed_over[kind_of(entry.name)] += 1
    if images:
        yield below, sorted(images)
    for name in sorted(folders):
        for identity, files in _identities(root, f"{below}/{name}" if below else name, passed_over):
            if images and below:
                raise ValueError(
                    f"'{root / below}' holds {len(images)} images, such as '{images[0]}', and the identity"
                    f" folder '{identity}'; a folder must hold either the images of one identity or folders"
                )
            yield identity, files
