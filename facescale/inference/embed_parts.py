"""Embed a set in parts: by jobs of an array, or by the workers of a cluster.

A part is some whole batches, in order, and a file of its own; together they are what one machine writes, on
processors of one kind to the last bit.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from facescale.data.readers.base import Reader, image_hashes
from facescale.files import replacing
from facescale.inference.embed_files import (
    Embedded,
    EmbedReport,
    check_suffix,
    embed_images,
    write_embeddings,
)
from facescale.inference.load import load
from facescale.inference.model import Model
from facescale.jobs import Part
from facescale.jobs.cluster import Cluster, check_same, check_shared
from facescale.jobs.lock import BusyError, lock_folder

_FEW, _BATCHES, _MOST = 64, 64, 100_000  # a cluster's parts: so many, or of so many batches; at most


@dataclass(frozen=True)
class EmbedJob:
    """What is embedded, and how; a worker elsewhere can follow it.

    Attributes:
        model: what `facescale.inference.load.load` takes, and its options.
        open_images: gives the reader; called with the side of the model's images, pixels, and ``images``.
        images: its other arguments.
        batch_size: images per forward pass.
        resize: see `facescale.inference.embed_files.embed_to_file`.
    """

    model: tuple[Any, ...]
    open_images: Callable[..., Reader]
    images: tuple[Any, ...]
    batch_size: int = 128
    resize: bool | None = None

    def open_reader(self, model: Model) -> Reader:
        """The images."""
        return self.open_images(model.contract.size, *self.images)

    def head(self, model: Model, reader: Reader) -> str:
        """What all parts have in common: another model, other images or batches give another text."""
        images = blake2b(image_hashes(reader).tobytes() + reader.ids.tobytes(), digest_size=16).hexdigest()
        contract = model.contract.to_dict()
        values = ["1", model.fingerprint, contract, images, self.batch_size, self.resize]
        return json.dumps(values)

    def span(self, part: Part, total: int) -> range:
        """Images of a part, of ``total``."""
        batches = part.span(-(-total // self.batch_size))
        return range(batches.start * self.batch_size, min(batches.stop * self.batch_size, total))


@dataclass(frozen=True)
class EmbeddedPart:
    """What one job of an array has done.

    Attributes:
        part: of the images.
        images: in it.
        waiting: parts that are not done yet.
        joined: the report, if all were done and this job joined them.
    """

    part: Part
    images: int
    waiting: list[Part]
    joined: EmbedReport | None = None


def embed_part(model: Model, job: EmbedJob, out: str | Path, part: Part) -> EmbeddedPart:
    """Do the part of one job of an array; the job that ends last joins all parts to ``out``.

    All jobs take the same arguments but for ``part``, and see the files under the same paths. A job that was
    lost is started again; parts that are done are not repeated.

    Raises:
        ValueError: as `facescale.inference.embed_files.embed_to_file`.
    """
    start, out = time.perf_counter(), Path(out)
    check_suffix(out)
    reader = job.open_reader(model)
    head, folder = job.head(model, reader), _folder(out)
    span = job.span(part, len(reader))
    if not _is_done(folder, part, head):
        _write_part(folder, part, head, embed_images(model, reader, span, job.batch_size, 2, job.resize))
    waiting = [one for one in part.all() if not _is_done(folder, one, head)]
    joined = None if waiting else _joined(model, reader, out, part.all(), head, start)
    # Where the folder is gone, another job has joined the parts.
    return EmbeddedPart(part, len(span), waiting if folder.exists() else [], joined)


def embed_in_steps(
    model: Model,
    job: EmbedJob,
    out: str | Path,
    progress: Callable[[int, int], None] | None = None,
) -> EmbedReport:
    """Embed on this machine; what was interrupted continues, and gives the same bytes.

    A large set is embedded in parts of 64 batches, each a file until all are done; a small one at once.

    Args:
        model: that of the job, loaded.
        job: what is embedded.
        out: the file.
        progress: called with (images done, images in all).

    Raises:
        ValueError: as `facescale.inference.embed_files.embed_to_file`, or another process embeds the same.
    """
    start, out = time.perf_counter(), Path(out)
    check_suffix(out)
    reader = job.open_reader(model)
    total, batches = len(reader), -(-len(reader) // job.batch_size)
    told = progress or (lambda done, total: None)
    if batches <= _BATCHES:
        told(0, total)
        found = embed_images(model, reader, range(total), job.batch_size, 2, job.resize)
        told(total, total)
        return write_embeddings(model, reader, found, out, start)
    head, folder = job.head(model, reader), _folder(out)
    parts = Part(1, min(-(-batches // _BATCHES), _MOST)).all()
    for part in parts:
        span = job.span(part, total)
        told(span.start, total)
        if not _is_done(folder, part, head):
            _write_part(folder, part, head, embed_images(model, reader, span, job.batch_size, 2, job.resize))
    told(total, total)
    return _joined_here(model, reader, out, parts, head, start)


def embed_on_cluster(
    model: Model,
    job: EmbedJob,
    out: str | Path,
    address: str,
    progress: Callable[[int, int], None] | None = None,
) -> EmbedReport:
    """Embed on the workers of a Dask cluster, which must see the files under the same absolute paths.

    The same call continues what was interrupted.

    Args:
        model: that of the job, loaded.
        job: what is embedded.
        out: the file.
        address: of the scheduler.
        progress: called with (parts done, parts in all).

    Raises:
        ValueError: the cluster cannot be used, a worker sees other files than this machine, or as
            `facescale.inference.embed_files.embed_to_file`.
        RuntimeError: a worker failed.
    """
    start, out = time.perf_counter(), Path(out).absolute()
    check_suffix(out)
    reader = job.open_reader(model)
    head, folder = job.head(model, reader), _folder(out)
    batches = max(1, -(-len(reader) // job.batch_size))
    parts = Part(1, min(batches, max(_FEW, -(-batches // _BATCHES)), _MOST)).all()
    todo = [part for part in parts if not _is_done(folder, part, head)]
    folder.mkdir(parents=True, exist_ok=True)
    if todo:
        with Cluster(address) as cluster:
            tasks = [(job, head, folder, part) for part in todo]
            for done, _ in enumerate(cluster.map(embed_into, tasks), len(parts) - len(todo) + 1):
                if progress:
                    progress(done, len(parts))
    return _joined_here(model, reader, out, parts, head, start)


def embed_into(job: EmbedJob, head: str, folder: Path, part: Part) -> None:
    """Embed one part into its file. Runs on a worker.

    Raises:
        ValueError: this machine has other files than the one that gave ``head``.
    """
    check_shared(folder, "images, model and result")
    model, reader = _opened(job, head)
    span = job.span(part, len(reader))
    _write_part(folder, part, head, embed_images(model, reader, span, job.batch_size, 1, job.resize))


@lru_cache(maxsize=1)
def _opened(job: EmbedJob, head: str) -> tuple[Model, Reader]:
    """Model and images, kept by a worker for its next parts."""
    model = load(*job.model)
    reader = job.open_reader(model)
    check_same(job.head(model, reader), head)
    return model, reader


def _folder(out: Path) -> Path:
    return out.with_name(f".{out.name}.parts")


def _file(folder: Path, part: Part) -> Path:
    return folder / f"{part.name}.npz"


def _write_part(folder: Path, part: Part, head: str, found: Embedded) -> None:
    with replacing(_file(folder, part)) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            head=np.array(head),
            embeddings=found.embeddings_ND,
            index=found.index_N,
            bad=np.array(json.dumps(list(found.bad.items()))),
        )


def _is_done(folder: Path, part: Part, head: str) -> bool:
    try:
        with np.load(_file(folder, part)) as file:
            return str(file["head"]) == head
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # missing or damaged
        return False


def _joined(
    model: Model, reader: Reader, out: Path, parts: list[Part], head: str, start: float
) -> EmbedReport | None:
    """Write the result from the parts; None if another process does, or has done so."""
    folder = _folder(out)
    if not folder.exists():
        return None
    try:
        with lock_folder(folder):
            if not all(_is_done(folder, part, head) for part in parts):
                shutil.rmtree(folder)  # made by the lock: another process has joined them just now
                return None
            report = write_embeddings(
                model, reader, _read_parts(folder, parts, model, len(reader)), out, start
            )
    except BusyError:
        return None
    shutil.rmtree(folder)
    return report


def _joined_here(
    model: Model, reader: Reader, out: Path, parts: list[Part], head: str, start: float
) -> EmbedReport:
    report = _joined(model, reader, out, parts, head, start)
    if report is None:
        raise ValueError(f"another process joins the parts in '{_folder(out)}'; wait for it to end")
    return report


def _read_parts(folder: Path, parts: list[Part], model: Model, total: int) -> Embedded:
    embeddings_ND = np.empty((total, model.embedding_size), np.float32)
    index_N, bad, place = np.empty(total, np.int64), dict[int, str](), 0
    for part in parts:
        with np.load(_file(folder, part)) as file:
            rows = slice(place, place + len(file["index"]))
            index_N[rows], embeddings_ND[rows] = file["index"], file["embeddings"]
            bad |= {int(index): str(text) for index, text in json.loads(str(file["bad"]))}
            place = rows.stop
    return Embedded(embeddings_ND[:place], index_N[:place], bad)
