"""Planned memory of heads (as `facescale plan` prints it) against the peak of a process that trains them.

OMP_NUM_THREADS=1 python benchmarks/plan_bytes.py [MARGIN ...] [--ids 300k] [--embedding-size 256]
OMP_NUM_THREADS=1 python benchmarks/plan_bytes.py --trainings

Every head and placement runs in a fresh process, as in `facescale bench heads`. The peak is that of its
resident memory beyond what the libraries take; planned are the bytes on the device and in host memory. The
target is 15 %. ``--trainings`` measures three steps of whole trainings instead, with the settings of memory
that every command makes.
"""

import argparse
import json
import platform
import subprocess
import sys

import torch

from facescale.plan.bench import bench_heads, parse_variants
from facescale.plan.units import parse_counts

EVERYWHERE = ",".join(f"{{0}},placement={where}" for where in ("device", "host", "disk"))
CENTRES = ",".join(
    EVERYWHERE.format(head)
    for head in (
        "full:products=float32",
        "full:products=bfloat16",
        "full:store_dtype=bfloat16",
        "full:optimizer=adamw",
        "partial_fc:rate=0.1",
        "partial_fc:rate=0.3,store_dtype=bfloat16",
        "partial_fc:rate=0.3,decay=dense",
        "partial_fc:num_negatives=8192",
    )
)
SLOTS = "attfc:share=0.3,attfc:share=0.3,unique=true,fresh=true,f2c:share=0.3"
FEW = ",".join(EVERYWHERE.format(head) for head in ("full:products=auto", "partial_fc:rate=0.3"))

# margin -> heads. Cosface leaves other classes' logits as they are, curricular bends them, sub-centres are
# three rows a class.
CASES = {"cosface": f"{CENTRES},{SLOTS}", "curricular": f"{FEW},{SLOTS}", "subcenter_arcface": FEW}


# A training in a process of its own: a tiny one first, which loads the libraries, then the one that counts.
TRAINING = """
import json, sys, tempfile
from facescale.machine import tune
tune()
import torch
from facescale import kernels
from facescale.distributed import pick_device
from facescale.plan.advice import advice_for
from facescale.plan.check import read_config
from facescale.plan.measure import peak_memory
from facescale.train import train

device = torch.device("cpu")
for name in ("rows", "lru", "records", "norm_loops"):
    kernels.loops(name)

def run(*settings):
    config = read_config(None, ["eval.sets={}", "train.duration=3 steps", *settings])
    train(config, tempfile.mkdtemp() + "/run")
    return config

tiny = "data.train=synthetic:ids=20,images=4,size=56", "backbone.name=mbf_s", "backbone.input_size=56"
run(*tiny, "backbone.embedding_size=32", "train.batch_size=8")
before = peak_memory(device)
config = run(*json.loads(sys.argv[1]))
peak = peak_memory(device) - before
planned = advice_for(config, 1, device, None).heads[0].total
print(json.dumps([planned, peak]))
"""
TRAININGS = [
    (name, head, precision, batch)
    for name, batch in (("mbf", 64), ("r18", 32), ("mbf_s", 128))
    for head in ("full", "attfc")
    for precision in ("fp32", "bf16")
]


def measure_trainings() -> None:
    """Print planned and measured memory of whole trainings at 112 pixels, 400 identities."""
    print(f"{'backbone, head, precision, batch':44}{'planned MB':>12}{'peak MB':>10}{'planned / peak':>16}")
    for name, head, precision, batch in TRAININGS:
        settings = [
            "data.train=synthetic:ids=400,images=4",
            f"backbone.name={name}",
            f"head.name={head}",
            f"train.precision={precision}",
            f"train.batch_size={batch}",
        ]
        command = [sys.executable, "-c", TRAINING, json.dumps(settings)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        planned, peak = json.loads(done.stdout.splitlines()[-1])
        case = f"{name}, {head}, {precision}, {batch}"
        print(f"{case:44}{planned / 1e6:>12.0f}{peak / 1e6:>10.0f}{planned / peak:>16.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("margins", nargs="*", help=f"of: {', '.join(CASES)} (default: all)")
    parser.add_argument("--ids", default="300k")
    parser.add_argument("--embedding-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--trainings", action="store_true", help="whole trainings instead of heads")
    args = parser.parse_args()
    if args.trainings:
        measure_trainings()
        return
    sizes = {"embedding_size": args.embedding_size, "batch_size": args.batch_size, "seconds": 0.0}
    machine = f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"
    print(f"{machine}, {args.ids} identities, {sizes}")
    print(f"{'margin':18}{'head':52}{'planned MB':>12}{'peak MB':>10}{'planned / peak':>16}")
    worst = 1.0
    for margin in args.margins or CASES:
        for one in bench_heads(parse_variants(CASES[margin]), parse_counts(args.ids), margin=margin, **sizes):
            if one.peak_bytes is None:
                sys.exit(f"{one.head}: {one.problem or 'this system does not tell the peak of a process'}")
            ratio = one.planned_bytes / one.peak_bytes
            worst = max(worst, ratio, 1 / ratio)
            megabytes = f"{one.planned_bytes / 1e6:>12.1f}{one.peak_bytes / 1e6:>10.1f}"
            print(f"{margin:18}{one.head:52}{megabytes}{ratio:>16.3f}", flush=True)
    print(f"furthest apart: a factor of {worst:.3f}")


if __name__ == "__main__":
    main()
