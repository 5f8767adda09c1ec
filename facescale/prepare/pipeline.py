"""``facescale prepare``: from photos to an aligned, checked and packed data set, in one resumable pass."""

import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from facescale.data.writers import WRITERS
from facescale.files import naming_full_disk
from facescale.jobs import Part
from facescale.jobs.lock import BusyError, lock_folder
from facescale.prepare.convert_data import convert_data
from facescale.prepare.crops import CropReader
from facescale.prepare.examine import FaceSource, Settings, open_face_source
from facescale.prepare.journal import Journal
from facescale.prepare.parts import Progress, examine_on_cluster, examine_part, part_folders, unfinished
from facescale.prepare.quality import Limits
from facescale.prepare.report import Report, write_report
from facescale.prepare.scan import Scan, scan
from facescale.prepare.select import Selection, drop_near_duplicates, select
from facescale.prepare.workers import examine_each
from facescale.registry import lookup


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
        cluster: address of a Dask scheduler whose workers examine the photos instead; empty: none.

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
    cluster: str = ""

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


@dataclass(frozen=True)
class PartDone:
    """What one job of an array has done.

    Attributes:
        part: of the photos.
        photos: files in it.
        continued: those that an earlier, interrupted job had examined.
        waiting: parts that are not done yet.
        joined: the data set, if all were done and this job joined them.
    """

    part: Part
    photos: int
    continued: int
    waiting: list[Part]
    joined: Prepared | None = None


def prepare(
    photos: str | Path, dataset: str | Path, options: Options, progress: Progress | None = None
) -> Prepared:
    """Find, align, check and pack the faces of all photos below a folder.

    ``dataset`` appears when it is complete; until then the work lies beside it, and the same call continues
    what was interrupted, and what jobs of an array (`prepare_part`) have done. It holds the packed crops,
    labels.json, report.json, report.html and photos.csv, which names every file with what became of it. The
    result does not depend on who examined the photos.

    Raises:
        ValueError: folders that cannot be used, options that do not fit the photos, no crop to keep, a
            cluster that cannot be used.
        RuntimeError: a worker died.
    """
    root, out = Path(photos), Path(dataset)
    _check_folders(root, out)
    found = scan(root, pattern=options.pattern, labels=options.labels)
    faces = open_face_source(options.settings)  # says what is missing before any photo is read
    work = _work_folder(out)
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


def prepare_part(
    photos: str | Path, dataset: str | Path, options: Options, part: Part, progress: Progress | None = None
) -> PartDone:
    """Do the part of one job of an array; the job that ends last joins all parts as `prepare` does.

    All jobs take the same arguments but for ``part``, and see the folders under the same paths. A job that
    was lost is started again and continues; `prepare` in its place does what is missing, too.

    Raises:
        ValueError: as `prepare`, or another process has this part.
        RuntimeError: a worker process died.
    """
    root, out = Path(photos), Path(dataset)
    _check_folders(root, out)
    found = scan(root, pattern=options.pattern, labels=options.labels)
    work, keys = _work_folder(out), [source.key for source in found.sources]
    with naming_full_disk(out), lock_folder(work, shared=True):
        total, known = examine_part(work, part, root, keys, options.settings, options.workers, progress)
    waiting = unfinished(work, part, options.settings, root)
    if waiting:
        # Where the folder is gone, another job has joined the parts since the lock was let go.
        return PartDone(part, total, known, waiting if work.exists() else [])
    try:
        return PartDone(part, total, known, [], prepare(photos, dataset, options, progress))
    except BusyError:  # another job joins them
        return PartDone(part, total, known, [])


def _work_folder(out: Path) -> Path:
    return out.with_name(f".{out.name}.preparing")


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
    """Examine what neither the journal nor those of parts know; how many photos they knew."""
    keys = [source.key for source in found.sources]

    def unknown() -> list[str]:
        return [key for key in keys if not journal.knows(key, root / key)]

    for folder in part_folders(journal.folder):
        journal.absorb(folder)
    todo = unknown()
    done = known = len(keys) - len(todo)
    if options.cluster and todo:
        for folder in examine_on_cluster(options.cluster, journal.folder, root, todo, options.settings):
            done += journal.absorb(folder)
            if progress:
                progress(done, len(keys))
        todo = unknown()  # what changed meanwhile
        done = len(keys) - len(todo)
    for finding, picture in examine_each(root, todo, options.settings, options.workers, faces):
        journal.add(finding, picture)
        done += 1
        if progress:
            progress(done, len(keys))
    return known


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
