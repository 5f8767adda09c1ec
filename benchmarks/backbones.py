"""Training step of every backbone: images/s and memory, ours against plain torch in fp32."""

import argparse
import multiprocessing
import os
import platform
import resource
import time
from typing import Any

import torch
from train_step import plain

from facescale import backbones
from facescale.backbones.describe import describe

# Trained with checkpointing only, and several minutes long here.
TOO_LARGE = ("r2060", "vit_h")


def measure(name: str, way: str, batch: int, repeats: int) -> tuple[float, float]:
    """Images per second, and what a step adds to the peak memory of the process (MB)."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    fast = way != "plain"
    memory = torch.channels_last if fast else torch.contiguous_format
    options: dict[str, Any] = {"checkpointing": way == "checkpointing"}
    net = backbones.build(name, **options)
    net = (net if fast else plain(net)).train().to(memory_format=memory)
    images = torch.rand(batch, 3, net.input_size, net.input_size).contiguous(memory_format=memory)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)

    def step(part: torch.Tensor) -> float:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            embedding = net(part)
        embedding.sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        return time.perf_counter() - start

    # Libraries, gradients and momentum are in memory before, so that only activations are measured.
    step(images[:2])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    best = min(step(images) for _ in range(repeats))
    return batch / best, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", nargs="+", default=[n for n in backbones.BACKBONES if n not in TOO_LARGE])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    print(f"{platform.machine()}, {args.threads} thread(s), torch {torch.__version__}, batch {args.batch}")
    print("plain: torch layers, fp32, contiguous; ours: bf16, channels_last; ckpt: ours with checkpointing")
    print(
        "images/s, and memory that a step of this batch adds to one of two images; ours / plain, ckpt / ours"
    )
    titles = (
        "backbone",
        "parameters",
        "multiply-adds",
        "plain",
        "ours",
        "ckpt",
        "ours / plain",
        "ckpt / ours",
    )
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    spawn = multiprocessing.get_context("spawn")
    for name in args.names:
        results = []
        for way in ("plain", "ours", "checkpointing"):
            with spawn.Pool(1) as pool:
                results.append(pool.apply(measure, (name, way, args.batch, args.repeats)))
        parameters, multiply_adds = describe(name)
        cells = [f"{rate:.1f} / {mb:.0f} MB" for rate, mb in results]
        speed, memory = results[1][0] / results[0][0], results[2][1] / results[1][1]
        size = f"{parameters / 1e6:.1f} M | {multiply_adds / 1e9:.2f} G"
        print(f"| {name} | {size} | {' | '.join(cells)} | {speed:.2f} | {memory:.2f} |", flush=True)


if __name__ == "__main__":
    main()
