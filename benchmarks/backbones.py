"""Training step of every backbone: images/s and memory, against plain torch in fp32.

    OMP_NUM_THREADS=1 python benchmarks/backbones.py

Three variants, each in a fresh process. plain: torch layers, fp32, contiguous, eager; ours: channels_last,
under bf16 autocast where the processor multiplies bf16; ckpt: ours with gradient checkpointing. A step is
forward, backward and SGD. Its memory is its resident peak beyond weights, gradients and libraries.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import time
from pathlib import Path

import torch
from torch import nn

from facescale import backbones
from facescale.backbones.profile import describe
from facescale.bench.plain import plain_layers
from facescale.machine.bf16 import multiplies_bf16

PRECISION = "bf16" if multiplies_bf16(torch.device("cpu")) else "fp32"
WAYS = ("plain", "ours", "ckpt")
TITLES = (
    "backbone",
    "parameters",
    "multiply-adds",
    "batch",
    *(f"{way}, images/s" for way in WAYS),
    "ours / plain",
    *(f"{way}, MB" for way in WAYS),
    "ckpt / plain",
    "ckpt / ours",
)


def peak() -> float:
    """Largest resident memory of this process until now, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str, way: str, batch: int, repeats: int, threads: int) -> tuple[float, float]:
    """Images per second in the best of ``repeats`` steps, and MB that a step adds."""
    torch.set_num_threads(threads)
    # Of one thread the processor's time: what else the machine does counts little.
    clock = time.process_time if threads == 1 else time.perf_counter
    fast = way != "plain"
    layout = torch.channels_last if fast else torch.contiguous_format
    net: nn.Module = backbones.build(name, checkpointing=way == "ckpt")
    net = (net if fast else plain_layers(net)).train().to(memory_format=layout)  # type: ignore[call-overload]
    images = torch.rand(batch, 3, net.input_size, net.input_size).contiguous(memory_format=layout)
    direction = torch.randn(batch, 512)  # the gradient of a plain sum would vanish in the last batch norm
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, weight_decay=5e-4)

    def step() -> float:
        start = clock()
        with torch.autocast("cpu", torch.bfloat16, enabled=fast and PRECISION == "bf16"):
            embedding = net(images)
        (embedding * direction).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        return clock() - start

    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()  # so that gradients are in memory before
    optimizer.zero_grad(set_to_none=False)
    before = peak()
    best = min(step() for _ in range(repeats))  # the first one also chooses kernels
    return batch / best, peak() - before


def default_batch(multiply_adds: int) -> int:
    """As much work for every network: 8 images of r50; batch norm needs two at least."""
    return max(2, min(32, int(51e9 / multiply_adds)))


def compare(name: str, arguments: argparse.Namespace) -> dict[str, float | str]:
    """One row of the table."""
    parameters, multiply_adds = describe(name)
    batch = arguments.batch or default_batch(multiply_adds)
    spawn = multiprocessing.get_context("spawn")
    rates, sizes = [], []
    for way in WAYS:
        with spawn.Pool(1) as pool:
            rate, size = pool.apply(measure, (name, way, batch, arguments.repeats, arguments.threads))
        rates.append(rate)
        sizes.append(size)
    counts = (f"{parameters / 1e6:.1f} M", f"{multiply_adds / 1e9:.2f} G", batch)
    speed = (*(round(rate, 1) for rate in rates), round(rates[1] / rates[0], 2))
    memory = (*(round(size) for size in sizes), round(sizes[2] / sizes[0], 2), round(sizes[2] / sizes[1], 2))
    return dict(zip(TITLES, (name, *counts, *speed, *memory), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--names", nargs="+", default=list(backbones.BACKBONES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, help="by default 2 to 32, less for larger networks")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, ours in {PRECISION}"
    print(f"{machine}, {arguments.threads} thread(s), torch {torch.__version__}")
    print(f"| {' | '.join(TITLES)} |\n|{'---|' * len(TITLES)}")
    rows = []
    for name in arguments.names:
        rows.append(compare(name, arguments))
        print(f"| {' | '.join(map(str, rows[-1].values()))} |", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
