"""Compiled loops on all threads of torch: each takes a part of the rows."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def in_parts(run: Callable[[int, int], None], total: int, parts: int = 0) -> None:
    """Call ``run(start, stop)`` for as many parts of ``range(total)`` as torch has threads, at once.

    Loops must be compiled without the interpreter's lock. ``parts`` overrides the number.
    """
    parts = min(parts or torch.get_num_threads(), total)
    if parts <= 1:
        run(0, total)
        return
    bounds = [total * part // parts for part in range(parts + 1)]
    list(_pool(parts).map(run, bounds[:-1], bounds[1:]))


@cache
def _pool(parts: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(parts, "loops")
