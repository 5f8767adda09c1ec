"""Plant errors into real faces, find them with ``facescale clean``: precision and recall of each kind.

    python benchmarks/clean.py --train celeba cfp --test lfw/images --model runs/small --out runs/clean

``--train`` are folders of aligned identities, ``--test`` is one of other people. Without ``--model`` a
recipe is trained on the planted set itself, wrong labels and all, as a user would have it (``--config``,
``--set``). What is found beside the planted errors counts as wrong, though real data holds errors of its
own: the number is printed apart.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from plant_errors import COPY_KINDS, plant
from training import train_recipe

from facescale.clean.finding import (
    CONFLICT,
    COPY,
    MERGED,
    MISLABELLED,
    SPLIT,
    TEST_IMAGE,
    TEST_PERSON,
    Finding,
)
from facescale.clean.run import Options, clean
from facescale.data import open_reader
from facescale.evaluate.protocols.subset import linked


def groups(pairs: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Number of the group of each name that pairs connect."""
    place = {name: n for n, name in enumerate(dict.fromkeys(name for pair in pairs for name in pair))}
    a, b = (np.array([place[pair[side]] for pair in pairs], np.int64) for side in (0, 1))
    return dict(zip(place, linked(len(place), a, b).tolist(), strict=True))


def row(kind: str, planted: int, found: int, right: int, proposed: int) -> dict[str, Any]:
    """Recall of the planted errors and precision of the proposals."""
    return {
        "kind": kind,
        "planted": planted,
        "found": found,
        "proposed": proposed,
        "recall": found / max(planted, 1),
        "precision": right / proposed if proposed else None,
    }


def compare(planted: dict[str, list[list[str]]], findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """A row for each kind of error."""
    of = {
        kind: [one for one in findings if one.kind == kind and one.action]
        for kind in (MISLABELLED, SPLIT, MERGED, COPY, CONFLICT, TEST_IMAGE, TEST_PERSON)
    }
    flips = {entry[0] for entry in planted["flips"]}
    folder = lambda key: key.split("/")[0]  # noqa: E731
    guests = {key for entry in planted["merges"] for key in entry[1:]}
    foreign = {copy for copy, original, _ in planted["copies"] if folder(copy) != folder(original)}
    wrong = [one.name for one in of[MISLABELLED]]
    rows = [
        row(
            "label flips",
            len(flips),
            len(flips & set(wrong)),
            len((flips | guests | foreign) & set(wrong)),
            len(wrong),
        )
    ]
    moved = {one.name: one.into for one in of[MISLABELLED] if one.into}
    right = sum(moved.get(key) == home for key, home in planted["flips"])
    rows.append(row("  moved to the right identity", len(flips), right, right, len(moved.keys() & flips)))
    group = groups([(one.name, one.other) for kind in (COPY, CONFLICT) for one in of[kind]])
    for kind in COPY_KINDS:
        entries = [entry for entry in planted["copies"] if entry[2] == kind]
        hit = sum(group.get(a, -1) == group.get(b, -2) for a, b, _ in entries)
        rows.append(row(f"copies: {kind}", len(entries), hit, hit, hit))
    copies = {key for a, b, _ in planted["copies"] for key in (a, b)}
    pairs = [(one.name, one.other) for kind in (COPY, CONFLICT) for one in of[kind]]
    hits = sum(group.get(a, -1) == group.get(b, -2) for a, b, _ in planted["copies"])
    real = sum(bool({a, b} & copies) for a, b in pairs)
    rows.append(row("copies", len(planted["copies"]), hits, real, len(pairs)))
    splits = {frozenset(entry) for entry in planted["splits"]}
    found = {frozenset((one.name, one.other)) for one in of[SPLIT]}
    rows.append(row("split identities", len(splits), len(splits & found), len(splits & found), len(found)))
    merges = {entry[0] for entry in planted["merges"]}
    found_merges = {one.name for one in of[MERGED]}
    rows.append(
        row(
            "merged identities",
            len(merges),
            len(merges & found_merges),
            len(merges & found_merges),
            len(found_merges),
        )
    )
    shared = {(entry[0], entry[1]) for entry in planted["shared"]}
    for label, evidence in (
        ("people of the test set", ("photo", "embedding")),
        ("  by photo", ("photo",)),
        ("  by embedding", ("embedding",)),
    ):
        people = {(one.name, one.other) for one in of[TEST_PERSON] if one.evidence in evidence}
        rows.append(row(label, len(shared), len(shared & people), len(shared & people), len(people)))
    photos = {key for entry in planted["shared"] for key in entry[2:]}
    theirs = {one.name for one in of[TEST_IMAGE]}
    rows.append(
        row("photos of the test set", len(photos), len(photos & theirs), len(photos & theirs), len(theirs))
    )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, nargs="+", required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--config", type=Path, default=Path("small_faces"))
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", type=float, default=Options().precision)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    out = arguments.out
    if not (out / "planted.json").is_file():
        plant(arguments.train, arguments.test, out)
    planted = json.loads((out / "planted.json").read_text())
    model = arguments.model or out / "run"
    if not model.exists():
        settings = [f"data.train={out / 'train'}", *arguments.settings]
        train_recipe(arguments.config, model, settings, arguments.threads)
    report = clean(
        open_reader(out / "train"),
        model,
        out / f"found_{model.name}",
        [f"test={out / 'test'}"],
        Options(precision=arguments.precision),
    )
    rows = compare(planted, report.findings)
    print("\n".join(report.lines()))
    print("| planted | number | found | recall | proposed in all | precision |")
    print("|---|---|---|---|---|---|")
    for one in rows:
        precision = "" if one["precision"] is None else f"{one['precision']:.1%}"
        found = f"{one['found']} | {one['recall']:.1%}"
        print(f"| {one['kind']} | {one['planted']} | {found} | {one['proposed']} | {precision} |")
    (out / f"clean_{model.name}.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
