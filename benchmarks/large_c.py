"""Many identities with few images each: which head learns most per image, and per second.

    python benchmarks/large_c.py --out runs/large_c [--heads full attfc] [--seeds 0 1 2] [--pack 2]

Each head is trained with the same recipe in a fresh process, then tested on pairs of identities outside
the training set. ``--pack`` renders the faces first, in that many processes, into RecordIO files, so that a
training only reads. A step of full softmax and Partial FC takes a batch of images; AttFC takes
a batch of queries and for each its keys, which only the twin sees; F2C takes half a batch of pairs, which
both networks see. All three counts are printed:

    trained   images that went through the network with a gradient
    drawn     images that were read, including keys
    passes    images times the networks that they passed through

``--count`` says which of them is the same for all heads (``--images``).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from training import train_recipe

TWIN = ("twin.momentum=0.99", "twin.schedule=warmup")


@dataclass(frozen=True)
class Variant:
    """What a head changes in the recipe, and what a step of it takes, in batches of images.

    Attributes:
        settings: as after ``--set``.
        items: of a step, as ``train.batch_size`` counts.
        drawn: images of a step.
        passes: images of a step times networks.
    """

    settings: tuple[str, ...]
    items: float
    drawn: int
    passes: int


ATTFC = ("head.name=attfc", "head.unique=true", "head.fresh=true", "head.temperature=0.1", "head.share=0.1")
VARIANTS = {
    "full": Variant(("head.name=full",), 1, 1, 1),
    "partial_fc": Variant(("head.name=partial_fc", "head.rate=0.1"), 1, 1, 1),
    "attfc": Variant((*ATTFC, "head.keys=2", *TWIN), 1, 3, 3),
    "attfc_1key": Variant((*ATTFC, "head.keys=1", *TWIN), 1, 2, 2),
    "f2c": Variant(("head.name=f2c", "head.share=0.01", "head.rows_per_id=1", *TWIN), 0.5, 1, 2),
}


def pack(arguments: argparse.Namespace) -> list[str]:
    """Draw the faces into one RecordIO file a process, and name the files; other seeds are other people."""
    parts, processes = [], []
    for part in range(arguments.pack):
        start, stop = (arguments.ids * x // arguments.pack for x in (part, part + 1))
        spec = f"synthetic:ids={stop - start},images={arguments.images_per_id},size=56,seed={part}"
        parts.append(arguments.out / f"data{part}")
        command = [sys.executable, "-m", "facescale", "convert-data", spec, str(parts[-1])]
        if not parts[-1].exists():
            processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    if any([process.wait() for process in processes]):
        raise RuntimeError("drawing the faces failed; see above")
    return [str(part / "train.rec") for part in parts]


def train(name: str, seed: int, data: list[str], arguments: argparse.Namespace) -> dict[str, float]:
    """One training in a process of its own; accuracy, time and memory of it."""
    variant, batch = VARIANTS[name], arguments.batch
    items = round(variant.items * batch)
    of_step = {"trained": batch, "drawn": variant.drawn * batch, "passes": variant.passes * batch}
    steps = max(1, round(arguments.images / of_step[arguments.count]))
    settings = [
        *variant.settings,
        f"train.batch_size={items}",
        f"optim.reference_batch={items}",
        f"data.train={json.dumps(data)}",
        f"train.duration={steps} steps",
        f"train.seed={seed}",
        *arguments.settings,
    ]
    figures = train_recipe(
        arguments.config, arguments.out / f"{name}_seed{seed}", settings, arguments.threads
    )
    return {
        **figures,
        **{count: steps * images for count, images in of_step.items()},
        "images_per_s": figures["images_per_s"] / variant.items,
    }


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Means over seeds, one row a head."""
    lines = [
        "| head | accuracy | AUC | trained | drawn | passes | minutes (CPU) | trained/s | waiting | peak |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in results.items():
        value = {key: mean(row[key] for row in rows) for key in rows[0]}
        spread = f" +- {stdev(row['accuracy'] for row in rows):.2%}" if len(rows) > 1 else ""
        cells = [
            name,
            f"{value['accuracy']:.2%}{spread}",
            f"{value['auc']:.4f}",
            *(f"{value[count]:,.0f}" for count in ("trained", "drawn", "passes")),
            f"{value['minutes']:.1f} ({value['cpu_minutes']:.1f})",
            f"{value['images_per_s']:.0f}",
            f"{value['waiting']:.0%}",
            f"{value['peak_gib']:.2f} GiB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("synthetic_large"))
    parser.add_argument("--ids", type=int, default=100_000)
    parser.add_argument("--images-per-id", type=int, default=3)
    parser.add_argument("--images", type=int, default=38_400, help="of a training, see --count")
    parser.add_argument("--count", choices=["trained", "drawn", "passes"], default="trained")
    parser.add_argument("--batch", type=int, default=64, help="images of a step that are trained on")
    parser.add_argument("--pack", type=int, default=0, help="processes that draw the faces before")
    parser.add_argument("--parallel", type=int, default=1, help="trainings at a time")
    parser.add_argument("--heads", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {arguments.threads} thread(s) a training")
    of_each = f"{arguments.images_per_id} images"
    print(
        f"{arguments.ids:,} identities x {of_each}; {arguments.images:,} images {arguments.count} a training"
    )
    data = [f"synthetic:ids={arguments.ids},images={arguments.images_per_id},size=56"]
    if arguments.pack:
        data = pack(arguments)
    jobs = [(name, seed) for name in arguments.heads for seed in arguments.seeds]

    def run(job: tuple[str, int]) -> dict[str, float]:
        row = train(*job, data, arguments)
        print(table({f"{job[0]}, seed {job[1]}": [row]}).splitlines()[-1], flush=True)
        return row

    with ThreadPoolExecutor(arguments.parallel) as pool:
        rows = dict(zip(jobs, pool.map(run, jobs), strict=True))
    results = {name: [rows[name, seed] for seed in arguments.seeds] for name in arguments.heads}
    print(table(results))
    (arguments.out / "study.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
