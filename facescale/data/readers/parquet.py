"""Read Parquet files of image rows, as Hugging Face data sets have them (needs the extra ``parquet``)."""

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facescale.arrays import IntArray
from facescale.data.readers.base import BadRecordError
from facescale.data.readers.info_file import read_info
from facescale.data.readers.labels_file import original_names
from facescale.data.sampling.counter_rng import Uints, hash64_each
from facescale.data.spec import split_options
from facescale.registry import nearest

NAMES_KEY, INFO_KEY, HUGGINGFACE = b"facescale.names", b"facescale.info", b"huggingface"
_IMAGE_COLUMNS, _LABEL_COLUMNS = ("image", "img", "jpg"), ("label", "labels", "identity", "id", "cls")
_CACHED = 64 << 20  # bytes of images that each thread keeps, so that neighbours are read once


class ParquetReader:
    """Parquet image rows (Hugging Face), of one .parquet file or of all files of a folder in order.

    ``PATH?image=COLUMN&label=COLUMN`` names the columns where they are not called image and label. The image
    column holds bytes, or Hugging Face's struct {bytes, path}; the label a number or a text. A row is read
    with its whole row group, so groups should be small (the writer's have 64 rows).

    Attributes:
        ids: int64 (N,), identity of each row, in ascending order of the labels.
        names: of the identities: names of Hugging Face's ClassLabel, else the labels.
        info: licence, source and the like.

    Raises:
        ValueError: pyarrow is missing, no such file or column, or a label that is empty or not whole.
    """

    def __init__(self, spec: str | Path) -> None:
        text, options = split_options(str(spec), ["image", "label"])
        path = Path(text)
        _need_pyarrow()
        self._paths = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not self._paths or not self._paths[0].is_file():
            raise ValueError(f"'{path}' is no .parquet file and holds none; give a file or a folder of them")
        self._folder = path if path.is_dir() else path.parent
        files = [self._file(number) for number in range(len(self._paths))]
        schema = files[0].schema_arrow
        self._image = _column(schema, options.get("image"), _IMAGE_COLUMNS, path, "image")
        label = _column(schema, options.get("label"), _LABEL_COLUMNS, path, "label")
        groups = [
            (number, group, file.metadata.row_group(group).num_rows)
            for number, file in enumerate(files)
            for group in range(file.metadata.num_row_groups)
        ]
        self._groups = [(number, group) for number, group, _ in groups]
        self._starts = np.cumsum([0, *(rows for _, _, rows in groups)])
        self._first_groups = {number: at for at, (number, group) in enumerate(self._groups) if group == 0}
        metadata = schema.metadata or {}
        labels, self.ids = _ids(files, label, path)
        self.names: Sequence[str] = _names(labels, metadata, label)
        self.info = _table(metadata.get(INFO_KEY)) or read_info(self._folder)

    @property
    def num_ids(self) -> int:
        """Number of identities that have rows."""
        return len(self.names)

    @property
    def original_names(self) -> Sequence[str]:
        """Names of the identities; those that labels.json keeps, where it lies beside the file."""
        return original_names(self._folder, self.names)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """Encoded image and identity of row ``index``.

        Raises:
            BadRecordError: the row group cannot be read, or the row has no image.
        """
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        images, row = self._images(group), index - int(self._starts[group])
        image = images[row].as_py() if row < len(images) else None  # fewer than stated in a damaged file
        if not image:
            raise BadRecordError("row has no image")
        return image, int(self.ids[index])

    def key(self, index: int) -> str:
        """File and row of image ``index``."""
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        number, _ = self._groups[group]
        row = index - int(self._starts[self._first_groups[number]])
        return f"{self._paths[number].name}#{row}"

    def image_hashes(self) -> Uints:
        """A hash of the number of each row, uint64 (N,): rows have no names."""
        return hash64_each(np.arange(len(self)))

    def image_size(self, index: int) -> int:
        """0: asking for a size would read the image, so a digest compares contents of a few alone."""
        return 0

    def _images(self, group: int) -> Any:
        """The images of a row group, from this thread's cache."""
        import pyarrow

        cache = self._local()
        if group in cache.groups:
            cache.groups.move_to_end(group)
            return cache.groups[group]
        number, local = self._groups[group]
        if number not in cache.files:
            cache.files[number] = self._file(number)
        try:
            column = cache.files[number].read_row_group(local, columns=[self._image], use_threads=False)
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise BadRecordError(
                f"cannot read row group {local} of '{self._paths[number]}': {error}"
            ) from error
        images = column.column(self._image).combine_chunks()
        if pyarrow.types.is_struct(images.type):
            images = images.field("bytes")
        cache.groups[group] = images
        while len(cache.groups) > 1 and sum(part.nbytes for part in cache.groups.values()) > _CACHED:
            cache.groups.popitem(last=False)
        return images

    def _local(self) -> Any:
        """Open files and row groups of this thread; a forked process starts anew."""
        cache = self.__dict__.setdefault("_cache", threading.local())
        if getattr(cache, "process", -1) != os.getpid():
            cache.process, cache.files, cache.groups = os.getpid(), {}, OrderedDict()
        return cache

    def _file(self, number: int) -> Any:
        import pyarrow
        from pyarrow import parquet

        try:
            return parquet.ParquetFile(self._paths[number], memory_map=False)
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(
                f"'{self._paths[number]}' is not a complete Parquet file: {str(error).splitlines()[0]}; "
                "copy it again"
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_cache"}


def _need_pyarrow() -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise ValueError(
            "a Parquet data set needs pyarrow; install it with: pip install 'facescale[parquet]'"
        ) from None


def _column(schema: Any, asked: str | None, usual: Sequence[str], path: Path, what: str) -> str:
    names: list[str] = schema.names
    found = asked or next((name for name in usual if name in names), None)
    if found not in names:
        raise ValueError(
            f"'{path}' has no column '{found or usual[0]}'{nearest(found or usual[0], names)}; it has:"
            f" {', '.join(names)}; name the one of the {what}: parquet:{path}?{what}=COLUMN"
        )
    return found


def _ids(files: Sequence[Any], column: str, path: Path) -> tuple[list[Any], IntArray]:
    """Labels in ascending order, and the place of each row's among them."""
    values = np.concatenate([file.read(columns=[column]).column(column).to_numpy() for file in files])
    if not len(values):
        raise ValueError(f"'{path}' holds no rows; give a file of image rows")
    if values.dtype.kind not in "iu" and not all(isinstance(value, str) for value in values):
        raise ValueError(
            f"column '{column}' of '{path}' has empty labels or fractions; it must have numbers or texts"
        )
    labels, ids = np.unique(values.astype(str) if values.dtype == object else values, return_inverse=True)
    return labels.tolist(), ids


def _names(labels: Sequence[Any], metadata: dict[bytes, bytes], column: str) -> Sequence[str]:
    """Names of the labels, from what Hugging Face's library or our writer keeps in a schema."""
    features = (_table(metadata.get(HUGGINGFACE)).get("info") or {}).get("features") or {}
    known = (features.get(column) or {}).get("names") if isinstance(features, dict) else None
    if isinstance(known, list) and all(
        isinstance(label, int) and 0 <= label < len(known) for label in labels
    ):
        return [str(known[label]) for label in labels]
    return [str(label) for label in labels]


def _table(raw: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(raw or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
