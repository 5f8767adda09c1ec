"""Divide the images of an evaluation among processes, and bring their rows together again.

N images, n processes.
"""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # both import torch, which takes seconds
    from facescale.distributed import Dist

Rows = Sequence[npt.NDArray[Any]]

ROUND = 64  # batches of each process after which all hear of one that failed or was asked to stop


class EvaluationStoppedError(Exception):
    """Some process was asked to stop; raised on all of them, between two batches."""


def is_main(dist: "Dist | None") -> bool:
    """Whether this process reads and writes for all."""
    return dist is None or dist.is_main


def rows_of_main(dist: "Dist | None", rows: Rows) -> Rows:
    """The main process's arrays on every process, whatever the others pass."""
    if dist is None or dist.world_size == 1:
        return rows
    kinds = json.loads(dist.gather_text(json.dumps(_kinds(rows) if dist.is_main else []))[0])
    mine = rows if dist.is_main else [np.empty((0, *shape), dtype) for dtype, shape in kinds]
    return [dist.gather_rows(array)[0] for array in mine]


def computed_in_shares(
    dist: "Dist | None", indices: Sequence[int], batch_size: int, compute: Callable[[Sequence[int]], Rows]
) -> Rows:
    """Rows of the images at ``indices``, in order, on every process; each computes its share.

    Batches are cut as one process cuts them, and are dealt out whole: batch k to process k mod n. An image
    is thus embedded beside the same images whatever n is, and the rows are the same bit for bit. (Processes
    and a single one must compute alike: the same device, precision and number of threads.)

    Args:
        dist: this process among its peers, all of which call this; None computes everything here.
        indices: of the images, N.
        batch_size: images that ``compute`` takes at once.
        compute: indices -> arrays with one row for each.

    Raises:
        ValueError: what ``compute`` raised on any process.
        RuntimeError: the same.
        EvaluationStoppedError: the same.
    """
    if dist is None or dist.world_size == 1 or not len(indices):
        return compute(indices)
    place_N = np.arange(len(indices))
    owner_N = place_N // batch_size % dist.world_size
    whole: list[npt.NDArray[Any]] = []
    for start in range(0, len(indices), ROUND * batch_size * dist.world_size):
        here_N = slice(start, start + ROUND * batch_size * dist.world_size)
        own = [indices[place] for place in place_N[here_N][owner_N[here_N] == dist.rank]]
        rows, kinds = _round(dist, own, compute)
        whole = whole or [np.empty((len(indices), *shape), dtype) for dtype, shape in kinds]
        for number, out in enumerate(whole):
            mine = rows[number] if rows else np.empty((0, *out.shape[1:]), out.dtype)
            for rank, part in enumerate(dist.gather_rows(mine)):
                out[here_N][owner_N[here_N] == rank] = part
    return whole


def _round(
    dist: "Dist", own: Sequence[int], compute: Callable[[Sequence[int]], Rows]
) -> tuple[Rows, list[tuple[str, tuple[int, ...]]]]:
    """Rows of this process's images, and type and shape of each array, for those without an image.

    Raises:
        ValueError: what ``compute`` raised on any process.
        RuntimeError: the same.
        EvaluationStoppedError: the same.
    """
    rows, failure = list[npt.NDArray[Any]](), dict[str, str]()
    try:
        rows = list(compute(own)) if own else []
    except Exception as error:  # the others must not wait for rows that never come
        kinds = {ValueError: "input", EvaluationStoppedError: "stop"}
        kind = next((name for one, name in kinds.items() if isinstance(error, one)), "other")
        failure = {"text": str(error), "kind": kind}
    dist.barrier()  # patient, unlike what follows: shares may take unequally long
    said = [
        json.loads(text) for text in dist.gather_text(json.dumps({"failure": failure, "kinds": _kinds(rows)}))
    ]
    for rank, one in enumerate(said):
        if one["failure"]:
            _raise(rank, **one["failure"])
    return rows, next(one["kinds"] for one in said if one["kinds"])


def _kinds(rows: Rows) -> list[tuple[str, tuple[int, ...]]]:
    """Type and shape of a row of each array."""
    return [(array.dtype.str, array.shape[1:]) for array in rows]


def _raise(rank: int, text: str, kind: str) -> None:
    if kind == "input":
        raise ValueError(text)
    if kind == "stop":
        raise EvaluationStoppedError
    raise RuntimeError(f"rank {rank} failed in the evaluation: {text}")
