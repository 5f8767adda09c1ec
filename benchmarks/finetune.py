"""What fine-tuning gains and forgets: 50 new people with 5 photos each, after a training without them.

    python benchmarks/finetune.py --celeba celeba --cfp cfp_nolfw --lfw lfw --seeds 0 1 2 --out runs/finetune

Fifty identities of CelebA are left out of a training of the study recipe; 5 photos of each are then learned
in every way that ``facescale finetune`` has, and the rest are probes. A seed draws the 5 photos and is that
of the fine-tuning; the first training is shared. Embeddings are those of one view. Figures are kept in
OUT/rows.json: what is there is not measured again.
"""

import argparse
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from training import train_recipe

from facescale.arrays import FloatArray
from facescale.backbones import build
from facescale.config import Config
from facescale.data.images import Images, ReaderImages
from facescale.data.readers.folder import FolderReader
from facescale.distributed import Dist
from facescale.evaluate.embedding import embed_set
from facescale.evaluate.metrics import pair_accuracy, roc, tar_at_far
from facescale.evaluate.protocols.open import open_verification
from facescale.evaluate.protocols.pairs import Pairs
from facescale.inference.load import load
from facescale.inference.model import Model
from facescale.recipes.finetune import finetune_config
from facescale.train import train
from facescale.train.freezing import freeze

PEOPLE, PHOTOS = 50, 5
REPLAY = "old images"  # half of each batch are images of the first training
ADAPTERS, RANK = "adapters", 8  # low-rank ones, at the old learning rate; of a vision transformer

_KEPT = ["finetune.statistics=keep"]

# name -> head, weight of distillation, further settings
WAYS: dict[str, tuple[str, float, list[str]]] = {
    "extend": ("extend", 0, []),
    "extend, distil 1": ("extend", 1, []),
    "extend, distil 10": ("extend", 10, []),
    "extend, distil 100": ("extend", 100, []),
    "extend, statistics kept": ("extend", 0, _KEPT),
    "extend, statistics kept, distil 1": ("extend", 1, _KEPT),
    "extend, statistics kept, distil 10": ("extend", 10, _KEPT),
    "extend, statistics kept, distil 100": ("extend", 100, _KEPT),
    "extend, statistics kept, 3 times the rate": ("extend", 0, [*_KEPT, "optim.lr=0.0006"]),
    "extend, statistics kept, 3 times the rate, distil 10": ("extend", 10, [*_KEPT, "optim.lr=0.0006"]),
    f"extend, statistics kept, distil 1, {ADAPTERS}": ("extend", 1, _KEPT),
    f"extend, statistics kept, distil 1, {ADAPTERS} with MLPs": (
        "extend",
        1,
        [*_KEPT, "finetune.adapted=attention+mlp"],
    ),
    "keep": ("keep", 0, []),
    "keep, distil 1": ("keep", 1, []),
    "replace": ("replace", 0, []),
    "replace, distil 1": ("replace", 1, []),
    "replace, statistics kept, distil 10": ("replace", 10, _KEPT),
    "keep, statistics kept": ("keep", 0, _KEPT),
    "replace, statistics kept": ("replace", 0, _KEPT),
    "extend, mix 0.3": ("extend", 0, ["finetune.mix=0.3"]),
    "extend, distil 10, mix 0.3": ("extend", 10, ["finetune.mix=0.3"]),
    "extend, statistics kept, mix 0.3": ("extend", 0, [*_KEPT, "finetune.mix=0.3"]),
    f"extend, {REPLAY}": ("extend", 0, []),
    f"extend, {REPLAY}, statistics kept": ("extend", 0, _KEPT),
    f"extend, {REPLAY}, distil 10": ("extend", 10, []),
    f"extend, {REPLAY}, mix 0.3": ("extend", 0, ["finetune.mix=0.3"]),
}


@dataclass
class Embedded:
    """Unit embeddings by one network: of the new people's photos, of their probes, of the images of pairs."""

    photo_ND: FloatArray
    probe_ND: FloatArray
    pair_ND: FloatArray


@dataclass
class Data:
    """What is embedded: the two readers of the new people, and the pairs."""

    photos: FolderReader
    probes: FolderReader
    pairs: Pairs

    def embed(self, model: Model) -> Embedded:
        """Embed everything, one view."""

        def rows(images: Images, indices: Sequence[int]) -> FloatArray:
            how: dict[str, Any] = {"size": model.contract.size, "flip": False, "batch_size": 64}
            return embed_set(model.encoder, images, indices, **how).unit_ND

        photo_ND, probe_ND = (rows(ReaderImages(one), range(len(one))) for one in (self.photos, self.probes))
        used = np.unique(np.concatenate([self.pairs.a, self.pairs.b]))
        pair_ND = np.zeros((len(self.pairs.images), model.embedding_size))
        pair_ND[used] = rows(self.pairs.images, used.tolist())
        return Embedded(photo_ND, probe_ND, pair_ND)

    def figures(self, gallery: Embedded, probes: Embedded) -> dict[str, float]:
        """Accuracy of ``probes`` against enrolled photos of ``gallery``; they may be of two networks."""
        template_PD = np.stack([gallery.photo_ND[self.photos.ids == i].sum(0) for i in range(PEOPLE)])
        template_PD /= np.linalg.norm(template_PD, axis=1, keepdims=True)
        cosine_NP = probes.probe_ND @ template_PD.T
        is_own_NP = self.probes.ids[:, None] == np.arange(PEOPLE)
        sides_2ND = np.empty((2 * len(self.pairs), gallery.pair_ND.shape[1]))
        sides_2ND[0::2], sides_2ND[1::2] = gallery.pair_ND[self.pairs.a], probes.pair_ND[self.pairs.b]
        scores = (sides_2ND[0::2] * sides_2ND[1::2]).sum(1)
        return {
            "rank1": float((cosine_NP.argmax(1) == self.probes.ids).mean()),
            "tar": tar_at_far(cosine_NP.ravel(), is_own_NP.ravel(), 0.01),
            "lfw": pair_accuracy(sides_2ND, self.pairs.is_same, "insightface", fold_ids=self.pairs.fold).mean,
            "auc": roc(scores, self.pairs.is_same).auc,
        }


