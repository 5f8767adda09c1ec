"""Write an LMDB database and its list of keys, as F2C's training reads them (needs the extra ``lmdb``)."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from facescale.data.readers.base import Reader
from facescale.data.readers.datum import write_datum
from facescale.data.writers.base import Written, encoded_images

_NAME = "train"
_BATCH = 1000  # images of one transaction
_FIRST_SIZE = 1 << 26  # bytes of the map; doubled whenever the database is full


def write_lmdb(reader: Reader, folder: Path) -> Written:
    """Values are protobuf ``Datum`` messages, keys "train_LABEL_NUMBER"; train_kv.txt lists "key label".

    Raises:
        ValueError: the package lmdb is missing.
    """
    return _write(reader, folder, as_datum=True)


def write_lmdb_jpeg(reader: Reader, folder: Path) -> Written:
    """As "lmdb", but each value is the image file itself.

    Raises:
        ValueError: the package lmdb is missing.
    """
    return _write(reader, folder, as_datum=False)


def _write(reader: Reader, folder: Path, as_datum: bool) -> Written:
    try:
        import lmdb
    except ImportError:
        raise ValueError(
            "writing LMDB needs the package lmdb; install it with: pip install 'facescale[lmdb]'"
        ) from None
    bad: dict[str, str] = {}
    rows = _rows(reader, bad, as_datum)
    lines: list[str] = []
    with lmdb.open(str(folder), map_size=_FIRST_SIZE, readahead=False) as database:
        while batch := list(islice(rows, _BATCH)):
            _put(lmdb, database, batch)
            lines += [f"{key.decode()} {identity}\n" for key, _, identity in batch]
    (folder / "lock.mdb").unlink()
    (folder / f"{_NAME}_kv.txt").write_text("".join(lines), "ascii")
    return Written(len(reader) - len(bad), reader.num_ids, bad)


def _rows(reader: Reader, bad: dict[str, str], as_datum: bool) -> Iterator[tuple[bytes, bytes, int]]:
    counts: dict[int, int] = {}
    for image in encoded_images(reader, bad):
        number = counts.get(image.identity, 0)
        counts[image.identity] = number + 1
        value = write_datum(image.data) if as_datum else image.data
        yield f"{_NAME}_{image.identity}_{number}".encode(), value, image.identity


def _put(lmdb: Any, database: Any, rows: list[tuple[bytes, bytes, int]]) -> None:
    """Store rows in one transaction, in a map that grows as long as they do not fit."""
    while True:
        try:
            with database.begin(write=True) as transaction:
                for key, value, _ in rows:
                    transaction.put(key, value)
            return
        except lmdb.MapFullError:
            database.set_mapsize(2 * database.info()["map_size"])
