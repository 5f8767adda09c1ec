"""How often 95 % intervals contain the truth, on real embeddings: people are drawn, not pairs.

The embeddings of a file (``embeddings`` or ``--key``, and ``files`` or ``keys`` whose folder is the person)
are the population; all its pairs give the true rates. A trial draws people without replacement, compares all
their images and asks whether each interval contains the truth. Beside it: the binomial interval, which takes
all pairs for independent.

    python benchmarks/interval_coverage.py EMBEDDINGS.npz --key embeddings --people 300 --trials 1000
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from facescale.arrays import FloatArray, IntArray
from facescale.evaluate.identity_points import ScoredPairs, identity_point
from facescale.evaluate.intervals import mean_interval, wilson
from facescale.evaluate.roc import MIN_FALSE_ACCEPTS
from facescale.evaluate.rows import unit_rows

FARS = (1e-2, 1e-3, 1e-4)


def all_pairs(unit_ND: FloatArray, ids: IntArray) -> tuple[FloatArray, IntArray, IntArray]:
    """Scores and people of every pair of images."""
    a, b = np.triu_indices(len(ids), 1)
    return (unit_ND @ unit_ND.T)[a, b], ids[a], ids[b]


def trial(
    unit_ND: FloatArray, ids: IntArray, truth: dict[float, tuple[float, float]]
) -> dict[str, list[bool]]:
    """(adjusted, binomial) interval contains the truth, by figure."""
    scores, a, b = all_pairs(unit_ND, ids)
    same = a == b
    genuine, impostor = (ScoredPairs.of(scores[kind], a[kind], b[kind]) for kind in (same, ~same))
    found = {}
    for far, (threshold, tar) in truth.items():
        if far * len(impostor.scores) < MIN_FALSE_ACCEPTS:
            continue
        accepted = scores >= threshold
        for name, kind, event, true in (
            (f"FMR at the threshold of {far:g}", ~same, accepted, far),
            (f"TAR at that threshold ({far:g})", same, accepted, tar),
        ):
            share = mean_interval(event[kind], a[kind], b[kind])
            plain = wilson(share.rate, int(kind.sum()))
            found[name] = [share.low <= true <= share.high, plain[0] <= true <= plain[1]]
        chosen = impostor.scores[int(far * len(impostor.scores))]
        point = identity_point(genuine, impostor, far, float(np.nextafter(chosen, 2)), True)
        plain = wilson(point.tar, len(genuine.scores))
        found[f"TAR @ FAR {far:g}"] = [point.tar_low <= tar <= point.tar_high, plain[0] <= tar <= plain[1]]
        found[f"threshold @ FAR {far:g}"] = [point.threshold_low <= threshold <= point.threshold_high, False]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="npz with embeddings and file names")
    parser.add_argument("--key", default="embeddings", help="name of the embeddings in the file")
    parser.add_argument("--people", type=int, default=300, help="people of a trial")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with np.load(arguments.file, allow_pickle=False) as stored:
        unit_ND = unit_rows(stored[arguments.key]).astype(np.float32)
        names = stored["files"] if "files" in stored else stored["keys"]
    _, ids = np.unique([name.rpartition("/")[0] for name in names], return_inverse=True)
    scores, a, b = all_pairs(unit_ND, ids)
    impostor = np.sort(scores[a != b])[::-1]
    same = a == b
    truth = {}
    for far in FARS:
        threshold = float(impostor[int(far * len(impostor))])
        truth[far] = (threshold, float(np.mean(scores[same] >= threshold)))
    del scores, a, b, impostor, same
    print(f"{len(names):,} images of {ids.max() + 1:,} people; trials of {arguments.people} people")
    rng, hits = np.random.default_rng(arguments.seed), defaultdict(list)
    for _ in range(arguments.trials):
        chosen = np.isin(ids, rng.choice(ids.max() + 1, arguments.people, replace=False))
        for name, both in trial(unit_ND[chosen], ids[chosen], truth).items():
            hits[name].append(both)
    for name, both in hits.items():
        adjusted, plain = np.mean(both, axis=0)
        print(f"{name:34} adjusted {adjusted:.1%}  binomial {plain:.1%}  ({len(both)} trials)")


if __name__ == "__main__":
    main()
