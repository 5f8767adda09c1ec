"""Evaluation at the size of IJB-C, of MegaFace and of LFW, against plain NumPy, pandas and scikit-learn.

    OMP_NUM_THREADS=1 python benchmarks/protocols.py [--scale 1.0] [--parts ijbc,search,folds]

ijbc: 469,375 image features are pooled to 23,124 templates, 15,658,489 pairs scored, TAR read at six rates
(lists and features are in memory and on disk). The alternative is what a script does: pandas groups, products
of gathered rows, scikit-learn's roc_curve. search: 3,530 probes in a gallery of a million, rank 1 and TPIR;
the alternative is the blocked product of the matrices alone. folds: ten-fold accuracy of 6,000 pairs; the
alternative loops over folds and thresholds. All times are processor seconds of one thread, so that other load
does not count; every ijbc measurement is a fresh process. pandas is needed for the first alternative.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 512
IMAGES, TEMPLATES, SUBJECTS, MEDIA, PAIRS, GENUINE = 469_375, 23_124, 3_531, 150_000, 15_658_489, 19_557
PROBES, GALLERY = 3_530, 1_000_000
FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def unit(rng: np.random.Generator, rows: int) -> Any:
    """Random float32 rows of length 1."""
    x = rng.standard_normal((rows, WIDTH), dtype=np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def write_ijbc(folder: Path, scale: float) -> None:
    """Features and lists of a synthetic set; subjects have several templates, templates several images."""
    rng = np.random.default_rng(0)
    images, templates, pairs = (int(scale * n) for n in (IMAGES, TEMPLATES, PAIRS))
    subjects = max(int(scale * SUBJECTS), 2)
    subject_of = np.arange(templates) % subjects  # the first template of each is enrolled
    template = np.concatenate([np.arange(templates), rng.integers(templates, size=images - templates)])
    people = unit(rng, subjects)
    features = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float32, (images, WIDTH))
    for start in range(0, images, 20_000):
        part = template[start : start + 20_000]
        features[start : start + 20_000] = people[subject_of[part]] + 3 * unit(rng, len(part))
    features.flush()
    genuine = np.arange(subjects, templates)[: int(scale * GENUINE)]
    rest = pairs - len(genuine)
    impostor = np.stack([rng.integers(subjects, size=rest), rng.integers(subjects, templates, size=rest)])
    impostor[0][subject_of[impostor[0]] == subject_of[impostor[1]]] -= 1
    both = np.concatenate([np.stack([subject_of[genuine], genuine]), impostor], axis=1).T % templates
    np.save(folder / "pairs.npy", both)
    np.save(folder / "genuine.npy", np.arange(pairs) < len(genuine))
    lists = [template, rng.integers(max(int(scale * MEDIA), 1), size=images), rng.uniform(0.5, 1, images)]
    for name, values in zip(("template", "medium", "score"), lists, strict=True):
        np.save(folder / f"{name}.npy", values)


def ours_ijbc(features: Any, template: Any, medium: Any, score: Any, pairs: Any, genuine: Any) -> list[float]:
    """Pooling, scores and TAR by facescale."""
    from facescale.evaluate import ijb

    templates = ijb.build_templates(features, template, medium, score)
    return list(ijb.verify(templates, pairs, genuine, FARS, drop_collinear=True).tar.values())


def script_ijbc(
    features: Any, template: Any, medium: Any, score: Any, pairs: Any, genuine: Any
) -> list[float]:
    """The same by pandas and scikit-learn."""
    import pandas as pd
    from sklearn.metrics import roc_curve
    from sklearn.preprocessing import normalize

    frame = pd.DataFrame(features * score[:, None].astype(np.float32))
    means = frame.groupby([template, medium]).mean()
    sums = means.groupby(level=0).sum()
    x = normalize(sums.to_numpy())
    a, b = (np.searchsorted(sums.index.to_numpy(), pairs[:, side]) for side in (0, 1))
    step = 100_000
    starts = range(0, len(pairs), step)
    scores = np.concatenate([np.sum(x[a[s : s + step]] * x[b[s : s + step]], axis=1) for s in starts])
    fpr, tpr, _ = roc_curve(genuine, scores)
    fpr, tpr = np.flipud(fpr), np.flipud(tpr)
    return [float(tpr[np.argmin(np.abs(fpr - far))]) for far in FARS]


def child(kind: str, folder: Path) -> None:
    """Measure one way in this process; print its figures as JSON."""
    names = ("template", "medium", "score", "pairs", "genuine")
    lists = [np.load(folder / f"{name}.npy") for name in names]
    features = np.load(folder / "features.npy", mmap_mode="r")
    start, clock = time.process_time(), time.perf_counter()
    tar = {"ours": ours_ijbc, "script": script_ijbc}[kind](features, *lists)
    seconds, wall = time.process_time() - start, time.perf_counter() - clock
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({"seconds": seconds, "wall": wall, "peak_gb": peak, "tar": tar}))


def ijbc(scale: float) -> None:
    """Both ways, in fresh processes."""
    with tempfile.TemporaryDirectory() as name:
        write_ijbc(Path(name), scale)
        found = {}
        for kind in ("ours", "script"):
            command = [sys.executable, __file__, "--child", kind, "--folder", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            found[kind] = json.loads(done.stdout)
            one = found[kind]
            seconds = f"{one['seconds']:.1f} s ({one['wall']:.1f} s on the wall)"
            print(f"ijbc, {kind}: {seconds}, peak {one['peak_gb']:.2f} GB", flush=True)
    ratio = found["script"]["seconds"] / found["ours"]["seconds"]
    difference = np.abs(np.subtract(found["ours"]["tar"], found["script"]["tar"])).max()
    print(f"ijbc, ratio {ratio:.1f}; largest difference of TAR {difference:.1e}")


def product(probes: Any, gallery: Any) -> float:
    """Processor seconds of the products of blocks alone."""
    from facescale.evaluate import identification

    out = np.empty((identification.PROBES, identification.GALLERY), np.float32)
    start = time.process_time()
    for first in range(0, len(gallery), identification.GALLERY):
        block = gallery[first : first + identification.GALLERY].T
        for row in range(0, len(probes), identification.PROBES):
            rows = probes[row : row + identification.PROBES]
            np.matmul(rows, block, out=out[: len(rows), : block.shape[1]])
    return time.process_time() - start


def search(scale: float) -> None:
    """Rank 1 and TPIR of 3,530 probes, half of them of nobody; the product runs half before, half after."""
    from facescale.evaluate import identification

    rng = np.random.default_rng(0)
    size = int(scale * GALLERY)
    gallery = np.empty((size, WIDTH), np.float32)
    for first in range(0, size, 50_000):
        gallery[first : first + 50_000] = unit(rng, len(gallery[first : first + 50_000]))
    num = min(PROBES // 2, size)
    probes = np.concatenate([gallery[:num] + 0.8 * unit(rng, num), unit(rng, PROBES - num)])
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    ids = np.concatenate([np.arange(num), np.arange(-PROBES, -num)])
    alone = product(probes, gallery[: size // 2])
    start = time.process_time()
    found = identification.search(gallery, np.arange(size), probes, ids)
    rank1, tpir = found.at_rank(1), found.tpir_at(0.01)
    seconds = time.process_time() - start
    alone += product(probes, gallery[size // 2 :])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"search, {seconds:.1f} s; product alone {alone:.1f} s; ratio {seconds / alone:.2f}; "
        f"peak {peak:.2f} GB; rank 1 {rank1:.3f}, TPIR {tpir:.3f}",
        flush=True,
    )


def loop_accuracy(x: Any, same: Any) -> float:
    """Ten-fold accuracy as scripts do it: every threshold of every fold."""
    from sklearn.model_selection import KFold

    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    distance = np.sum(np.square(x[0::2] - x[1::2]), axis=1)
    accuracies = []
    for train, test in KFold(10, shuffle=False).split(distance):
        right = [np.mean((distance[train] < t) == same[train]) for t in np.arange(0, 4, 0.01)]
        threshold = np.arange(0, 4, 0.01)[np.argmax(right)]
        accuracies.append(np.mean((distance[test] < threshold) == same[test]))
    return float(np.mean(accuracies))


def folds() -> None:
    """6,000 pairs of 512-d float32 embeddings, median of 9."""
    from facescale.evaluate.metrics import pair_accuracy

    rng = np.random.default_rng(0)
    x, same = unit(rng, 12_000), np.arange(6_000) % 600 < 300
    x[1::2][same] = x[0::2][same] + 1.2 * unit(rng, 3_000)

    def timed(work: Callable[[], float]) -> tuple[float, float]:
        seconds = []
        for _ in range(9):
            start = time.process_time()
            result = work()
            seconds.append(time.process_time() - start)
        return float(np.median(seconds)) * 1e3, result

    ours, accuracy = timed(lambda: pair_accuracy(x, same).mean)
    loops, expected = timed(lambda: loop_accuracy(x, same))
    assert accuracy == expected
    print(f"folds, {ours:.1f} ms; loops {loops:.1f} ms; ratio {loops / ours:.1f}; accuracy {accuracy:.4f}")


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", default="folds,search,ijbc")
    parser.add_argument("--scale", type=float, default=1.0, help="of the gallery and of IJB-C")
    parser.add_argument("--child", choices=("ours", "script"), help="measure one way of ijbc (internal)")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.folder)
        return
    for part in args.parts.split(","):
        {"folds": folds, "search": lambda: search(args.scale), "ijbc": lambda: ijbc(args.scale)}[part]()


if __name__ == "__main__":
    main()
