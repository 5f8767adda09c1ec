"""Training step (forward, backward, SGD) of small backbones, against plain torch in fp32 in the same run."""

import argparse
import os
import platform
import time
from collections.abc import Callable

import torch
from torch import nn

from facescale import backbones
from facescale.bench.plain import plain_layers


def step_of(net: nn.Module, batch: int, fast: bool) -> Callable[[], None]:
    """A function that does one training step on random images."""
    memory = torch.channels_last if fast else torch.contiguous_format
    net = net.train().to(memory_format=memory)
    images = torch.randn(batch, 3, 112, 112).contiguous(memory_format=memory)
    direction = torch.randn(batch, 512)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            embedding = net(images)
        (embedding.float() * direction).sum().backward()
        optimizer.step()

    return step


def seconds(steps: list[Callable[[], None]], repeats: int) -> list[float]:
    """Shortest time of each step; the steps take turns, so that other load meets all of them."""
    best = [float("inf")] * len(steps)
    for step in steps:
        step()
    for _ in range(repeats):
        for i, step in enumerate(steps):
            start = time.perf_counter()
            step()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", nargs="+", default=["mbf_s", "mbf", "r18"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    print(
        "images/s: plain = torch layers, fp32, contiguous; torch bf16 = the same in bf16, channels_last; ours"
    )
    print(f"{'net':8} {'threads':>7} {'plain':>8} {'torch bf16':>10} {'ours':>8} {'ours / plain':>12}")
    for threads in args.threads:
        torch.set_num_threads(threads)
        for name in args.names:
            steps = [
                step_of(plain_layers(backbones.build(name)), args.batch, fast=False),
                step_of(plain_layers(backbones.build(name)), args.batch, fast=True),
                step_of(backbones.build(name), args.batch, fast=True),
            ]
            rates = [args.batch / t for t in seconds(steps, args.repeats)]
            plain_rate, torch_rate, our_rate = rates
            row = f"{name:8} {threads:7} {plain_rate:8.1f} {torch_rate:10.1f} {our_rate:8.1f}"
            print(f"{row} {our_rate / plain_rate:12.2f}")


if __name__ == "__main__":
    main()