def split(source: Path, out: Path, seeds: Sequence[int]) -> None:
    """Copy the people of a folder: those to train on to ``old``, photos and probes of the others by seed."""
    names = sorted(path.name for path in source.iterdir() if path.is_dir())
    new = set(np.random.default_rng(0).choice(names, PEOPLE, replace=False).tolist())
    for name in names:
        files = sorted((source / name).iterdir())
        if name not in new:
            _copy(files, out / "old" / name)
            continue
        for seed in seeds:
            order = np.random.default_rng([seed, names.index(name)]).permutation(len(files)).tolist()
            _copy([files[i] for i in order[:PHOTOS]], out / f"new{seed}" / name)
            _copy([files[i] for i in order[PHOTOS:]], out / f"probes{seed}" / name)


def _copy(files: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        if not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)


def num_trained(config: Config) -> int:
    """Parameters of the network that a training changes."""
    with torch.device("meta"):
        net = build(config.backbone.name, config.backbone.embedding_size, **config.backbone.options)
    freeze(net, config.finetune)
    return sum(one.numel() for one in net.parameters() if one.requires_grad)


def learn(arguments: argparse.Namespace, way: str, seed: int) -> Model:
    """Fine-tune in one way."""
    out = arguments.out
    head, distil, settings = WAYS[way]
    new = str(out / f"new{seed}")
    settings = [
        "finetune.statistics=follow",
        *settings,
        f"train.seed={seed}",
        "eval.sets={}",
        "data.workers=1",
        *arguments.settings,
    ]
    if REPLAY in way:
        sources = [str(out / "old"), str(arguments.cfp), new]
        settings += [f"data.train={json.dumps(sources)}", "data.weights=[0.25, 0.25, 0.5]"]
        settings += [f'train.duration="{10 * (PEOPLE * PHOTOS // 64)} steps"']
    rank = RANK if ADAPTERS in way else 0
    config = finetune_config(out / "base", new, head, distil, [], settings, rank)
    print(f"{way}: {num_trained(config):,} parameters of the network are trained", flush=True)
    run = out / f"runs/{way.replace(', ', '_').replace(' ', '')}_{seed}"
    train(config, run, Dist())
    return load(run, "cpu")


def measure(arguments: argparse.Namespace, seed: int, rows: list[dict[str, Any]]) -> None:
    """All ways with one seed; adds to ``rows`` and writes them."""
    out = arguments.out
    pairs = open_verification(str(arguments.lfw), limit=arguments.pairs).pairs
    data = Data(FolderReader(out / f"new{seed}"), FolderReader(out / f"probes{seed}"), pairs)
    before = data.embed(load(out / "base", "cpu"))
    for way in ("before", *arguments.ways):
        if any((row["way"], row["seed"]) == (way, seed) for row in rows):
            continue
        after = before if way == "before" else data.embed(learn(arguments, way, seed))
        crossed = {f"old_{key}": value for key, value in data.figures(before, after).items()}
        kept = float((before.probe_ND * after.probe_ND).sum(1).mean())
        rows.append({"way": way, "seed": seed, **data.figures(after, after), **crossed, "kept": kept})
        (out / "rows.json").write_text(json.dumps(rows, indent=1))
        print(rows[-1], flush=True)


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and spread over seeds, one line a way."""
    keys = ("rank1", "tar", "lfw", "auc", "kept", "old_rank1", "old_tar", "old_auc")
    lines = [f"| | {' | '.join(keys)} |", "|---" * (len(keys) + 1) + "|"]
    for way in dict.fromkeys(row["way"] for row in rows):
        cells = []
        for key in keys:
            values = [row[key] for row in rows if row["way"] == way]
            spread = f" +- {stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.3f}{spread}")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def options(description: str | None, ways: Iterable[str]) -> argparse.ArgumentParser:
    """The options of a benchmark that trains in several ways and measures old and new networks."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("--celeba", "--cfp", "--lfw", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", choices=list(ways), default=list(ways))
    return parser


def main() -> None:
    parser = options(__doc__, WAYS)
    parser.add_argument("--epochs", type=int, default=5, help="of the first training")
    parser.add_argument("--pairs", type=int, default=2000, help="of LFW's 6,000")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--base-set", action="append", default=[], help="of the first training")
    arguments = parser.parse_args()
    out = arguments.out
    split(arguments.celeba, out, arguments.seeds)
    if not (out / "base").exists():
        sources = json.dumps([str(out / "old"), str(arguments.cfp)])
        settings = [f"data.train={sources}", f"eval.sets.lfw={arguments.lfw}", 'eval.every="100%"']
        settings += [f'train.duration="{arguments.epochs} epochs"']
        train_recipe(Path("small_faces"), out / "base", [*settings, *arguments.base_set], threads=1)
    found = out / "rows.json"
    rows: list[dict[str, Any]] = json.loads(found.read_text()) if found.exists() else []
    for seed in arguments.seeds:
        measure(arguments, seed, rows)
    print(table(rows))


if __name__ == "__main__":
    main()
