"""A gallery of a million people: the index against the exact blocked search, on embeddings of real faces.

    OMP_NUM_THREADS=1 python benchmarks/gallery_index.py a.npz [b.npz] --people 1000000

The files are what `facescale embed` writes; several (of the same images, by different networks) are joined to
one longer embedding. One photo of every person is enrolled; probes are other photos of the same people, and
are used for nothing else. Further people are made of the remaining embeddings: a blend of two photos,
moved by the difference of two photos of a third person, so that they lie where faces lie (drawn Gaussian
vectors spread evenly over all directions, where any code does well). Times are processor time of one thread,
as other load does not count in it; agreement is the share of probes with the same nearest person as the exact
search.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from facescale.gallery import Gallery, nearest_people
from facescale.gallery.codes import Scan
from facescale.gallery.database import connected, log_change, transaction
from facescale.gallery.index import BATCH, GalleryIndex
from facescale.gallery.index_file import path_of, read_index, write_index

BLOCK = 20_000


def unit(x_ND: Any) -> Any:
    return (x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)).astype(np.float32)


def read(paths: list[Path]) -> tuple[Any, Any]:
    """Joined embeddings (N, d) and the person of each, 0 to n - 1."""
    files = [np.load(path) for path in paths]
    keys = sorted(set.intersection(*(set(file["keys"].tolist()) for file in files)))
    parts = []
    for file in files:
        place = {key: row for row, key in enumerate(file["keys"].tolist())}
        parts.append(unit(file["embeddings"][[place[key] for key in keys]].astype(np.float32)))
    return unit(np.concatenate(parts, axis=1)), np.unique(
        [key.rpartition("/")[0] for key in keys], return_inverse=True
    )[1]


def split(person_N: Any, num_probes: int, rng: Any) -> tuple[Any, Any, Any]:
    """Photos to enrol (one a person), to probe with, and the rest with those enrolled."""
    _, enrolled = np.unique(person_N, return_index=True)
    others = np.setdiff1d(np.arange(len(person_N)), enrolled)
    probes = np.sort(rng.permutation(others)[:num_probes])
    return enrolled, probes, np.setdiff1d(np.arange(len(person_N)), probes)


def further(x_ND: Any, person_N: Any, count: int, rng: Any) -> Iterator[Any]:
    """Blocks of people who are made of real embeddings."""
    by_person = [np.flatnonzero(person_N == person) for person in np.unique(person_N)]
    several = [rows for rows in by_person if len(rows) > 1]
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        i, j = rng.integers(len(x_ND), size=(2, size))
        share = rng.uniform(0.5, 1, size)[:, None]
        pairs = [rng.choice(several[k], 2) for k in rng.integers(len(several), size=size)]
        first, second = np.array(pairs).T
        yield unit(share * x_ND[i] + (1 - share) * x_ND[j] + 0.7 * (x_ND[first] - x_ND[second]))


def fill(path: Path, x_ND: Any, person_N: Any, enrolled: Any, usable: Any, people: int, rng: Any) -> Gallery:
    """A gallery, written at once: a transaction for each of a million people would take an hour."""
    gallery = Gallery.create(path, "0" * 32, x_ND.shape[1], "")
    enrolled = enrolled[:people]
    blocks = further(x_ND[usable], person_N[usable], people - len(enrolled), rng)
    number = 0
    with connected(path) as db, transaction(db):
        for block in chain([x_ND[enrolled]], blocks):
            numbers = range(number + 1, number + 1 + len(block))
            db.executemany("INSERT INTO people VALUES (?, ?)", ((n, f"person {n}") for n in numbers))
            db.executemany(
                "INSERT INTO faces (person, key, quality, embedding) VALUES (?, 'photo', 1, ?)",
                ((n, row.tobytes()) for n, row in zip(numbers, block, strict=True)),
            )
            number += len(block)
        log_change(db, [0])
    return gallery


def agreement(found: Any, right: list[str]) -> float:
    return float(np.mean([best[0].name == name for best, name in zip(found, right, strict=True)]))


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    value = action()
    return value, time.process_time() - start


def codes_alone(gallery: Gallery, query_QD: Any, right: list[str]) -> None:
    """How long the shortlist must be: share of probes whose nearest person is on it."""
    file = read_index(path_of(gallery.path))
    scan = Scan(file.code_PM, file.centroid)
    number_of = {name: number for number, name in _names(gallery)}
    for size in (10, 50, 200, 500, 1000, 2000):
        found = [file.person_P[scan.shortlist(query[None], size)[0]] for query in query_QD]
        share = np.mean([number_of[name] in row for name, row in zip(right, found, strict=True)])
        print(f"shortlist of {size:5d}: the nearest person is on it for {share:.4f} of the probes")


def _names(gallery: Gallery) -> list[tuple[int, str]]:
    with connected(gallery.path) as db:
        return list(db.execute("SELECT id, name FROM people"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("embeddings", type=Path, nargs="+")
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--probes", type=int, default=1500)
    parser.add_argument("--folder", type=Path, help="for the gallery: 3.5 GB for a million people")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    x_ND, person_N = read(args.embeddings)
    enrolled, probes, usable = split(person_N, args.probes, rng)
    print(f"{platform.processor() or platform.machine()}, load {os.getloadavg()[0]:.1f}")
    print(f"{len(x_ND):,} embeddings of {len(enrolled):,} people, {x_ND.shape[1]}-d; {len(probes)} probes")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        gallery = fill(Path(folder) / "g.gallery", x_ND, person_N, enrolled, usable, args.people, rng)
        measure(gallery, x_ND[probes])


def measure(gallery: Gallery, query_QD: Any) -> None:
    _, seconds = timed(lambda: write_index(gallery))
    print(f"index of {gallery.num_people():,} people made in {seconds:.1f} s")
    index, seconds = timed(lambda: GalleryIndex(gallery))
    file = read_index(path_of(gallery.path))
    memory = file.code_PM.shape[1] + file.person_P.itemsize
    print(f"index opened in {seconds:.2f} s; {memory} bytes a person in memory")
    (names, template_PD), seconds = timed(gallery.templates)
    print(f"exact: templates read in {seconds:.1f} s; {template_PD.shape[1] * 4} bytes a person in memory")

    exact, seconds = timed(lambda: nearest_people(query_QD, names, template_PD, 1))
    print(f"exact, all {len(query_QD)} probes at once: {1e3 * seconds / len(query_QD):.2f} ms a probe")
    in_batch, seconds = timed(lambda: index.search(query_QD, 1))
    print(f"index, in batches of {BATCH} or more (all are compared): {1e3 * seconds / len(query_QD):.2f} ms")
    right = [best.name for (best,) in exact]
    print(f"agreement in batches: {agreement(in_batch, right):.4f}")

    one_by_one = [timed(lambda q=q: index.search(q[None], 1)) for q in query_QD]
    slow = [timed(lambda q=q: nearest_people(q[None], names, template_PD, 1))[1] for q in query_QD[:30]]
    agreed = agreement([found[0] for found, _ in one_by_one], right)
    took = 1e3 * np.array([seconds for _, seconds in one_by_one])
    p50, p95, p99 = np.percentile(took, [50, 95, 99])
    print(f"index, one probe: p50 {p50:.2f} ms, p95 {p95:.2f}, p99 {p99:.2f}; agreement {agreed:.4f}")
    plain = 1e3 * float(np.median(slow))
    print(f"exact, one probe: p50 {plain:.1f} ms; the index is {plain / p50:.1f} times as fast")
    codes_alone(gallery, query_QD, right)


if __name__ == "__main__":
    main()
