"""Examine photos in several processes of this machine."""

import os
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

from facescale.prepare.examine import FaceSource, Finding, Settings, examine, open_face_source

_CHUNK = 8  # photos that a worker examines in one go


def examine_each(
    root: Path, keys: list[str], settings: Settings, workers: int, faces: FaceSource
) -> Iterator[tuple[Finding, bytes]]:
    """Examine photos on several cores.

    Args:
        root: folder of the photos.
        keys: paths below it.
        settings: how they are examined.
        workers: processes; 1: this one.
        faces: serves this process; others open their own.

    Yields:
        Findings and pictures in the order of ``keys``.

    Raises:
        RuntimeError: a worker process died.
    """
    chunks = [keys[start : start + _CHUNK] for start in range(0, len(keys), _CHUNK)]
    if workers == 1 or len(chunks) < 2:
        for key in keys:
            yield examine(root, key, settings, faces)
        return
    # Spawned, not forked: the progress bar and the libraries of this process have threads.
    pool = ProcessPoolExecutor(
        min(workers, len(chunks)), mp_context=get_context("spawn"), initializer=_start_worker
    )
    waiting: deque[tuple[list[str], Future[list[tuple[Finding, bytes]]]]] = deque()
    try:
        for chunk in chunks:
            waiting.append((chunk, pool.submit(examine_many, root, chunk, settings)))
            if len(waiting) > 4 * workers:
                yield from _finished(*waiting.popleft())
        while waiting:
            yield from _finished(*waiting.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Leave interruptions to the main process, and end with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None  # this is a worker
    parent.join()
    os._exit(1)  # an executor's workers wait for ever on a queue that nobody fills


def _finished(chunk: list[str], future: Future[list[tuple[Finding, bytes]]]) -> list[tuple[Finding, bytes]]:
    try:
        return future.result()
    except BrokenProcessPool:
        raise RuntimeError(
            f"a worker process died, perhaps out of memory, while it examined '{chunk[0]}' or a later photo;"
            " the same command continues from there, with --workers 1 it needs the least memory"
        ) from None


_face_source = cache(open_face_source)  # in worker processes only


def examine_many(root: Path, keys: list[str], settings: Settings) -> list[tuple[Finding, bytes]]:
    """Examine some photos; runs in a worker process, which opens the detector once."""
    faces = _face_source(settings)
    return [examine(root, key, settings, faces) for key in keys]


def default_workers() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
