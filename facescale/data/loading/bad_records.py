"""Records that cannot be decoded: counted, logged, limited."""

from pathlib import Path

from facescale.data.readers.base import Reader
from facescale.files import naming_full_disk, one_line

_SETTLED = 1000  # images after which the share of unreadable ones is taken at its word


class BadRecords:
    """Counts unreadable images, names each once in a file, and stops when they are too many."""

    def __init__(self, reader: Reader, path: str | Path | None, max_share: float) -> None:
        self._reader = reader
        self._path = Path(path) if path else None
        self._max_share = max_share
        self._seen = 0
        self._indices: set[int] = set()
        self._logged: set[str] | None = None

    @property
    def where(self) -> str:
        """Where a person finds the reasons."""
        return f"'{self._path}'" if self._path else "bad_log (not set)"

    def add(self, read: int, bad: list[tuple[int, str]]) -> None:
        """Account for ``read`` readable images and ``bad`` (index, reason) ones.

        Raises:
            ValueError: more than the allowed share is unreadable.
        """
        self._seen += read + len(bad)
        for index, reason in bad:
            if index not in self._indices:
                self._indices.add(index)
                self._log(one_line(self._reader.key(index)), reason)
        # A small sample says little, unless the set is small itself.
        base = max(self._seen, min(len(self._reader), _SETTLED))
        if len(self._indices) > self._max_share * base:
            index, reason = bad[-1]
            raise ValueError(
                f"{len(self._indices)} of the first {self._seen:,} images are unreadable, more than the"
                f" allowed share of {self._max_share:g}, such as '{self._reader.key(index)}' ({reason});"
                " repair or remove them (facescale inspect names all), or raise max_bad_share"
            )

    def _log(self, key: str, reason: str) -> None:
        if self._path is None:
            return
        with (
            naming_full_disk(self._path),
            self._path.open("a+", encoding="utf-8", errors="backslashreplace") as file,
        ):
            if self._logged is None:  # what was named before a resume is not named again
                file.seek(0)
                self._logged = {line.partition("\t")[0] for line in file}
            if key not in self._logged:
                file.write(f"{key}\t{' '.join(reason.split())}\n")
