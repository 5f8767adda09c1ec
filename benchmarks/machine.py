"""Settings of threads and memory: what ``facescale.machine.tune`` gains over a plain process.

    python benchmarks/machine.py [--backbone mbf] [--batch 128] [--isa AVX2] [--rounds 3]

Trains and evaluates a network on noise in processes of their own, plain and tuned in turn; prints images per
second (per second of processor time where memory is concerned), each with its ratio in the same run. "beside
another program" has one process of the machine spinning all the while.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

CHILD = """
import json, resource, sys, time
kind, backbone, batch, tuned, threads = sys.argv[1:]
if tuned == "tuned":
    from facescale.machine import tune
    tune()
import torch
from facescale import backbones
if int(threads):
    torch.set_num_threads(int(threads))
net = backbones.build(backbone).to(memory_format=torch.channels_last).train(kind == "train")
x = torch.randn(int(batch), 3, 112, 112).contiguous(memory_format=torch.channels_last)

def step():
    if kind == "train":
        net(x).square().sum().backward()
    else:
        with torch.inference_mode():
            net(x)

def now():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.monotonic(), used.ru_utime, used.ru_stime

step()
before, rounds = now(), 3
for _ in range(rounds):
    step()
wall, user, kernel = (b - a for a, b in zip(before, now()))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
images = rounds * int(batch)
print(json.dumps({"wall": images / wall, "cpu": images / (user + kernel), "kernel": kernel / (user + kernel),
                  "peak": peak}))
"""


def measure(args: argparse.Namespace, kind: str, tuned: str, threads: int) -> dict[str, float]:
    """Figures of one fresh process."""
    environment = {key: x for key, x in os.environ.items() if not key.startswith(("OMP_", "MALLOC_"))}
    if args.isa:
        environment |= {"ONEDNN_MAX_CPU_ISA": args.isa, "ATEN_CPU_CAPABILITY": args.isa.lower()}
        environment |= {"MKL_ENABLE_INSTRUCTIONS": args.isa}
    command = [sys.executable, "-c", CHILD, kind, args.backbone, str(args.batch), tuned, str(threads)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


@contextmanager
def another_program() -> Iterator[None]:
    """A process that takes one core while the block runs."""
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        spinning.kill()
        spinning.wait()


def compare(args: argparse.Namespace, kind: str, figure: str, threads: int, label: str) -> None:
    """Print plain against tuned, the median of alternating rounds."""
    found = {"plain": list[dict[str, float]](), "tuned": list[dict[str, float]]()}
    for _ in range(args.rounds):
        for name, figures in found.items():
            figures.append(measure(args, kind, name, threads))
    plain, tuned = (median(one[figure] for one in found[name]) for name in ("plain", "tuned"))
    kernel = [median(one["kernel"] for one in found[name]) for name in ("plain", "tuned")]
    peak = [median(one["peak"] for one in found[name]) / 1e6 for name in ("plain", "tuned")]
    print(
        f"{label:44}{plain:8.1f} {tuned:8.1f} images/s  {tuned / plain:5.2f}x   kernel {kernel[0]:.0%} ->"
        f" {kernel[1]:.0%}   peak {peak[0]:.0f} -> {peak[1]:.0f} MB",
        flush=True,
    )


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backbone", default="mbf")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--isa", default="", help="limit the instructions, for example AVX2")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"{args.backbone}, batch {args.batch}, {args.isa or 'all'} instructions; plain, tuned")
    for kind in ("train", "evaluate"):
        compare(args, kind, "cpu", 1, f"{kind}, one thread, per second of processor time")
    for kind in ("train", "evaluate"):
        compare(args, kind, "wall", 0, f"{kind}, all cores")
    with another_program():
        compare(args, "train", "wall", 0, "train, all cores, beside another program")


if __name__ == "__main__":
    main()
