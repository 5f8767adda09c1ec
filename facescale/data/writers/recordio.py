"""Write MXNet RecordIO sets (.rec, .idx, .lst, property) as InsightFace's tools and im2rec do."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, TextIO, get_args

import numpy as np

from facescale.data.loading.decode import decode
from facescale.data.readers.base import BadRecordError, Reader
from facescale.data.readers.recordio_format import EXACT_FLOAT32, FRAME, HEADER, KIND_BIT, MAGIC, MAX_LENGTH
from facescale.data.sampling.counter_rng import ORDER, permuted
from facescale.data.writers.base import Written, encoded_images
from facescale.files import one_line, replacing

Layout = Literal["insightface", "im2rec"]


class RecordFile:
    """An open .rec file and its index; see `record_file`."""

    def __init__(self, records: BinaryIO, index: TextIO) -> None:
        self._records = records
        self._index = index

    def append(self, key: int, labels: Sequence[float], image: bytes = b"") -> None:
        """Append a record; a single label goes into its header, several follow the header.

        Raises:
            ValueError: the image is too large for a record.
        """
        self._index.write(f"{key}\t{self._records.tell()}\n")
        self._records.write(_framed(_payload(key, labels, image)))

    def rewrite_first(self, key: int, labels: Sequence[float]) -> None:
        """Replace the first record by one of the same length."""
        end = self._records.tell()
        self._records.seek(0)
        self._records.write(_framed(_payload(key, labels, b"")))
        self._records.seek(end)


@contextmanager
def record_file(path: str | Path) -> Iterator[RecordFile]:
    """Write ``path`` (.rec) and the .idx beside it; they appear when the block ends, and not if it fails."""
    path = Path(path)
    with (
        replacing(path.with_suffix(".idx")) as index_path,
        replacing(path) as records_path,
        index_path.open("w", encoding="ascii") as index,
        records_path.open("wb") as records,
    ):
        yield RecordFile(records, index)


def write_records(reader: Reader, folder: str | Path, *, layout: Layout = "insightface") -> Written:
    """Write ``folder``/train.rec, .idx and .lst (and, for InsightFace, property) from any reader.

    Encoded images are stored byte for byte; raw pixels become JPEG. InsightFace's layout groups the images
    by identity behind a record of counts and ends with the key range of every identity. im2rec's has
    neither, and its records are shuffled in the file, because its readers read in sequence.

    Raises:
        ValueError: unknown layout, or labels that float32 cannot hold.
    """
    if layout not in get_args(Layout):
        raise ValueError(f"unknown layout '{layout}'; choose one of: {', '.join(get_args(Layout))}")
    if reader.num_ids > EXACT_FLOAT32:
        raise ValueError(
            f"{reader.num_ids:,} identities do not fit RecordIO, whose float32 labels are exact up to"
            f" {EXACT_FLOAT32:,}; keep the folder form"
        )
    write = _write_insightface if layout == "insightface" else _write_im2rec
    path = Path(folder) / "train.rec"
    with (
        record_file(path) as records,
        replacing(path.with_suffix(".lst")) as list_path,
        list_path.open("w", encoding="utf-8", errors="surrogateescape") as listing,
    ):
        written = write(reader, records, listing)
    if layout == "insightface":
        with replacing(path.with_name("property")) as property_path:
            property_path.write_text(f"{reader.num_ids},{_sides(reader)}", "ascii")
    return written


def write_im2rec(reader: Reader, folder: str | Path) -> Written:
    """`write_records` in im2rec's layout."""
    return write_records(reader, folder, layout="im2rec")


def _write_insightface(reader: Reader, records: RecordFile, listing: TextIO) -> Written:
    records.append(0, (0.0, 0.0))
    counts, bad = np.zeros(reader.num_ids, np.int64), dict[str, str]()
    key = 1
    for image in encoded_images(reader, bad, np.argsort(reader.ids, kind="stable").tolist()):
        records.append(key, (image.identity, 0), image.data)
        listing.write(f"1\t{one_line(reader.key(image.number))}\t{image.identity}\n")
        counts[image.identity] += 1
        key += 1
    starts = np.cumsum(counts) - counts + 1
    for identity, (start, count) in enumerate(zip(starts.tolist(), counts.tolist(), strict=True)):
        records.append(key + identity, (start, start + count))
    records.rewrite_first(0, (key, key + reader.num_ids))
    return Written(key - 1, reader.num_ids, bad)


def _write_im2rec(reader: Reader, records: RecordFile, listing: TextIO) -> Written:
    bad: dict[str, str] = {}
    order = permuted(np.arange(len(reader)), len(reader), ORDER).tolist()
    for image in encoded_images(reader, bad, order):
        records.append(image.number, (image.identity,), image.data)
        listing.write(f"{image.number}\t{image.identity:f}\t{one_line(reader.key(image.number))}\n")
    return Written(len(reader) - len(bad), reader.num_ids, bad)


def _sides(reader: Reader) -> str:
    """Height and width of the first readable image."""
    for index in range(len(reader)):
        try:
            height, width, _ = decode(reader[index][0]).shape
        except BadRecordError:
            continue
        return f"{height},{width}"
    return "112,112"


def _payload(key: int, labels: Sequence[float], image: bytes) -> bytes:
    if len(labels) == 1:
        return HEADER.pack(0, labels[0], key, 0) + image
    return HEADER.pack(len(labels), 0.0, key, 0) + np.array(labels, "<f4").tobytes() + image


def _framed(payload: bytes) -> bytes:
    """Frame a payload as one record, split wherever it holds the magic at a multiple of 4."""
    if len(payload) > MAX_LENGTH:
        raise ValueError(f"a record holds up to {MAX_LENGTH:,} bytes, this one {len(payload):,}; shrink it")
    words = np.frombuffer(payload, "<u4", len(payload) // 4)
    cuts = (np.flatnonzero(words == MAGIC) * 4).tolist()
    frames, start = [], 0
    for number, end in enumerate([*cuts, len(payload)]):
        kind = 0 if not cuts else 3 if number == len(cuts) else min(number + 1, 2)
        part = payload[start:end]
        frames.append(FRAME.pack(MAGIC, kind << KIND_BIT | len(part)) + part + bytes(-len(part) % 4))
        start = end + 4
    return b"".join(frames)
