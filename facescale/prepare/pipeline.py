"""``facescale prepare``: from photos to an aligned, checked and packed data set, in one resumable pass."""

import math
import os
import shutil
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

from facescale.data.writers import WRITERS
from facescale.files import naming_full_disk
from facescale.prepare.convert_data import convert_data
from facescale.prepare.crops import CropReader
from facescale.prepare.examine import FaceSource, Finding, Settings, examine, open_face_source
from facescale.prepare.journal import Journal
from facescale.prepare.quality import Limits
from facescale.prepare.report import Report, write_report
from facescale.prepare.scan import Scan, scan
from facescale.prepare.select import Selection, drop_near_duplicates, select
from facescale.registry import lookup

_CHUNK = 8  # photos that a worker examines in one go

Progress = Callable[[int, int], None]  # photos done, photos in all


@dataclass(frozen=True)
class Options:
    """What to do with the photos.

    Attributes:
        settings: how faces are found and aligned.
        limits: which faces are kept.
        pattern: regular expression whose first group, in a path, is the identity.
        labels: CSV with the columns path and identity.
        single_face: drop photos that show several faces.
        min_images: drop identities with fewer crops.
        model: run folder or weights file whose embeddings find near-duplicates; None looks for none.
        near: cosine from which crops are compared by their pixels; None: what copies of the crops reach.
        form: key of `facescale.data.writers.WRITERS`.
        workers: processes that examine photos; 1 examines them in this process.

    Raises:
        ValueError: a value out of its range, or an unknown form.
    """

    settings: Settings = field(default_factory=Settings)
    limits: Limits = field(default_factory=Limits)
    pattern: str | None = None
    labels: Path | None = None
    single_face: bool = False
    min_images: int = 1
    model: str | None = None
    near: float | None = None
    form: str = "recordio"
    workers: int = 1

    def __post_init__(self) -> None:
        lookup("form", WRITERS, self.form)
        if self.workers < 1 or self.min_images < 1:
            name, value = ("workers", self.workers) if self.workers < 1 else ("min_images", self.min_images)
            raise ValueError(f"{name} = {value} must be at least 1")
        if self.near is not None and not (math.isfinite(self.near) and 0 < self.near < 1):
            raise ValueError(f"near = {self.near} must lie between 0 and 1; it is a cosine")


@dataclass(frozen=True)
class Prepared:
    """What came of it.

    Attributes:
        folder: the data set.
        report: counts and reasons, also in report.json.
        continued: photos that an earlier, interrupted run had examined.
    """

    folder: Path
    report: Report
    continued: int


def prepare(
    photos: str | Path, dataset: str | Path, options: Options, progress: Progress | None = None
) -> Prepared:
    """Find, align, check and pack the faces of all photos below a folder.

    ``dataset`` appears when it is complete; until then the work lies beside it, and the same call continues
    what was interrupted. It holds the packed crops, labels.json, report.json, report.html and photos.csv,
    which names every file with what became of it. The result does not depend on the number of workers.

    Raises:
        ValueError: folders that cannot be used, options that do not fit the photos, no crop to keep.
        RuntimeError: a worker process died.
    """
    root, out = Path(photos), Path(dataset)
    _check_folders(root, out)
    found = scan(root, pattern=options.pattern, labels=options.labels)
    faces = open_face_source(options.settings)  # says what is missing before any photo is read
    work = out.with_name(f".{out.name}.preparing")
    with naming_full_disk(out), Journal(work, options.settings, root) as journal:
        continued = _examine_all(root, found, options, journal, faces, progress)
        selection = _selected(found, options, journal)
        packed = work / "dataset"
        shutil.rmtree(packed, ignore_errors=True)
        reader = CropReader(journal.picture, selection.kept)
        convert_data(reader, packed, form=options.form)
        report = write_report(packed, root, found, options, selection, journal)
        if out.exists():
            out.rmdir()  # empty: `_check_folders`
        packed.replace(out)
    shutil.rmtree(work)
    return Prepared(out, report, continued)


def _check_folders(root: Path, out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"'{out}' is not an empty folder; choose a new one for the data set")
    inner, outer = out.resolve(), root.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise ValueError(f"'{out}' and '{root}' lie inside each other; put the data set beside the photos")


def _examine_all(
    root: Path,
    found: Scan,
    options: Options,
    journal: Journal,
    faces: FaceSource,
    progress: Progress | None,
) -> int:
    """Examine what the journal does not know; how many photos it knew."""
    keys = [source.key for source in found.sources]
    todo = [key for key in keys if not journal.knows(key, root / key)]
    done = known = len(keys) - len(todo)
    for finding, picture in _results(root, todo, options, faces):
        journal.add(finding, picture)
        done += 1
        if progress:
            progress(done, len(keys))
    return known


def _results(
    root: Path, keys: list[str], options: Options, faces: FaceSource
) -> Iterator[tuple[Finding, bytes]]:
    """Findings in the order of ``keys``; ``faces`` serves this process, workers open their own."""
    chunks = [keys[start : start + _CHUNK] for start in range(0, len(keys), _CHUNK)]
    if options.workers == 1 or len(chunks) < 2:
        for key in keys:
            yield examine(root, key, options.settings, faces)
        return
    # Spawned, not forked: the progress bar and the libraries of this process have threads.
    pool = ProcessPoolExecutor(
        min(options.workers, len(chunks)), mp_context=get_context("spawn"), initializer=_start_worker
    )
    waiting: deque[tuple[list[str], Future[list[tuple[Finding, bytes]]]]] = deque()
    try:
        for chunk in chunks:
            waiting.append((chunk, pool.submit(examine_many, root, chunk, options.settings)))
            if len(waiting) > 4 * options.workers:
                yield from _finished(*waiting.popleft())
        while waiting:
            yield from _finished(*waiting.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Leave interruptions to the main process, and end with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None  # this is a worker
    parent.join()
    os._exit(1)  # an executor's workers wait for ever on a queue that nobody fills


def _finished(chunk: list[str], future: Future[list[tuple[Finding, bytes]]]) -> list[tuple[Finding, bytes]]:
    try:
        return future.result()
    except BrokenProcessPool:
        raise RuntimeError(
            f"a worker process died, perhaps out of memory, while it examined '{chunk[0]}' or a later photo;"
            " the same command continues from there, with --workers 1 it needs the least memory"
        ) from None


def examine_many(root: Path, keys: list[str], settings: Settings) -> list[tuple[Finding, bytes]]:
    """Examine some photos; runs in a worker process, which opens the detector once."""
    faces = _face_source(settings)
    return [examine(root, key, settings, faces) for key in keys]


_face_source = cache(open_face_source)  # in worker processes only, which end with their preparation


def _selected(found: Scan, options: Options, journal: Journal) -> Selection:
    selection = select(found.sources, journal.findings, options.limits, options.single_face)
    if options.model is not None and selection.kept:
        selection = drop_near_duplicates(
            selection, CropReader(journal.picture, selection.kept), options.model, options.near
        )
    selection = selection.without_small_identities(options.min_images)
    if not selection.kept:
        counts = ", ".join(f"{reason} {count}" for reason, count in selection.reasons().items())
        raise ValueError(
            f"none of {len(found.sources)} photos is left: {counts}; loosen the limits that drop them"
        )
    return selection


def default_workers() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
