"""Join the process group that torchrun describes."""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as td

from facescale.distributed.device import pick_device
from facescale.distributed.dist import Dist


@contextlib.contextmanager
def start(device: str = "auto", timeout_s: float = 600) -> Iterator[Dist]:
    """Join the process group that torchrun described in the environment (if any) and leave it at the end.

    Raises:
        ValueError: the device is not available.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Dist(device=pick_device(device))
        return
    picked = pick_device(device)
    if picked.type == "cuda":
        picked = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(picked)
    td.init_process_group("nccl" if picked.type == "cuda" else "gloo", timeout=timedelta(seconds=timeout_s))
    try:
        yield Dist(td.get_rank(), td.get_world_size(), picked)
    finally:
        td.destroy_process_group()
