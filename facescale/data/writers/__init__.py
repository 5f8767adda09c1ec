"""Data sets written by format."""

from collections.abc import Callable
from pathlib import Path

from facescale.data.readers.base import Reader
from facescale.data.writers.base import Written
from facescale.data.writers.folder import write_folder, write_list, write_webface
from facescale.data.writers.lmdb import write_lmdb, write_lmdb_jpeg
from facescale.data.writers.parquet import write_parquet
from facescale.data.writers.recordio import write_im2rec, write_records
from facescale.data.writers.shards import write_shards

__all__ = ["FILES", "WRITERS"]

FILES = ("folder", "list", "webface")  # forms of single image files

# form -> what writes a reader's images into an existing folder
WRITERS: dict[str, Callable[[Reader, Path], Written]] = {
    "recordio": write_records,
    "im2rec": write_im2rec,
    "folder": write_folder,
    "list": write_list,
    "webface": write_webface,
    "lmdb": write_lmdb,
    "lmdb_jpeg": write_lmdb_jpeg,
    "shards": write_shards,
    "parquet": write_parquet,
}
