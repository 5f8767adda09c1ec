"""Plant wrong labels into embeddings of a strong network, find them: precision and recall of each kind.

    python benchmarks/clean_embeddings.py lfw_embeddings.npz --keys net1 net2

The file holds ``files`` (PERSON/IMAGE) and one array of embeddings per key. People with enough images are
the training set, the others the test set. Images are not needed, so near-duplicates are left to ``clean.py``.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from facescale.clean.centres import robust_centres
from facescale.clean.identities import find_merges, find_splits
from facescale.clean.labels import check_labels
from facescale.clean.metric import within_class_metric
from facescale.clean.overlap import shared_people
from facescale.evaluate.rows import unit_rows

FLIPS, SPLITS, MERGES, SHARED = 0.02, 10, 10, 20
_ENOUGH = 5  # images of a person of the training set
_RICH = 8  # of one that is cut in two


def planted(person_N: np.ndarray, draw: np.random.Generator) -> dict[str, Any]:
    """Labels with errors: the rows of the training set, their labels, and what was planted."""
    people, counts = np.unique(person_N, return_counts=True)
    train = draw.permutation(people[counts >= _ENOUGH])
    rich = [one for one in train if counts[np.searchsorted(people, one)] >= _RICH]
    cut, rest = rich[:SPLITS], [one for one in train if one not in set(rich[:SPLITS])]
    joined, shared = rest[: 2 * MERGES], rest[2 * MERGES : 2 * MERGES + SHARED]
    plain = rest[2 * MERGES + SHARED :]
    label_N = np.where(np.isin(person_N, train), person_N, -1)
    next_label = people.max() + 1
    splits, merges = set(), set()
    for place, one in enumerate(cut):
        rows = draw.permutation(np.flatnonzero(person_N == one))
        label_N[rows[::2]] = next_label + place
        splits.add(frozenset((int(one), int(next_label + place))))
    for host, guest in zip(joined[::2], joined[1::2], strict=True):
        label_N[person_N == guest] = host
        merges.add(int(host))
    for one in shared:  # the other half stays in the test set
        rows = np.flatnonzero(person_N == one)
        label_N[rows[: len(rows) // 2]] = -1
    open_rows = np.flatnonzero(np.isin(label_N, plain))
    flips = draw.permutation(open_rows)[: round(FLIPS * (label_N >= 0).sum())]
    for row in flips:
        label_N[row] = draw.choice([one for one in plain if one != person_N[row]])
    return {
        "label": label_N,
        "flips": set(flips.tolist()),
        "splits": splits,
        "merges": merges,
        "shared": set(shared),
    }


def rows_of(unit_ND: np.ndarray, person_N: np.ndarray, precision: float, seed: int) -> list[list[Any]]:
    """(kind, planted, found, proposed) of each kind."""
    truth = planted(person_N, np.random.default_rng(seed))
    used = np.flatnonzero(truth["label"] >= 0)
    names, ids = np.unique(truth["label"][used], return_inverse=True)
    metric = within_class_metric(unit_ND[used], ids)
    mapped = metric.apply(unit_ND[used])
    centres = robust_centres(mapped, ids)
    merges = find_merges(mapped, ids, centres, precision)
    splits = find_splits(mapped, ids, centres, precision)
    apart = merges.part_N & np.isin(ids, merges.found)
    partner = splits.partners(len(names))
    labels = check_labels(mapped, ids, centres, precision, apart_N=apart, partner_C=partner)
    test = np.flatnonzero(truth["label"] < 0)
    people, test_ids = np.unique(person_N[test], return_inverse=True)
    person_TD = robust_centres(metric.apply(unit_ND[test]), test_ids).unit_CD
    shared = shared_people(mapped, ids, centres, person_TD, precision)
    wrong = [int(used[row]) for row in labels.wrong]
    moves = [int(used[row]) for row in labels.wrong if labels.sure_N[row]]
    right = [
        r
        for r in moves
        if r in truth["flips"] and names[labels.nearest_N[np.searchsorted(used, r)]] == person_N[r]
    ]
    pairs = [frozenset((int(names[splits.first_P[n]]), int(names[splits.second_P[n]]))) for n in splits.found]
    both = [(int(people[shared.person_P[n]]), int(names[shared.identity_P[n]])) for n in shared.found]
    return [
        ["label flips", len(truth["flips"]), len(truth["flips"] & set(wrong)), len(wrong)],
        ["  moved to the right identity", len(truth["flips"]), len(right), len(moves)],
        [
            "split identities",
            len(truth["splits"]),
            sum(pair in truth["splits"] for pair in pairs),
            len(pairs),
        ],
        [
            "merged identities",
            MERGES,
            sum(int(names[n]) in truth["merges"] for n in merges.found),
            len(merges.found),
        ],
        ["people of the test set", SHARED, sum(a == b and a in truth["shared"] for a, b in both), len(both)],
        ["rank 1", len(used), int((labels.own_N > labels.other_N).sum()), len(used)],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--keys", nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--precision", type=float, default=0.75)
    arguments = parser.parse_args()
    data = np.load(arguments.file, allow_pickle=False)
    person_N = np.unique([name.split("/")[0] for name in data["files"]], return_inverse=True)[1]
    for key in arguments.keys:
        unit_ND = unit_rows(data[key].astype(np.float32)).astype(np.float32)
        tables = [rows_of(unit_ND, person_N, arguments.precision, seed) for seed in arguments.seeds]
        print(f"{key}\n| planted | number | found | recall | proposed in all | precision |")
        print("|---|---|---|---|---|---|")
        for lines in zip(*tables, strict=True):
            kind = lines[0][0]
            number, found, proposed = (sum(line[column] for line in lines) for column in (1, 2, 3))
            share = f"{found / proposed:.1%}" if proposed else ""
            print(f"| {kind} | {number} | {found} | {found / number:.1%} | {proposed} | {share} |")


if __name__ == "__main__":
    main()
