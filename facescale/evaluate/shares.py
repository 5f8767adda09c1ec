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
    """
    if dist is None or dist.world_size == 1 or not len(indices):
        return compute(indices)
    place_N = np.arange(len(indices))
    owner_N = place_N // batch_size % dist.world_size
    own = [indices[place] for place in place_N[owner_N == dist.rank]]
    rows, failure = list[npt.NDArray[Any]](), dict[str, str]()
    try:
        rows = list(compute(own)) if own else []
    except Exception as error:  # the others must not wait for rows that never come
        failure = {"text": str(error), "kind": "input" if isinstance(error, ValueError) else "other"}
    dist.barrier()  # patient, unlike what follows: shares may take unequally long
    kinds = [(row.dtype.str, row.shape[1:]) for row in rows]
    said = [json.loads(text) for text in dist.gather_text(json.dumps({"failure": failure, "kinds": kinds}))]
    for rank, one in enumerate(said):
        if one["failure"]:
            _raise(rank, **one["failure"])
    kinds = next(one["kinds"] for one in said if one["kinds"])
    whole = [np.empty((len(indices), *shape), dtype) for dtype, shape in kinds]
    for number, out in enumerate(whole):
        mine = rows[number] if rows else np.empty((0, *out.shape[1:]), out.dtype)
        for rank, part in enumerate(dist.gather_rows(mine)):
            out[owner_N == rank] = part
    return whole


def _raise(rank: int, text: str, kind: str) -> None:
    if kind == "input":
        raise ValueError(text)
    raise RuntimeError(f"rank {rank} failed in the evaluation: {text}")
