"""Embed a set of face images into one file that names the model."""

import importlib.util
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from facescale.arrays import IntArray
from facescale.data import open_reader
from facescale.data.images import ReaderImages
from facescale.data.loading.iterate import iter_images
from facescale.data.notes import alignment_notes
from facescale.data.readers.base import Reader, identity_names
from facescale.data.readers.loose import NO_ID, LooseImages
from facescale.data.readers.pictures import is_picture, is_system_folder
from facescale.files import replacing, write_atomically
from facescale.inference.model import Embeddings, Model

# N images, d embedding size


@dataclass(frozen=True)
class EmbedReport:
    """The result of `embed_to_file`.

    Attributes:
        path: the file.
        num_images: embeddings in it.
        bad: reason by key of the images that could not be read and are not in it.
        fingerprint: the model's.
        seconds: time taken.
        unaligned: sentences about images that look as if they were not aligned.
    """

    path: str
    num_images: int
    bad: dict[str, str]
    fingerprint: str
    seconds: float
    unaligned: list[str] = field(default_factory=list)


def embed_to_file(
    model: Model,
    source: Reader | str | Path,
    out: str | Path,
    *,
    batch_size: int = 128,
    workers: int = 2,
    resize: bool | None = None,
) -> EmbedReport:
    """Write the unit embeddings of every image of ``source`` to ``out``, atomically.

    A ``.npz`` file (read with ``numpy.load``) holds ``embeddings`` float32 (N, d), ``keys`` (N,), ``ids``
    int64 (N,), ``names`` (N,), and the scalars ``fingerprint`` and ``contract`` (JSON). A ``.parquet`` file
    has the columns ``key``, ``id``, ``name`` and ``embedding``, and the scalars in its schema's metadata;
    bytes of a file's name that are not UTF-8 are escaped there, as by ``backslashreplace``. A ``.faiss`` file
    is a flat index of inner products (read with ``faiss.read_index``); the rest stands beside it, as lists of
    the same order in ``OUT.json``.
    Images that cannot be read are left out and named in the report.

    Args:
        model: computes the embeddings.
        source: a reader, what `facescale.data.open_reader` takes, or a folder of images (id -1, no name).
        out: the file.
        batch_size: images per forward pass.
        workers: decoding threads.
        resize: scale images of another size than the model's, or leave them out; None: as the model's
            contract says.

    Raises:
        ValueError: another suffix, pyarrow or faiss missing, no readable image, embeddings that are not
            finite.
    """
    start = time.perf_counter()
    out = Path(out)
    check_suffix(out)
    reader = open_source(source) if isinstance(source, str | Path) else source
    found = embed_images(model, reader, range(len(reader)), batch_size, workers, resize)
    return write_embeddings(model, reader, found, out, start)


@dataclass(frozen=True)
class Embedded:
    """Embeddings of some images of a reader.

    Attributes:
        embeddings_ND: float32 (N, d).
        index_N: int64 (N,), the images.
        bad: reason by index of those that could not be read.
    """

    embeddings_ND: Embeddings
    index_N: IntArray
    bad: dict[int, str]


def embed_images(
    model: Model, reader: Reader, span: range, batch_size: int, workers: int = 2, resize: bool | None = None
) -> Embedded:
    """Embeddings of the images ``span`` of a reader; see `embed_to_file`.

    Raises:
        ValueError: embeddings that are not finite.
    """
    bad: dict[int, str] = {}
    # Reserved at once (memory is used only when written to), so that no second copy is ever made.
    embeddings_ND = np.empty((len(span), model.embedding_size), np.float32)
    indices: list[int] = []
    batches = iter_images(
        ReaderImages(reader),
        span,
        batch_size=batch_size,
        size=model.contract.size,
        workers=workers,
        resize=model.contract.resize == "area" if resize is None else resize,
        bad=bad,
    )
    for images, index in batches:
        part = model.embed(images, batch_size)
        if not np.isfinite(part).all():
            key = reader.key(int(index[int(np.argmin(np.isfinite(part).all(axis=1)))]))
            raise ValueError(
                f"the embedding of '{key}' is not finite: the model has diverged; use an earlier checkpoint"
            )
        embeddings_ND[len(indices) : len(indices) + len(part)] = part
        indices += index.tolist()
    return Embedded(embeddings_ND[: len(indices)], np.array(indices, np.int64), bad)


