"""Check a packed data set against its checksums, its index and its lists, record by record."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facescale.arrays import IntArray
from facescale.checksums import MANIFEST, Checksums
from facescale.data import open_reader
from facescale.data.readers.base import Reader
from facescale.data.readers.lmdb_set import LmdbReader, build_list, kept_list
from facescale.data.readers.recordio import RecordReader, build_index, kept_index
from facescale.data.readers.recordio_format import HEADER, Words, is_set_header
from facescale.data.readers.recordio_index import read_index, rebuild_index
from facescale.data.readers.recordio_words import Gaps, MappedWords
from facescale.data.readers.saved_index import index_places
from facescale.data.readers.shard_index import build_index as index_of_shards
from facescale.data.readers.shard_index import shard_index
from facescale.data.readers.shards import ShardReader
from facescale.data.readers.texts import Texts
from facescale.data.spec import split_sources

_SHOWN = 5  # places named in a sentence


def verify_data(spec: str) -> list[str]:
    """Sentences about what is wrong with the files of a data set; none if nothing is.

    Every file is compared with the checksums that convert-data wrote, where it did. Of a record file all
    records are walked, without the index, and compared with it; of shards all headers are read again; of a
    database the keys are counted. An index that an earlier call kept is compared with a new one. Whether
    images can be decoded is for `facescale.prepare.inspect` to say.

    Args:
        spec: as for `facescale.data.open_reader`.

    Raises:
        ValueError: a source cannot be opened at all; the message says why.
    """
    return [sentence for text in split_sources(spec) for sentence in _problems(text, open_reader([text]))]


def _problems(text: str, reader: Reader) -> Iterator[str]:
    path = Path(text)
    yield from _checksums(path if path.is_dir() else path.parent)
    if isinstance(reader, RecordReader):
        yield from _records(reader.path)
        size = reader.path.stat().st_size
        yield from _kept([str(reader.path)], kept_index(reader.path, size), build_index(reader.path, size))
    if isinstance(reader, ShardReader):
        yield from _shards(reader)
    if isinstance(reader, LmdbReader):
        listing = reader.list_file
        yield from _kept([str(listing)], kept_list(listing), build_list(listing))
        extra = reader.num_stored - len(reader)
        if extra:
            yield f"'{text}' stores {reader.num_stored:,} values, and its list names {len(reader):,} keys"


def _checksums(folder: Path) -> Iterator[str]:
    if not (folder / MANIFEST).is_file():
        return
    checksums = Checksums()
    _, total = checksums.first_damaged(folder)
    found = (checksums.describe(folder, number) for number in range(total))
    yield from (f"'{folder}': {sentence}" for sentence in found if sentence)


def _records(path: Path) -> Iterator[str]:
    mapped = MappedWords(path)
    there, offsets = rebuild_index(path, mapped)
    words = mapped.values
    keys = _header_keys(words, offsets)
    index = path.with_suffix(".idx")
    if not index.is_file():
        return
    named_keys, named = read_index(index, words.nbytes)
    if len(wrong := np.setdiff1d(named, offsets)):
        yield f"'{index}' names {len(wrong):,} places where no record starts: {_listed(wrong)}"
    if len(missing := np.setdiff1d(offsets, named)):
        yield f"'{index}' leaves out {len(missing):,} records of {len(offsets):,}, at byte {_listed(missing)}"
    common, at_named, at_there = np.intersect1d(named, offsets, return_indices=True)
    swapped = np.asarray(named_keys)[at_named] != keys[at_there]
    first_gap = int(Gaps(offsets, words.nbytes).of(slice(0, 1))[0])
    keyless = is_set_header(words, int(there[0]), int(offsets[0]), first_gap) and not keys.any()
    if swapped.any() and not keyless:  # some packers write no keys
        where = _listed(common[swapped])
        yield f"'{index}' gives {swapped.sum():,} records another key than they have, at byte {where}"


def _header_keys(words: Words, offsets: IntArray) -> IntArray:
    """The key that each record itself carries, int64."""
    at = np.minimum(offsets // 4 + 4, len(words) - HEADER.size // 4)
    keys: IntArray = words[at].astype(np.int64) | words[at + 1].astype(np.int64) << 32
    return keys


def _shards(reader: ShardReader) -> Iterator[str]:
    yield from _kept(reader.files.names, shard_index(reader.files), index_of_shards(reader.files))


def _kept(names: Sequence[str], kept: Sequence[Any] | None, built: Sequence[Any]) -> Iterator[str]:
    """A sentence if the index that was kept of some files differs from a new one in any column."""
    if kept is None or all(_equal(a, b) for a, b in zip(kept, built, strict=True)):
        return
    places = " or ".join(f"'{place}'" for place in index_places(names))
    yield f"the index kept for '{names[0]}' is not that of its files; remove {places}"


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, Texts):
        block, ends = first.block
        return np.array_equal(block, second.block[0]) and np.array_equal(ends, second.block[1])
    return np.array_equal(np.asarray(first), np.asarray(second))


def _listed(places: IntArray) -> str:
    shown = ", ".join(f"{place:,}" for place in places[:_SHOWN].tolist())
    return f"{shown}, ..." if len(places) > _SHOWN else shown
