"""What heads say they need (as `facescale plan` prints it) against the peak of a process that trains them.

OMP_NUM_THREADS=1 python benchmarks/plan_bytes.py [MARGIN ...] [--ids 300k] [--embedding-size 256]

Every head and placement runs in a fresh process, as in `facescale bench heads`. The peak is that of its
resident memory beyond what the libraries take; planned are the bytes on the device and in host memory. The
target is 15 %.
"""

import argparse
import platform
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("margins", nargs="*", help=f"of: {', '.join(CASES)} (default: all)")
    parser.add_argument("--ids", default="300k")
    parser.add_argument("--embedding-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=128)
    args = parser.parse_args()
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