def write_embeddings(model: Model, reader: Reader, found: Embedded, out: Path, start: float) -> EmbedReport:
    """Write what `embed_to_file` promises.

    Args:
        model: that computed them.
        reader: the images.
        found: their embeddings.
        out: the file.
        start: when the work began, by ``time.perf_counter``.

    Raises:
        ValueError: there are none.
    """
    reasons = {reader.key(index): reason for index, reason in sorted(found.bad.items())}
    indices = found.index_N.tolist()
    if not indices:
        first = next((f": '{key}': {reason}" for key, reason in reasons.items()), "; it holds none")
        raise ValueError(f"none of {len(reader):,} images can be embedded{first}")
    ids, known = reader.ids[indices], identity_names(reader)
    table = _Table(
        found.embeddings_ND,
        [reader.key(index) for index in indices],
        ids,
        ["" if number == NO_ID else known[number] for number in ids],
        {"fingerprint": model.fingerprint, "contract": json.dumps(model.contract.to_dict())},
    )
    with replacing(out) as temporary:
        _FORMS[out.suffix].write(temporary, table)
        if out.suffix == ".faiss":  # before the index gets its name: where that is, the names are, too
            write_atomically(out.with_name(f"{out.name}.json"), table.names_as_json())
    unaligned = [] if getattr(reader, "finds_faces", False) else alignment_notes(reader)
    seconds = time.perf_counter() - start
    return EmbedReport(str(out), len(indices), reasons, model.fingerprint, seconds, unaligned)


@dataclass(frozen=True)
class _Table:
    embeddings_ND: Embeddings
    keys: Sequence[str]
    ids: IntArray
    names: Sequence[str]
    origin: dict[str, str]

    def names_as_json(self) -> str:
        """All but the embeddings; the contract is a JSON text, as in the other forms."""
        columns = {"key": list(self.keys), "id": self.ids.tolist(), "name": list(self.names)}
        return json.dumps(self.origin | columns)


def _write_npz(path: Path, table: _Table) -> None:
    columns: dict[str, Any] = {"keys": np.array(table.keys), "ids": table.ids, "names": np.array(table.names)}
    columns |= table.origin
    with path.open("wb") as file:
        np.savez(file, embeddings=table.embeddings_ND, **columns)


def _write_parquet(path: Path, table: _Table) -> None:
    import pyarrow
    from pyarrow import parquet

    width = table.embeddings_ND.shape[1]
    vectors = pyarrow.FixedSizeListArray.from_arrays(table.embeddings_ND.reshape(-1), width)
    keys, names = ([_utf8(text) for text in texts] for texts in (table.keys, table.names))
    columns = {"key": keys, "id": table.ids, "name": names, "embedding": vectors}
    # Metadata replaces that of the schema: pyarrow.table() accepts none together with inferred types.
    parquet.write_table(pyarrow.table(columns).replace_schema_metadata(table.origin), path)


def _write_faiss(path: Path, table: _Table) -> None:
    import faiss

    index = faiss.IndexFlatIP(table.embeddings_ND.shape[1])
    index.add(table.embeddings_ND)
    faiss.write_index(index, os.fsdecode(path))


@dataclass(frozen=True)
class _Form:
    write: Callable[[Path, _Table], None]
    library: str = ""
    extra: str = ""


_FORMS = {
    ".npz": _Form(_write_npz),
    ".parquet": _Form(_write_parquet, "pyarrow", "parquet"),
    ".faiss": _Form(_write_faiss, "faiss", "index"),
}


def _utf8(name: str) -> str:
    """A file's name as Parquet can hold it: each byte that is not UTF-8 becomes an escape."""
    return name.encode("utf-8", "backslashreplace").decode()


def check_suffix(out: Path) -> None:
    """Make sure that embeddings can be written to ``out``.

    Raises:
        ValueError: another suffix than .npz, .parquet or .faiss, or the library of the form missing.
    """
    form = _FORMS.get(out.suffix)
    if form is None:
        raise ValueError(f"cannot write embeddings to '{out}'; the name must end in {', '.join(_FORMS)}")
    if form.library and importlib.util.find_spec(form.library) is None:
        raise ValueError(
            f"a {out.suffix} file needs {form.library}; install it with: pip install"
            f" 'facescale[{form.extra}]', or write .npz"
        )


def open_source(source: str | Path) -> Reader:
    """A folder of images of unknown people, or what `facescale.data.open_reader` takes."""
    folder = Path(source)
    if folder.is_dir():
        entries = [
            entry
            for entry in folder.iterdir()
            if not entry.name.startswith(".") and not is_system_folder(entry.name)
        ]
        has_others = any(entry.is_dir() or entry.is_symlink() for entry in entries)  # a data set
        if not has_others and any(is_picture(entry) for entry in entries):
            return LooseImages(folder)
    return open_reader(str(source))
