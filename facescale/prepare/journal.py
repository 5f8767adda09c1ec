"""Findings and crops kept on disk until the data set is complete, so that a killed run continues."""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from facescale.jobs.lock import lock_folder
from facescale.prepare.examine import Finding, Settings

_VERSION = 2
_LINES, _PICTURES = "journal.jsonl", "pictures.bin"


@dataclass(frozen=True)
class Place:
    """Where a picture lies in the file of pictures."""

    offset: int
    length: int
    crc: int


class Journal:
    """Findings and pictures of the photos examined so far, on disk.

    A picture is written before the line that names it, so after a kill the file of pictures may only have a
    tail that no line names; it is cut off. A torn or damaged line ends the journal.

    Attributes:
        folder: where it lies.
        findings: by key.

    Args:
        folder: made if it does not exist.
        settings: a journal that was written with others is emptied.
        root: as for ``settings``.

    Raises:
        BusyError: another process works in the folder.
    """

    def __init__(self, folder: Path, settings: Settings, root: Path) -> None:
        self.folder = folder
        self.findings: dict[str, Finding] = {}
        self._places: dict[str, Place] = {}
        self._lock = lock_folder(folder)
        self._head = head_of(settings, root)
        for name in (_LINES, _PICTURES):
            (folder / name).touch()
        self._lines = (folder / _LINES).open("rb+")
        self._pictures = (folder / _PICTURES).open("rb+")
        self._read_own()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._lines, self._pictures, self._lock):
            file.close()

    def knows(self, key: str, path: Path) -> bool:
        """Whether a file was examined and has not changed since."""
        finding = self.findings.get(key)
        try:
            status = os.stat(path)
        except OSError:
            return False
        now = (status.st_size, status.st_mtime_ns)
        return finding is not None and (finding.num_bytes, finding.mtime_ns) == now

    def add(self, finding: Finding, picture: bytes) -> None:
        """Note a finding and keep its picture."""
        place = Place(self._pictures.seek(0, os.SEEK_END), len(picture), zlib.crc32(picture))
        self._pictures.write(picture)
        self._pictures.flush()
        self.findings[finding.key], self._places[finding.key] = finding, place
        self._write_line({"finding": finding.to_dict(), "place": asdict(place)})

    def absorb(self, folder: Path) -> int:
        """Move the entries of another journal, which nobody writes any more, into this one.

        One that was written with other settings, or of other photos, is passed over. The folder is removed
        when all of it is on this side, so a kill loses nothing.

        Returns:
            Number of its entries.
        """
        count = 0
        try:
            with (folder / _LINES).open("rb") as lines, (folder / _PICTURES).open("rb") as pictures:
                for entry in _entries(lines, pictures, self._head):
                    if entry.finding is not None and self.findings.get(entry.finding.key) != entry.finding:
                        self.add(entry.finding, entry.picture)
                    count += entry.finding is not None
        except FileNotFoundError:  # it was killed before it began
            pass
        shutil.rmtree(folder)
        return count

    def picture(self, key: str) -> bytes:
        """The crop or thumbnail of a photo; nothing for a file that could not be opened."""
        place = self._places[key]
        self._pictures.seek(place.offset)
        return self._pictures.read(place.length)

    def _write_line(self, values: Mapping[str, object]) -> None:
        self._lines.write(json.dumps(values).encode() + b"\n")
        self._lines.flush()

    def _read_own(self) -> None:
        """Read what is there and valid, and cut off the rest."""
        end = pictures_end = 0
        for entry in _entries(self._lines, self._pictures, self._head):
            end += entry.num_bytes
            if entry.finding is not None:
                self.findings[entry.finding.key], self._places[entry.finding.key] = entry.finding, entry.place
                pictures_end = entry.place.offset + entry.place.length
        for file, length in ((self._lines, end), (self._pictures, pictures_end)):
            file.seek(length)
            file.truncate()
        if end == 0:
            self._write_line(self._head)


def head_of(settings: Settings, root: Path) -> dict[str, object]:
    """What all entries of a journal have in common."""
    values = asdict(settings)
    if settings.landmarks is not None:  # what the file holds counts, not where it lies
        listed = Path(settings.landmarks).read_bytes()
        values["landmarks"] = hashlib.blake2b(listed, digest_size=16).hexdigest()
    return {"version": _VERSION, "root": str(root.resolve()), "settings": values}


@dataclass(frozen=True)
class _Entry:
    """A valid line of ``num_bytes`` bytes: the head, or a finding with its picture."""

    num_bytes: int
    finding: Finding | None = None
    place: Place = Place(0, 0, 0)
    picture: bytes = b""


def _entries(lines: BinaryIO, pictures: BinaryIO, head: Mapping[str, object]) -> Iterator[_Entry]:
    """The lines of a journal up to the first that is torn or damaged; none if it has another head."""
    for number, line in enumerate(lines):
        try:
            values: Any = json.loads(line) if line.endswith(b"\n") else None
            if number == 0:
                if values != head:
                    return
                yield _Entry(len(line))
                continue
            finding, place = Finding.from_dict(values["finding"]), Place(**values["place"])
            pictures.seek(place.offset)
            picture = pictures.read(place.length)
        except (ValueError, TypeError, KeyError):
            return
        if zlib.crc32(picture) != place.crc:
            return
        yield _Entry(len(line), finding, place, picture)
