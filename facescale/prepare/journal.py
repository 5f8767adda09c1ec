"""Findings and crops kept on disk until the data set is complete, so that a killed run continues."""

import hashlib
import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from facescale.prepare.examine import Finding, Settings

_VERSION = 1


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

    Args:
        folder: made if it does not exist.
        settings: a journal that was written with others is emptied.
        root: as for ``settings``.

    Raises:
        ValueError: another process works in the folder.
    """

    def __init__(self, folder: Path, settings: Settings, root: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.findings: dict[str, Finding] = {}
        self._places: dict[str, Place] = {}
        self._lock = _locked(folder / "lock")
        head = {"version": _VERSION, "root": str(root.resolve()), "settings": asdict(settings)}
        if settings.landmarks is not None:
            listed = Path(settings.landmarks).read_bytes()
            head["landmarks"] = hashlib.blake2b(listed, digest_size=16).hexdigest()
        self._lines = _opened(folder / "journal.jsonl")
        self._pictures = _opened(folder / "pictures.bin")
        end, pictures_end = self._read(head)
        self._lines.seek(end)
        self._lines.truncate()
        self._pictures.seek(pictures_end)
        self._pictures.truncate()
        if end == 0:
            self._write_line(head)

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

    def picture(self, key: str) -> bytes:
        """The crop or thumbnail of a photo; nothing for a file that could not be opened."""
        place = self._places[key]
        self._pictures.seek(place.offset)
        return self._pictures.read(place.length)

    def _write_line(self, values: dict[str, object]) -> None:
        self._lines.write(json.dumps(values).encode() + b"\n")
        self._lines.flush()

    def _read(self, head: dict[str, object]) -> tuple[int, int]:
        """Read what is there and valid; where it ends in both files."""
        end = pictures_end = 0
        for number, line in enumerate(self._lines):
            try:
                values: Any = json.loads(line) if line.endswith(b"\n") else None
                if number == 0:
                    if values != head:
                        break
                else:
                    finding, place = Finding.from_dict(values["finding"]), Place(**values["place"])
                    self._pictures.seek(place.offset)
                    if zlib.crc32(self._pictures.read(place.length)) != place.crc:
                        break
                    self.findings[finding.key], self._places[finding.key] = finding, place
                    pictures_end = place.offset + place.length
            except (ValueError, TypeError, KeyError):
                break
            end += len(line)
        return end, pictures_end


def _opened(path: Path) -> BinaryIO:
    path.touch()
    return path.open("rb+")


def _locked(path: Path) -> BinaryIO:
    """A file that only one process can hold; a killed one lets go of it."""
    file = path.open("wb")
    try:
        import fcntl
    except ImportError:  # Windows: two runs into one folder are not noticed there
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ValueError(f"another process prepares '{path.parent}' right now; wait for it to end") from None
    return file
