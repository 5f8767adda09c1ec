"""Many identities with few images each: which head learns most from an image, and in a second.

    python benchmarks/large_c.py --out runs/large_c [--heads full attfc] [--seeds 0 1 2] [--count drawn]

Each head is trained from the same recipe in a process of its own, then verifies pairs of people that no
training has seen. A step of full softmax and Partial FC takes 64 images; AttFC takes 64 queries and for each
its keys, which only the twin sees; F2C takes 32 pairs, which both networks see. All three counts are printed:

    trained   images that went through the network with a gradient
    drawn     images that were read, keys included
    passes    images times networks that they went through

``--count`` says which of them is the same for all heads (``--images``).
"""

import argparse
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from training import train_recipe

TWIN = ("twin.momentum=0.99", "twin.schedule=warmup")


@dataclass(frozen=True)
class Variant:
    """What a head changes in the recipe, and what a step of it takes.

    Attributes:
        settings: as after ``--set``.
        items: of a step, as ``train.batch_size`` counts.
        trained: images of a step with a gradient.
        drawn: images of a step.
        passes: images of a step times networks.
    """

    settings: tuple[str, ...]
    items: int
    trained: int
    drawn: int
    passes: int


ATTFC = ("head.name=attfc", "head.unique=true", "head.fresh=true", "head.temperature=0.1", "head.share=0.1")
VARIANTS = {
    "full": Variant(("head.name=full",), 64, 64, 64, 64),
    "partial_fc": Variant(("head.name=partial_fc", "head.rate=0.1"), 64, 64, 64, 64),
    "attfc": Variant((*ATTFC, "head.keys=2", *TWIN), 64, 64, 192, 192),
    "attfc_1key": Variant((*ATTFC, "head.keys=1", *TWIN), 64, 64, 128, 128),
    "f2c": Variant(("head.name=f2c", "head.share=0.01", *TWIN), 32, 64, 64, 128),
}


def train(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, float]:
    """One training in a process of its own; accuracy, time and memory of it."""
    variant = VARIANTS[name]
    run = arguments.out / f"{name}_seed{seed}"
    steps = max(1, round(arguments.images / getattr(variant, arguments.count)))
    settings = [
        *variant.settings,
        f"train.batch_size={variant.items}",
        f"optim.reference_batch={variant.items}",
        f"data.train=synthetic:ids={arguments.ids},images={arguments.images_per_id},size=56",
        f"train.duration={steps} steps",
        f"train.seed={seed}",
        *arguments.settings,
    ]
    figures = train_recipe(arguments.config, run, settings, arguments.threads)
    return {
        **figures,
        "trained": steps * variant.trained,
        "drawn": steps * variant.drawn,
        "passes": steps * variant.passes,
        "images_per_s": figures["images_per_s"] * variant.trained / variant.items,
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
    parser.add_argument("--config", type=Path, default=Path("configs/synthetic_large.toml"))
    parser.add_argument("--ids", type=int, default=100_000)
    parser.add_argument("--images-per-id", type=int, default=3)
    parser.add_argument("--images", type=int, default=38_400, help="of a training, see --count")
    parser.add_argument("--count", choices=["trained", "drawn", "passes"], default="trained")
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
    results: dict[str, list[dict[str, float]]] = {}
    for name in arguments.heads:
        results[name] = [train(name, seed, arguments) for seed in arguments.seeds]
        print(table({name: results[name]}).splitlines()[-1], flush=True)
    print(table(results))
    (arguments.out / "study.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
