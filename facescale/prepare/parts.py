"""Examine the photos of a preparation in parts: by jobs of an array, or by the workers of a cluster.

Every part has a journal of its own in the folder of the preparation. Which photo is in which part does not
matter: whoever joins them takes what they hold, and examines what none does.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from facescale.files import write_atomically
from facescale.jobs import Part
from facescale.jobs.cluster import Cluster, check_shared
from facescale.jobs.part import hash_of
from facescale.prepare.examine import Settings, open_face_source
from facescale.prepare.journal import Journal, head_of
from facescale.prepare.workers import examine_each

_DONE = "done"
_SMALLEST, _LARGEST = 8, 4000  # photos in a part of a cluster's work

Progress = Callable[[int, int], None]  # photos done, photos in all


def part_folder(work: Path, part: Part) -> Path:
    """Where a part keeps its journal."""
    return work / "parts" / part.name


def part_folders(work: Path) -> list[Path]:
    """Those that there are."""
    return sorted((work / "parts").glob("*-of-*"))


def examine_part(
    work: Path,
    part: Part,
    root: Path,
    keys: Sequence[str],
    settings: Settings,
    workers: int,
    progress: Progress | None,
) -> tuple[int, int]:
    """Examine the photos of one job of an array, and note that they are done.

    Returns:
        Photos of the part, and how many of them an interrupted job had examined.

    Raises:
        BusyError: another process has this part.
        RuntimeError: a worker process died.
    """
    mine = [key for key in keys if part.owns(key)]
    faces = open_face_source(settings)  # says what is missing before any photo is read
    folder = part_folder(work, part)
    with Journal(folder, settings, root) as journal:
        todo = [key for key in mine if not journal.knows(key, root / key)]
        done = known = len(mine) - len(todo)
        for finding, picture in examine_each(root, todo, settings, workers, faces):
            journal.add(finding, picture)
            done += 1
            if progress:
                progress(done, len(mine))
        write_atomically(folder / _DONE, json.dumps(head_of(settings, root)))
    return len(mine), known


def unfinished(work: Path, part: Part, settings: Settings, root: Path) -> list[Part]:
    """Parts of an array that are not done, or were done with other settings."""
    head = json.dumps(head_of(settings, root))
    return [one for one in part.all() if _text(part_folder(work, one) / _DONE) != head]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""


def examine_on_cluster(
    address: str, work: Path, root: Path, keys: Sequence[str], settings: Settings
) -> Iterator[Path]:
    """Examine photos on the workers of a Dask cluster, which must see the folders under the same paths.

    Yields:
        Folders of the parts that are done.

    Raises:
        ValueError: the cluster cannot be used, or a worker lacks a folder or the detector.
        RuntimeError: a worker failed.
    """
    root, work = root.resolve(), work.resolve()
    if settings.landmarks is not None:
        settings = replace(settings, landmarks=str(Path(settings.landmarks).resolve()))
    (work / "parts").mkdir(exist_ok=True)
    with Cluster(address) as cluster:
        least = -(-len(keys) // _LARGEST)
        count = max(1, least, min(len(keys) // _SMALLEST, 4 * cluster.num_threads))
        groups: dict[int, list[str]] = defaultdict(list)
        for key in keys:
            groups[hash_of(key) % count].append(key)
        parts = [Part(number + 1, count) for number in sorted(groups)]
        tasks = [(part_folder(work, part), root, groups[part.number - 1], settings) for part in parts]
        for number, _ in cluster.map(examine_into, tasks):
            yield tasks[number][0]


def examine_into(folder: Path, root: Path, keys: Sequence[str], settings: Settings) -> None:
    """Examine photos into the journal of a part; what it holds already is not repeated. Runs on a worker.

    Raises:
        ValueError: a folder or the detector is missing on this machine.
        BusyError: another process has this part.
    """
    for needed in (root, folder.parent):
        check_shared(needed, "photos and data set")
    faces = open_face_source(settings)
    with Journal(folder, settings, root) as journal:
        todo = [key for key in keys if not journal.knows(key, root / key)]
        for finding, picture in examine_each(root, todo, settings, 1, faces):
            journal.add(finding, picture)
