"""The manifest of a checkpoint: size and CRC-32 of every file in it.

CRC-32 finds every change of up to 32 neighbouring bits, and all but one in 4 billion of others. It guards
against damage, not against somebody who changes a file on purpose.
"""

import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from facescale.files import put_on_disk, write_atomically
from facescale.guard.reading import read_object

MANIFEST = "manifest.json"
META = "meta.json"  # its "checksums" says that there must be a manifest; versions up to 0.1 wrote none

_FORMAT = 1
_BLOCK = 1 << 20  # bytes read at once
_MOST_BYTES = 1 << 26  # of a manifest: a file of 65,536 rows takes some 80

# size and checksum of a file; the model has two of them once it was written again
Sums = list[tuple[int, int]]


class DamageWarning(UserWarning):
    """A file is damaged, and another one is used in its place."""


class Checksums:
    """Checksums of files, each of which is read once however many names (hard links) it has."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int, int], int] = {}

    def of(self, path: Path) -> tuple[int, int]:
        """Size and CRC-32 of a file."""
        with path.open("rb", buffering=0) as file:
            about = os.fstat(file.fileno())
            key = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
            if key not in self._known:
                block, crc = memoryview(bytearray(_BLOCK)), 0
                while size := file.readinto(block):
                    crc = zlib.crc32(block[:size], crc)
                self._known[key] = crc
        return about.st_size, self._known[key]

    def write_part(self, folder: Path, paths: Iterable[Path], rank: int) -> None:
        """Put this process's files on disk, and note their checksums for ``write_manifest``."""
        sums: dict[str, Sums] = {}
        for path in paths:
            put_on_disk(path)
            sums[path.relative_to(folder).as_posix()] = [self.of(path)]
        write_atomically(folder / _part(rank), json.dumps(sums))

    def renew(self, folder: Path, name: str, new: Path) -> None:
        """Let file ``name`` be either what it is or what ``new`` is, before ``new`` takes its place.

        Raises:
            ValueError: the manifest is damaged.
        """
        if (folder / MANIFEST).exists():
            sums = read_manifest(folder)
            sums[name] = [*sums.get(name, [])[-1:], self.of(new)]
            _write(new.parent, sums)  # a kill leaves nothing half-written in the checkpoint
            (new.parent / MANIFEST).replace(folder / MANIFEST)

    def first_damaged(self, folder: Path, rank: int = 0, world_size: int = 1) -> tuple[int, int]:
        """Number of the first damaged file, of how many; as many if none is.

        Args:
            folder: a checkpoint.
            rank: of this process, which reads only its share of the files.
            world_size: number of processes.
        """
        try:
            sums = read_manifest(folder)
        except ValueError:
            return 0, 1
        names = list(sums)
        damaged = (
            number
            for number in range(rank, len(names), world_size)
            if self._of_file(folder, names[number], sums[names[number]])
        )
        return next(damaged, len(names)), len(names)

    def describe(self, folder: Path, number: int) -> str:
        """What is wrong with a file, by the number from ``first_damaged``; empty: nothing."""
        try:
            sums = read_manifest(folder)
        except ValueError as error:
            return str(error)
        name = list(sums)[number]
        return self._of_file(folder, name, sums[name])

    def _of_file(self, folder: Path, name: str, sums: Sums) -> str:
        path = folder / name
        try:
            if not path.is_file():
                return f"{name} is {'not a file' if path.exists() else 'missing'}"
            size = path.stat().st_size
            if size not in [one[0] for one in sums]:
                return f"{name} has {size} bytes instead of {sums[-1][0]}"
            return "" if self.of(path) in sums else f"{name} is not what was written (its checksum differs)"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"


def write_manifest(folder: Path, world_size: int) -> None:
    """Put together what all processes noted (``Checksums.write_part``)."""
    sums: dict[str, Sums] = {}
    for rank in range(world_size):
        sums |= read_object(folder / _part(rank), "the checksums")
    _write(folder, sums)
    for rank in range(world_size):
        (folder / _part(rank)).unlink()


def read_manifest(folder: Path) -> dict[str, Sums]:
    """Sums of the files of a checkpoint by their names; none if it was written by a version up to 0.1.

    Raises:
        ValueError: the manifest is damaged or missing.
    """
    path = folder / MANIFEST
    if not path.exists():
        meta = _json(folder, META)
        if meta.get("checksums"):
            raise ValueError(f"{MANIFEST} is missing")
        return {}
    if path.is_file() and path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{MANIFEST} is damaged")
    tree = _json(folder, MANIFEST)
    files = tree.get("files")
    if tree.get("crc32") != _crc_of(files) or not isinstance(files, dict):
        raise ValueError(f"{MANIFEST} is damaged")
    if tree.get("format") != _FORMAT:
        raise ValueError(f"{MANIFEST} has format {tree.get('format')}, this version reads {_FORMAT}")
    try:
        sums = {str(name): [(int(size), int(crc)) for size, crc in one] for name, one in files.items()}
    except (TypeError, ValueError):
        raise ValueError(f"{MANIFEST} is damaged") from None
    if any(".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute() for name in sums):
        raise ValueError(f"{MANIFEST} names files outside the checkpoint")
    return sums


def model_damage(model: Path) -> str:
    """What is wrong with the weights of a checkpoint; empty: nothing, or nothing is known of them."""
    folder = model.parent
    if not (folder / MANIFEST).exists() and not (folder / META).exists():
        return ""  # a file of its own
    try:
        sums = read_manifest(folder).get(model.name)
    except ValueError as error:
        return str(error)
    return Checksums()._of_file(folder, model.name, sums) if sums else ""


def _write(folder: Path, sums: dict[str, Sums]) -> None:
    files = json.loads(json.dumps(dict(sorted(sums.items()))))
    write_atomically(
        folder / MANIFEST, json.dumps({"format": _FORMAT, "crc32": _crc_of(files), "files": files})
    )


def _crc_of(files: Any) -> int:
    """Of the list itself, so that damage to it is not taken for damage to the files."""
    return zlib.crc32(json.dumps(files).encode())


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        return read_object(folder / name, "the checkpoint")
    except ValueError:
        raise ValueError(f"{name} is {'damaged' if (folder / name).exists() else 'missing'}") from None


def _part(rank: int) -> str:
    return f".checksums_{rank}.json"
