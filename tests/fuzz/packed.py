"""Packed data sets and the feature cache: targets of the fuzz whose files other libraries may read."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from facescale.data import open_reader
from facescale.data.readers.datum import read_datum
from facescale.data.writers.lmdb import write_lmdb, write_lmdb_jpeg
from facescale.data.writers.parquet import write_parquet
from facescale.data.writers.shards import write_shards
from facescale.evaluate.feature_cache import FeatureCache, Features

SIDE = 8  # numbers of an embedding


def read_set(spec: str) -> None:
    """Open a data set as a training does, and read its images; an unreadable one is skipped there."""
    reader = open_reader(spec)
    for index in range(min(len(reader), 20)):
        with contextlib.suppress(ValueError):
            reader.key(index)
            reader[index]


def packed(
    root: Path, memory: Any, target: Callable[..., Any], folder_of: Callable[[Path, str], Path]
) -> Iterator[Any]:
    """The targets; the arguments are those of ``tests.fuzz.targets``."""
    for name, write, victims in (
        ("lmdb datum", write_lmdb, {"data.mdb": "bytes", "train_kv.txt": "text"}),
        ("lmdb jpeg", write_lmdb_jpeg, {"data.mdb": "bytes"}),
        ("parquet", write_parquet, {"train-00000.parquet": "bytes"}),
    ):
        for victim, kind in victims.items():
            folder = folder_of(root, f"{name} {victim}")
            write(memory, folder)
            scheme = name.split()[0]
            yield target(folder.name, folder, victim, lambda f, s=scheme: read_set(f"{s}:{f}"), kind)
    folder = folder_of(root, "datum")
    write_lmdb(memory, folder)
    (folder / "x").write_bytes(_datum(memory[0][0]))
    yield target("datum", folder, "x", lambda f: read_datum((f / "x").read_bytes()))
    folder = folder_of(root, "tar shard")
    write_shards(memory, folder)
    victim = next(path.name for path in sorted(folder.glob("*.tar")))

    def read_shards(folder: Path) -> None:
        for index in (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".tar"):
            index.unlink()  # of the shard as it was before
        read_set(f"shards:{folder}")

    yield target("tar shard", folder, victim, read_shards)
    yield from _features(root, target, folder_of)


def _datum(image: bytes) -> bytes:
    """Protobuf: field 4, the image, and field 5, its label."""
    length, out = len(image), bytearray(b"\x22")
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    return bytes([*out, length]) + image + b"\x28\x01"


def _features(
    root: Path, target: Callable[..., Any], folder_of: Callable[[Path, str], Path]
) -> Iterator[Any]:
    digests_N2 = np.arange(12, dtype=np.uint64).reshape(6, 2) + 1
    ones = np.ones(6, np.float32)
    features = Features(
        np.full((6, SIDE), SIDE**-0.5, np.float32), ones, ones, np.full((6, 2), 112, np.int32)
    )

    def read(folder: Path) -> None:
        known_N, found = FeatureCache(folder, {"weights": "0"}).under(size=112).find(digests_N2)
        assert found is None or len(found.unit_ND) == known_N.sum()

    for part in ("index", "units"):
        folder = folder_of(root, f"features {part}")
        FeatureCache(folder, {"weights": "0"}).under(size=112).keep(digests_N2, features)
        victim = next(folder.rglob(f"*.{part}.npy")).relative_to(folder).as_posix()
        yield target(folder.name, folder, victim, read)
