"""Compiled loops on all threads of torch: each takes a part of the rows."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise

import torch


def in_parts(run: Callable[[int, int], None], total: int, parts: int = 0) -> None:
    """Call ``run(start, stop)`` for as many parts of ``range(total)`` as torch has threads, at once.

    Loops must be compiled without the interpreter's lock. ``parts`` overrides the number. The calling thread
    takes the first part: waking a thread for it would take as long as a small part.
    """
    parts = min(parts or torch.get_num_threads(), total)
    if parts <= 1:
        run(0, total)
        return
    bounds = [total * part // parts for part in range(parts + 1)]
    mine, *rest = pairwise(bounds)
    others = [_pool(parts - 1).submit(run, *part) for part in rest]
    try:
        run(*mine)
    finally:
        wait(others)  # they write into arrays of the caller
    for other in others:
        other.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "loops")
