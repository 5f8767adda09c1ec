"""Backward-compatible training: do the embeddings of a new network fit a gallery of the old one?

    python benchmarks/backward.py --celeba celeba --cfp cfp_nolfw --lfw lfw --out runs/backward

The light protocol of ``light.py``. The old network is trained on half of the identities; a new one on all of
them, from other random weights, for twice the steps: without a reference, or with the old network as
``finetune.teacher`` (L2: ``finetune.distil``; MixBCT: ``finetune.mix``). Fifty people of CelebA are in no
training (`finetune.split`): 5 photos of each are enrolled, the others are probes. Each new network is
measured alone and against what the old one enrolled: the people by their templates, LFW with the first image
of a pair by the old network and the second by the new. A seed is that of the new network; the old one is
shared. What is in OUT is not trained again.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from evidence_cases import Training
from finetune import Data, Embedded, options, split
from light import Faces, HeldFaces, registered

from facescale.arrays import FloatArray
from facescale.data.readers.folder import FolderReader
from facescale.evaluate.metrics import pair_accuracy
from facescale.evaluate.pair_intervals import listed_pairs
from facescale.evaluate.people import people_of
from facescale.evaluate.protocols.pairs import Pairs
from facescale.evaluate.significance import paired_difference
from facescale.inference.load import load
from facescale.plan.check import read_config
from facescale.train import train

BATCH, OLD_STEPS, NEW_STEPS = 64, 240, 480  # about 4 epochs each
OLD_SEED = 100
ALONE = "no reference"
WAYS: dict[str, list[str]] = {
    ALONE: [],
    "L2, weight 1": ["finetune.distil=1"],
    "L2, weight 10": ["finetune.distil=10"],
    "L2, weight 100": ["finetune.distil=100"],
    "MixBCT, share 0.3": ["finetune.mix=0.3"],
    "MixBCT, share 0.3, and L2, weight 10": ["finetune.mix=0.3", "finetune.distil=10"],
}


def learn(out: Path, faces: HeldFaces, test: Pairs, steps: int, seed: int, settings: Sequence[str]) -> None:
    """One light training into ``out``, unless it is there; one that was stopped continues."""
    if (out / "finished").exists():
        return
    options = Training("real", "small_faces", tuple(settings), BATCH * steps).options(seed)
    with registered(faces, test):
        found = train(read_config("small_faces", [*options, "eval.sets={}"]), out)
    if not found.finished:
        raise SystemExit("stopped; the same command continues")
    (out / "finished").touch()


def decisions(pairs: Pairs, first: Embedded, second: Embedded) -> tuple[FloatArray, float]:
    """Which pairs of LFW are decided rightly, and the spread over folds."""
    sides = np.stack([first.pair_ND[pairs.a], second.pair_ND[pairs.b]], 1)
    found = pair_accuracy(
        sides.reshape(-1, sides.shape[-1]), pairs.is_same, "insightface", fold_ids=pairs.fold
    )
    scores = (sides[:, 0] * sides[:, 1]).sum(1)
    listed = listed_pairs(pairs, people_of(pairs)[0], scores, found, "insightface")
    return np.array(listed["right"], float), found.std


def measure(out: Path, data: Data, runs: dict[str, list[Path]]) -> dict[str, dict[str, Any]]:
    """Figures of every way, alone and against the old network; LFW's decisions are averaged over seeds."""
    old = data.embed(load(out / "old", "cpu"))
    rows: dict[str, dict[str, Any]] = {"old network": _row(data, [(old, old)])}
    for way, folders in runs.items():
        new = [data.embed(load(folder, "cpu")) for folder in folders]
        rows[f"{way}: new x new"] = _row(data, [(one, one) for one in new])
        rows[f"{way}: old x new"] = _row(data, [(old, one) for one in new])
    return rows


def _row(data: Data, sides: Sequence[tuple[Embedded, Embedded]]) -> dict[str, Any]:
    found = [data.figures(gallery, probes) for gallery, probes in sides]
    decided = [decisions(data.pairs, *one) for one in sides]
    return {
        "figures": {key: [one[key] for one in found] for key in found[0]},
        "fold_std": mean(std for _, std in decided),
        "right": np.mean([right for right, _ in decided], axis=0),
    }


def table(rows: dict[str, dict[str, Any]], pairs: Pairs) -> str:
    """A line for each row: mean and spread over seeds, LFW's interval, and the difference to the old network.

    Intervals are 95 % over the people of LFW, of the mean over seeds.
    """
    person = people_of(pairs)[0]
    first, second = person[pairs.a], person[pairs.b]
    old = rows["old network"]["right"]
    lines = ["| | rank 1 | TAR | LFW | over folds | LFW less old x old | LFW AUC |", "|---" * 7 + "|"]
    for name, row in rows.items():
        figures = {key: _spread(values, 100) for key, values in row["figures"].items()}
        share = paired_difference(np.zeros_like(old), row["right"], first, second)
        gain = paired_difference(old, row["right"], first, second)
        lfw = f"{figures['lfw']} ({share.low:.1%} to {share.high:.1%})".replace("%", "")
        difference = f"{100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
        auc = _spread(row["figures"]["auc"], 1, 3)
        cells = [figures["rank1"], figures["tar"], lfw, f"{100 * row['fold_std']:.1f}", difference, auc]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float], scale: float, digits: int = 1) -> str:
    spread = f" ± {scale * stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * mean(values):.{digits}f}{spread}"


def main() -> None:
    arguments = options(__doc__, WAYS).parse_args()
    torch.set_num_threads(1)
    out = arguments.out
    split(arguments.celeba, out / "people", [0])
    held = Faces([str(out / "people/old"), str(arguments.cfp)], str(arguments.lfw), 0, out / "pixels")
    faces, pairs = held.training("real", 0), held.test("real")
    old_ids = np.random.default_rng(0).permutation(faces.num_ids)[: faces.num_ids // 2]
    learn(
        out / "old", faces.kept(np.flatnonzero(np.isin(faces.ids, old_ids))), pairs, OLD_STEPS, OLD_SEED, []
    )
    teacher = f"finetune.teacher={json.dumps(str(out / 'old'))}"
    runs = {
        way: [out / f"{list(WAYS).index(way)}_{seed}" for seed in arguments.seeds] for way in arguments.ways
    }
    for place, seed in enumerate(arguments.seeds):
        for way, folders in runs.items():
            reference = [teacher, *WAYS[way]] if WAYS[way] else []
            learn(folders[place], faces, pairs, NEW_STEPS, seed, reference)
            print(f"trained: {way}, seed {seed}", flush=True)
    data = Data(FolderReader(out / "people/new0"), FolderReader(out / "people/probes0"), pairs)
    with registered(faces, pairs):
        print(table(measure(out, data, runs), pairs))


if __name__ == "__main__":
    main()
